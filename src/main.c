#include <stdio.h>
int main(void)
{
    puts("rlhf-hpc");
    return 0;
}
