/* The log. Its level (does this rank speak?) is the second of the two mutable globals. */
#include "log.h"

#include "hash.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WARNINGS_MAX = 256 };

static struct {
    bool speak;
    int n_warned;
    uint64_t warned[WARNINGS_MAX];
} state;

void log_init(bool speak)
{
    state.speak = speak;
    setvbuf(stdout, NULL, _IOLBF, 0);
}

void log_line(const char *format, ...)
{
    if (!state.speak)
        return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void log_warn(const char *format, ...)
{
    if (!state.speak)
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    uint64_t key = hash_bytes(text, strlen(text), 0);
    for (int i = 0; i < state.n_warned; i++)
        if (state.warned[i] == key)
            return;
    if (state.n_warned < WARNINGS_MAX)
        state.warned[state.n_warned++] = key;
    fprintf(stderr, "rlhf-hpc: warning: %s\n", text);
}
