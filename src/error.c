/* The error slot. One of the two mutable globals of the program; only the main thread of a rank writes it. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_MAX = 16384 };

static struct {
    enum error kind;
    char message[MESSAGE_MAX];
} slot;

static void (*abort_hook)(const char *line);

/* Messages quote names and texts of files from outside: what a terminal would act on becomes a '?'. Reports on input.cfg
 * hold a line a problem, so newlines stay there. */
static void make_printable(char *text, enum error kind)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && !(*text == '\n' && kind == ERR_INPUT)) || *text == 0x7f)
            *text = '?';
}

int error_set(enum error kind, const char *format, ...)
{
    char text[MESSAGE_MAX]; /* the arguments may point into the slot */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_printable(text, kind);
    slot.kind = kind;
    memcpy(slot.message, text, sizeof text);
    return -1;
}

int error_context(const char *format, ...)
{
    char text[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0 && n < (int)sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %.*s", MESSAGE_MAX - n - 3, slot.message);
    make_printable(text, slot.kind);
    memcpy(slot.message, text, sizeof text);
    return -1;
}

const char *error_message(void)
{
    return slot.message;
}

enum error error_kind(void)
{
    return slot.kind;
}

int error_exit_code(void)
{
    switch (slot.kind) {
    case ERR_NONE:
        return 0;
    case ERR_INPUT:
        return 2;
    case ERR_STOP:
        return 75;
    default:
        return 1;
    }
}

void error_clear(void)
{
    slot.kind = ERR_NONE;
    slot.message[0] = 0;
}

void error_set_abort_hook(void (*hook)(const char *line))
{
    abort_hook = hook;
}

void error_broken(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list args;
    int n = snprintf(text, sizeof text, "internal error at %s:%d: ", file, line);
    va_start(args, format);
    if (n > 0 && n < (int)sizeof text)
        vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    va_end(args);
    if (abort_hook)
        abort_hook(text);
    fprintf(stderr, "rlhf-hpc: %s\n", text);
    abort();
}
