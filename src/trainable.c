/* The list of trainable tensors. */
#include "trainable.h"

#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t trainable_add(struct trainable *t, int64_t rows, int64_t cols, const char *format, ...)
{
    if (t->n_entries == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->entry = realloc(t->entry, (size_t)t->room * sizeof *t->entry);
        CHECK(t->entry, "out of memory");
    }
    struct trainable_entry *e = &t->entry[t->n_entries++];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(e->name, sizeof e->name, format, args);
    va_end(args);
    CHECK(n < (int)sizeof e->name, "parameter name too long: %s", e->name);
    e->rows = rows;
    e->cols = cols;
    e->offset = t->n;
    t->n += rows * cols;
    return e->offset;
}

const struct trainable_entry *trainable_find(const struct trainable *t, const char *name)
{
    for (int i = 0; i < t->n_entries; i++)
        if (!strcmp(t->entry[i].name, name))
            return &t->entry[i];
    return NULL;
}

const struct trainable_entry *trainable_at(const struct trainable *t, int64_t offset)
{
    for (int i = 0; i < t->n_entries; i++)
        if (offset < t->entry[i].offset + t->entry[i].rows * t->entry[i].cols)
            return &t->entry[i];
    return NULL;
}

void trainable_layout(struct trainable *t, struct arena *a)
{
    size_t bytes = (size_t)t->n * sizeof(float);
    t->value = arena_take(a, MEM_ADAPTERS, bytes);
    t->moment1 = arena_take(a, MEM_OPTIMIZER, bytes);
    t->moment2 = arena_take(a, MEM_OPTIMIZER, bytes);
    t->grads.sum = arena_take(a, MEM_GRADIENTS, (size_t)t->n * sizeof(int64_t));
    t->grads.overflow = arena_take(a, MEM_GRADIENTS, sizeof(int64_t));
    t->grads.n = t->n;
}

void trainable_free(struct trainable *t)
{
    free(t->entry);
    *t = (struct trainable){0};
}
