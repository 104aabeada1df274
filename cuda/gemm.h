/* Products with tensor cores that other files build on. Every path multiplies in one order, so that a row's bits depend on nothing but
 * the row (DESIGN section 5):
 *
 *   floating: one float accumulator an element, from zero, over k in ascending slabs of 32, each two steps of mma.m16n8k16 with the
 *             weights as A (16 outputs) and the tokens as B (8 tokens); gemm_tile.cuh says which k of the slab the first step takes.
 *             int8 codes of "dequant" are exact in bf16; their scale is applied to the sum. Tiles, pipelines and grids may differ
 *             by shape, this order may not.
 *   int8:     int32 sums are exact, any order.
 */
#ifndef RLHF_CUDA_GEMM_H
#define RLHF_CUDA_GEMM_H

#include "cuda/cuda.h"

/* What becomes of acc[n][o] before it is stored:
 *   y = acc * (row_absmax ? row_absmax[n] / 127 : 1) * (absmax ? absmax[o] / 127 : 1) + bias[o] + lora_scale * sum_j t[n][j] b[o][j]
 * in the order that epilogue.cuh writes down. Any pointer may be NULL. */
struct epilogue {
    const float *absmax, *bias; /* [out] */
    const float *row_absmax;    /* [N] of quantised activations */
    const float *t, *b;         /* [N][r], [out][r] float */
    int r;
    float lora_scale;
};

/* y[n][o] = epilogue(sum_k x[n][k] W[o][k]), y [N][out]; floating weights, or int8 codes with MATMUL_DEQUANT.
 * in % 8 == 0, out % 8 == 0. gemm.cu. */
void gemm_forward(struct backend *be, act_t *y, const struct linear *l, const act_t *x, int N, const struct epilogue *e);

/* out[i][o - first] = sum_k x[row[i]][k] W[o][k] in float for outputs first .. first + count - 1, rows of ld floats, i < n. row on the
 * device, NULL: i itself. Floating weights (the head's). gemm.cu. */
void gemm_logits(struct backend *be, float *out, int64_t ld, const struct linear *head, int first, int count, const act_t *x,
                 const int32_t *row, int n);

/* out[i][k] += sum over o of d[i][o - first] W[o][k], o ascending from first, count of them; out float [n][in], d bf16 rows of ld_d,
 * a multiple of 8, with zeros from count to the next multiple of 8. Floating weights (the head's). linear_backward.cu. */
void gemm_logits_backward(struct backend *be, float *out, const struct linear *head, int first, int count, const act_t *d,
                          int64_t ld_d, int n);

enum { LORA_MOST = 256 }; /* largest rank */

/* A rank as packed copies and projections are padded to. */
static inline int lora_ranks(int r)
{
    return (r + 15) / 16 * 16;
}

/* The low-rank parts. t[n][j] = sum_k dropout(x)[n][k] A[j][k], float [N][r]; the same bits for a row in every pass. lora.cu. */
void lora_project(struct backend *be, float *t, const struct lora *a, const struct linear *l, const act_t *x, int N,
                  const struct linear_pass *pass);

/* Bytes of scratch of linear_backward for so many tokens. linear_backward.cu. */
size_t gemm_workspace(int max_tokens);

/* u = scale B^T dy, bf16 [N][lora_ranks(r)], written, and dA, dB added to g. narrow: scratch, float [N][lora_ranks(r)]. lora.cu. */
void lora_backward(struct backend *be, act_t *u, float *narrow, const struct lora *a, const struct linear *l, const act_t *dy,
                   const act_t *x, int N, const struct linear_pass *pass, struct grads *g);

/* The adapter that the pass applies to l; NULL: none. */
static inline struct lora *pass_adapter(const struct linear *l, const struct linear_pass *pass)
{
    return pass->adapter < 0 ? NULL : l->adapter[pass->adapter];
}

#endif
