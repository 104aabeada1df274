/* Planned memory: every subsystem lays its tensors out twice, first counting, then placing.
 *
 *   struct arena a = {0};                    counting: arena_take returns NULL and adds up
 *   model_layout(&m, &a); ...                --plan prints a.used
 *   arena_place(&a, be);                     one allocation a purpose, exactly the counted bytes
 *   model_layout(&m, &a); ...                the same calls now return memory
 *   arena_freeze(&a);                        a later take is a broken invariant; used == size to the byte
 */
#ifndef RLHF_SRC_ARENA_H
#define RLHF_SRC_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memory {
    MEM_WEIGHTS,     /* linear layers: int8 codes or 16/32-bit */
    MEM_SCALES,      /* row scales, biases, norm weights, rotary tables */
    MEM_EMBEDDING,   /* embedding and LM head */
    MEM_ADAPTERS,    /* trainable parameters (adapters, value head; all weights in pretrain), frozen adapters, packed copies */
    MEM_GRADIENTS,   /* int64 accumulators */
    MEM_OPTIMIZER,   /* two moments */
    MEM_KV_CACHE,
    MEM_ACTIVATIONS, /* stored by forward for backward */
    MEM_WORKSPACE,   /* scratch of the operations: whoever takes it takes the same bytes, and the largest request counts */
    MEM_BATCH,       /* the batch of a pass, and rows of the head */
    MEM_REWARD_WEIGHTS, /* of reward models: what is weights, scales and embedding of the policy */
    MEM_REWARD,         /* of reward models: activations, batch */
    MEM_HOST,        /* host memory: what batches are packed in, rollouts, staging */
    MEM_PURPOSES
};

struct backend;

struct arena {
    unsigned char *base[MEM_PURPOSES];
    size_t used[MEM_PURPOSES], size[MEM_PURPOSES];
    bool placing, frozen;
    bool reward; /* set by the caller while a reward model is laid out: its memory counts as MEM_REWARD_WEIGHTS and MEM_REWARD,
                  * but workspace and host memory as the policy's */
};

/* n bytes of a purpose, aligned to 64, zeroed when placed; NULL while counting. n = 0 gives NULL. */
void *arena_take(struct arena *a, enum memory purpose, size_t n);

/* From counting to placing. shared is memory for MEM_WEIGHTS, _SCALES, _EMBEDDING and _REWARD_WEIGHTS that the ranks of a node
 * share (see comm_node_shared), of arena_shared_bytes; NULL: allocate them here. Errors: no memory, naming the purpose. */
int arena_place(struct arena *a, struct backend *be, void *shared);
size_t arena_shared_bytes(const struct arena *a);

void arena_freeze(struct arena *a);
size_t arena_device_bytes(const struct arena *a, const struct backend *be); /* of the device: less MEM_HOST where that is apart */
const char *memory_name(enum memory purpose);

#endif
