/* The trainable parameters: one flat float vector of named tensors, with gradients and two moments of the same length.
 * Order of entries is the order of trainable_add, the same on every rank: hashes, checkpoints and gradients go by it. */
#ifndef RLHF_SRC_TRAINABLE_H
#define RLHF_SRC_TRAINABLE_H

#include "arena.h"
#include "backend.h"

struct trainable_entry {
    char name[192]; /* Hugging Face or PEFT name without its prefix: "layers.0.attention.query_key_value.lora_A" */
    int64_t rows, cols, offset;
};

struct trainable {
    struct trainable_entry *entry;
    int n_entries, room;
    int64_t n;
    float *value, *moment1, *moment2; /* [n] device */
    struct grads grads;
};

/* Appends a tensor and returns its offset. Before layout. */
int64_t trainable_add(struct trainable *t, int64_t rows, int64_t cols, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
const struct trainable_entry *trainable_find(const struct trainable *t, const char *name); /* NULL: none */
const struct trainable_entry *trainable_at(const struct trainable *t, int64_t offset);     /* the entry that holds it */
void trainable_layout(struct trainable *t, struct arena *a);
void trainable_free(struct trainable *t);

#endif
