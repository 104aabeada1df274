/* A kernel that touches what is not there, or a vector that is not aligned, ends by a signal; so does host code that touches guarded memory
 * of the device. Other faults go to who watched before. */
#include "fault.h"

#include "device_memory.h"
#include "grid.h"

#include <signal.h>
#include <stdlib.h>

namespace shim {

#ifdef __SANITIZE_ADDRESS__
void fault_watch()
{
}
#else
enum { STACK_BYTES = 64 << 10 }; /* a thread's own may be what has run over */

static struct sigaction before;

static void on_fault(int signal, siginfo_t *info, void *)
{
    if (current)
        broken("it touched %p: not its memory, or not aligned to the access (0: the address is not "
               "known)",
               info->si_addr);
    if (memory_on_device(info->si_addr))
        broken("host code touched %p, memory of the device", info->si_addr);
    sigaction(signal, &before, NULL); /* the fault comes again */
}

void fault_watch()
{
    static bool watching;
    if (watching)
        return;
    watching = true;
    stack_t stack = {};
    stack.ss_sp = malloc(STACK_BYTES);
    stack.ss_size = STACK_BYTES;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (!stack.ss_sp || sigaltstack(&stack, NULL) != 0 || sigaction(SIGSEGV, &action, &before) != 0)
        abort();
}
#endif

} // namespace shim
