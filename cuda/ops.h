/* The operations of the CUDA backend, as backend.h describes them. */
#ifndef RLHF_CUDA_OPS_H
#define RLHF_CUDA_OPS_H

#include "cuda/cuda.h"

enum { UPDATE_PARTS = 1024 }; /* results of 8 bytes that grads_norm and hash leave for the host at once */

/* Starts the backend on the device of choice->node_rank; plan_only: no device is touched. Errors: no device. */
int cuda_open(struct backend *be, const struct backend_choice *choice);
void cuda_programs_close(struct backend *be);
const char *cuda_describe(struct backend *be);
void cuda_close(struct backend *be);
void *cuda_region_alloc(struct backend *be, const char *purpose, size_t bytes);
void *cuda_host_alloc(struct backend *be, const char *purpose, size_t bytes);
size_t cuda_memory_free(struct backend *be);
size_t cuda_overhead_bytes(struct backend *be, int ranks);
const unsigned char *cuda_device_id(struct backend *be);
int cuda_sync(struct backend *be);
bool cuda_program_begin(struct backend *be, uint64_t key);
void cuda_program_end(struct backend *be);
/* scratch of each group; cuda_workspace_bytes is the largest */
size_t cuda_linear_workspace(struct backend *be, int max_tokens, int max_in, int max_out);
size_t cuda_attention_workspace(struct backend *be, int max_tokens, int max_width, int max_seq,
                                int head_dim);
size_t cuda_head_workspace(struct backend *be, int max_tokens, int hidden, int vocab);
size_t cuda_update_workspace(void);
size_t cuda_workspace_bytes(struct backend *be, int max_tokens, int max_in, int max_out,
                            int max_seq, int head_dim, int vocab);
void cuda_workspace_set(struct backend *be, void *workspace, size_t bytes);
size_t cuda_linear_weight_bytes(struct backend *be, const struct linear *l);
size_t cuda_lora_packed_bytes(struct backend *be, const struct linear *l, int r);
void cuda_linear_put_rows(struct backend *be, struct linear *l, const void *rows, enum dtype dtype,
                          int first, int n);
void cuda_linear_get_rows(struct backend *be, const struct linear *l, float *rows, int first,
                          int n);
void cuda_linear_refresh(struct backend *be, struct linear *l);
void cuda_copy_in(struct backend *be, void *device, const void *host, size_t bytes);
void cuda_zero(struct backend *be, void *device, size_t bytes);
void cuda_copy_out(struct backend *be, void *host, const void *device, size_t bytes);
void cuda_embed(struct backend *be, act_t *y, const struct linear *table, const act_t *add,
                const int32_t *row, int first, int N);
void cuda_norm_forward(struct backend *be, act_t *y1, act_t *y2, act_t *sum, const act_t *x,
                       const act_t *add1, const act_t *add2, const struct norm *n1,
                       const struct norm *n2, int N, int H);
void cuda_linear_forward(struct backend *be, act_t *const *y, struct linear *const *l,
                         int n_linears, const act_t *x, int N, const struct linear_pass *pass);
void cuda_qkv_rope(struct backend *be, act_t *q, act_t *k, act_t *v, const act_t *qkv0,
                   const act_t *qkv1, const act_t *qkv2, const struct attention *a,
                   const struct kv_cache *cache, const struct batch *b);
void cuda_add(struct backend *be, act_t *y, const act_t *x, const act_t *add1, const act_t *add2,
              int N, int H);
size_t cuda_cache_bytes(struct backend *be, const struct attention *a, int slots, int max_tokens);
void cuda_attn_forward(struct backend *be, act_t *o, const act_t *q, const act_t *k, const act_t *v,
                       const struct attention *a, const struct batch *b);
void cuda_attn_decode(struct backend *be, act_t *o, const act_t *q, const struct attention *a,
                      const struct kv_cache *cache, const struct batch *b);
void cuda_act_forward(struct backend *be, act_t *y, const act_t *up, const act_t *gate,
                      enum activation act, int N, int I);
void cuda_head_logprob(struct backend *be, float *logprob, float *entropy, float *lse, act_t *slope,
                       const struct linear *head, const act_t *x, int H,
                       const struct head_rows *rows, float temperature);
void cuda_head_logits(struct backend *be, float *logits, const struct linear *head, const act_t *x,
                      int H, const struct head_rows *rows);
void cuda_head_sample(struct backend *be, int32_t *token, float *logprob, const struct linear *head,
                      const act_t *x, int H, const struct head_rows *rows,
                      const struct sampling *how, const uint32_t *random, const uint8_t *banned,
                      const int32_t *eos, int n_eos);
void cuda_score_head(struct backend *be, float *value, const float *w, const float *bias, int K,
                     const act_t *x, int H, const struct head_rows *rows);
void cuda_head_logprob_backward(struct backend *be, act_t *dx, const float *dlogprob,
                                const float *dentropy, const float *lse, const float *entropy,
                                const struct linear *head, const act_t *x, int H,
                                const struct head_rows *rows, float temperature, struct grads *g,
                                const struct batch *b);
void cuda_head_slope_backward(struct backend *be, act_t *dx, const float *dlogprob,
                              const act_t *slope, int H, const struct head_rows *rows);
void cuda_score_head_backward(struct backend *be, act_t *dx, const float *dvalue, const float *w,
                              int K, const act_t *x, int H, const struct head_rows *rows,
                              struct grads *g, int64_t offset, bool no_bias, const struct batch *b);
void cuda_norm_backward(struct backend *be, act_t *dx, const act_t *dy1, const act_t *dy2,
                        const act_t *x, const struct norm *n1, const struct norm *n2, int H,
                        struct grads *g, const struct batch *b);
void cuda_linear_backward(struct backend *be, act_t *dx, struct linear *const *l,
                          const act_t *const *dy, int n_linears, const act_t *x, int N,
                          const struct linear_pass *pass, struct grads *g);
void cuda_qkv_rope_backward(struct backend *be, act_t *dqkv0, act_t *dqkv1, act_t *dqkv2,
                            const act_t *dq, const act_t *dk, const act_t *dv,
                            const act_t *qkv0, const act_t *qkv1, const struct attention *a,
                            const struct batch *b);
void cuda_attn_backward(struct backend *be, act_t *dq, act_t *dk, act_t *dv, const act_t *d_o,
                        const act_t *q, const act_t *k, const act_t *v, const struct attention *a,
                        const struct batch *b);
void cuda_act_backward(struct backend *be, act_t *dup, act_t *dgate, const act_t *dy,
                       const act_t *up, const act_t *gate, enum activation act, int N, int I);
void cuda_grads_zero(struct backend *be, struct grads *g);
double cuda_grads_norm(struct backend *be, const struct grads *g);
void cuda_adamw(struct backend *be, float *p, float *m, float *v, const struct grads *g,
                const struct adamw *how);
uint64_t cuda_hash(struct backend *be, const void *bytes, size_t n);
void cuda_measure(struct backend *be, struct device_rates *rates);

/* mpi/nccl.cu. Weak: in a module that is linked without it the rows are NULL. */
int cuda_reduce_id(struct backend *be, void *id) __attribute__((weak));
int cuda_reduce_open(struct backend *be, const void *id, int rank, int size, double timeout_sec)
    __attribute__((weak));
void cuda_reduce_start(struct backend *be, struct grads *g) __attribute__((weak));
int cuda_reduce_finish(struct backend *be) __attribute__((weak));
void cuda_reduce_close(struct backend *be) __attribute__((weak)); /* of an open group */

#endif
