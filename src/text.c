/* Growing byte buffer (doubling). Running out of memory for text ends the run: there is nothing to do about it. */
#include "text.h"

#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_reserve(struct text *t, size_t more)
{
    size_t need = t->n + more + 1, room = t->room ? 2 * t->room : 64;
    if (t->bytes && need <= t->room)
        return;
    if (room < need)
        room = need;
    t->bytes = realloc(t->bytes, room);
    CHECK(t->bytes, "out of memory for %zu bytes of text", room);
    t->room = room;
}

void text_add(struct text *t, const void *bytes, size_t n)
{
    text_reserve(t, n);
    if (n)
        memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = 0;
}

void text_add_string(struct text *t, const char *string)
{
    text_add(t, string, strlen(string));
}

void text_format(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(n >= 0, "bad format %s", format);
    text_reserve(t, (size_t)n);
    vsnprintf(t->bytes + t->n, (size_t)n + 1, format, again);
    va_end(again);
    t->n += (size_t)n;
}

const char *text_string(const struct text *t)
{
    return t->bytes ? t->bytes : "";
}

void text_clear(struct text *t)
{
    t->n = 0;
    if (t->bytes)
        t->bytes[0] = 0;
}

void text_free(struct text *t)
{
    free(t->bytes);
    *t = (struct text){0};
}

char *text_copy(const char *string)
{
    char *copy = strdup(string);
    CHECK(copy, "out of memory");
    return copy;
}

bool text_ends(const char *string, const char *end)
{
    const size_t n = strlen(string), k = strlen(end);
    return n >= k && !strcmp(string + n - k, end);
}
