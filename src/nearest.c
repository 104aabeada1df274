/* Optimal string alignment distance. Source: Boytsov 2011 (ACM JEA 16), section 2.2. */
#include "nearest.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 127, FAR = 1000 };

static int min(int a, int b)
{
    return a < b ? a : b;
}

int nearest_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > NAME_MAX_BYTES || nb > NAME_MAX_BYTES)
        return FAR;
    unsigned char row[3][NAME_MAX_BYTES + 1]; /* of a[..i-2], a[..i-1], a[..i] */
    unsigned char *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = (unsigned char)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (unsigned char)i;
        for (size_t j = 1; j <= nb; j++) {
            int d = last[j - 1] + (a[i - 1] != b[j - 1]);
            d = min(d, min(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d = min(d, before[j - 2] + 1);
            now[j] = (unsigned char)d;
        }
        unsigned char *old = before;
        before = last;
        last = now;
        now = old;
    }
    return last[nb];
}

void nearest_try(struct nearest *best, const char *name, int distance)
{
    if (distance >= best->distance)
        return;
    best->distance = distance;
    snprintf(best->name, sizeof best->name, "%s", name);
}

int nearest_is_near(int d, int n)
{
    return d <= 1 + n / 3;
}
