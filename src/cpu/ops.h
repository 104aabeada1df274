/* The operations of the CPU backend, once per instruction set. */
#ifndef RLHF_SRC_CPU_OPS_H
#define RLHF_SRC_CPU_OPS_H

#include "cpu/cpu.h"

void CPU(norm_forward)(struct backend *be, float *y1, float *y2, float *x, const float *add1,
                       const float *add2, const struct norm *n1, const struct norm *n2, int N,
                       int H);
void CPU(norm_backward)(struct backend *be, float *dx, const float *dy1, const float *dy2,
                        const float *x, const struct norm *n1, const struct norm *n2, int H,
                        struct grads *g, const struct batch *b);
size_t CPU(norm_workspace)(int max_tokens); /* bytes, once */
void CPU(qkv_rope)(struct backend *be, float *q, float *k, float *v, const float *qkv0,
                   const float *qkv1, const float *qkv2, const struct attention *a,
                   const struct kv_cache *cache, const struct batch *b);
void CPU(qkv_rope_backward)(struct backend *be, float *dqkv0, float *dqkv1, float *dqkv2,
                            const float *dq, const float *dk, const float *dv,
                            const struct attention *a, const struct batch *b);
size_t CPU(cache_bytes)(struct backend *be, const struct attention *a, int slots, int max_tokens);
size_t CPU(attention_workspace)(int max_seq, int head_dim); /* bytes a thread; a multiple of 64 */
void CPU(attn_forward)(struct backend *be, float *o, const float *q, const float *k, const float *v,
                       const struct attention *a, const struct batch *b);
void CPU(attn_decode)(struct backend *be, float *o, const float *q, const struct attention *a,
                      const struct kv_cache *cache, const struct batch *b);
void CPU(attn_backward)(struct backend *be, float *dq, float *dk, float *dv, const float *d_o,
                        const float *q, const float *k, const float *v, const struct attention *a,
                        const struct batch *b);
void CPU(act_forward)(struct backend *be, float *y, const float *up, const float *gate,
                      enum activation act, int N, int I);
void CPU(act_backward)(struct backend *be, float *dup, float *dgate, const float *dy,
                       const float *up, const float *gate, enum activation act, int N, int I);
void CPU(grads_zero)(struct backend *be, struct grads *g);
double CPU(grads_norm)(struct backend *be, const struct grads *g);
void CPU(adamw)(struct backend *be, float *p, float *m, float *v, const struct grads *g,
                const struct adamw *how);

#endif
