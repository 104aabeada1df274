/* The operations of the CPU backend, once per instruction set. */
#ifndef RLHF_SRC_CPU_OPS_H
#define RLHF_SRC_CPU_OPS_H

#include "cpu/cpu.h"

void CPU(norm_forward)(struct backend *be, float *y1, float *y2, float *sum, const float *x,
                       const float *add1, const float *add2, const struct norm *n1, const struct norm *n2, int N,
                       int H);
void CPU(norm_backward)(struct backend *be, float *dx, const float *dy1, const float *dy2,
                        const float *x, const struct norm *n1, const struct norm *n2, int H,
                        struct grads *g, const struct batch *b);
size_t CPU(norm_workspace)(int max_tokens); /* bytes, once */
/* One row: y = norm(x), y may be x; dx += norm'(dy), without gradients of the norm's own. */
void CPU(norm_row)(float *y, const float *x, const struct norm *n, int H);
void CPU(norm_row_backward)(float *dx, const float *dy, const float *x, const struct norm *n, int H);
void CPU(qkv_rope)(struct backend *be, float *q, float *k, float *v, const float *qkv0,
                   const float *qkv1, const float *qkv2, const struct attention *a,
                   const struct kv_cache *cache, const struct batch *b);
void CPU(qkv_rope_backward)(struct backend *be, float *dqkv0, float *dqkv1, float *dqkv2,
                            const float *dq, const float *dk, const float *dv,
                            const float *qkv0, const float *qkv1,
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
void CPU(measure)(struct backend *be, struct device_rates *rates);
void CPU(grads_zero)(struct backend *be, struct grads *g);
double CPU(grads_norm)(struct backend *be, const struct grads *g);
void CPU(adamw)(struct backend *be, float *p, float *m, float *v, const struct grads *g,
                const struct adamw *how);

void CPU(add)(struct backend *be, float *y, const float *x, const float *add1, const float *add2, int N, int H);
size_t CPU(linear_weight_bytes)(struct backend *be, const struct linear *l);
size_t CPU(lora_packed_bytes)(struct backend *be, const struct linear *l, int r);
void CPU(linear_put_rows)(struct backend *be, struct linear *l, const void *rows, enum dtype dtype, int first, int n);
void CPU(linear_get_rows)(struct backend *be, const struct linear *l, float *rows, int first, int n);
void CPU(linear_refresh)(struct backend *be, struct linear *l);
size_t CPU(linear_workspace)(int max_tokens, int max_in, int max_out); /* bytes, once */
void CPU(linear_forward)(struct backend *be, float *const *y, struct linear *const *l, int n_linears, const float *x, int N,
                         const struct linear_pass *pass);
void CPU(linear_backward)(struct backend *be, float *dx, struct linear *const *l, const float *const *dy, int n_linears,
                          const float *x, int N, const struct linear_pass *pass, struct grads *g);
void CPU(embed)(struct backend *be, float *y, const struct linear *table, const float *add, const int32_t *row, int first, int N);
void CPU(embed_backward)(struct backend *be, const float *dx, int H, int64_t offset, const struct batch *b, struct grads *g);
void CPU(score_head)(struct backend *be, float *value, const float *w, const float *bias, int K, const float *x, int H,
                     const struct head_rows *rows);
void CPU(score_head_backward)(struct backend *be, float *dx, const float *dvalue, const float *w, int K, const float *x, int H,
                              const struct head_rows *rows, struct grads *g, int64_t offset, bool no_bias, const struct batch *b);
size_t CPU(head_workspace)(int threads, int hidden, int vocab); /* bytes, once */
void CPU(head_logprob)(struct backend *be, float *logprob, float *entropy, float *lse, float *slope, const struct linear *head,
                       const float *x, int H, const struct head_rows *rows, float temperature);
void CPU(head_logits)(struct backend *be, float *logits, const struct linear *head, const float *x, int H,
                      const struct head_rows *rows);
void CPU(head_sample)(struct backend *be, int32_t *token, float *logprob, const struct linear *head, const float *x, int H,
                      const struct head_rows *rows, const struct sampling *how, const uint32_t *random, const uint8_t *banned,
                      const int32_t *eos, int n_eos);
void CPU(head_logprob_backward)(struct backend *be, float *dx, const float *dlogprob, const float *dentropy, const float *lse,
                                const float *entropy, const struct linear *head, const float *x, int H,
                                const struct head_rows *rows, float temperature, struct grads *g, const struct batch *b);
void CPU(head_slope_backward)(struct backend *be, float *dx, const float *dlogprob, const float *slope, int H,
                              const struct head_rows *rows);

#endif
