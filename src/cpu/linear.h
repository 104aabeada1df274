/* What linear.c, linear_backward.c and head.c share. */
#ifndef RLHF_SRC_CPU_LINEAR_H
#define RLHF_SRC_CPU_LINEAR_H

#include "cpu/ops.h"
#include "cpu/product.h"

size_t CPU(panel_bytes)(enum dtype t, int in); /* of 16 outputs */

/* Row o of W as floats [in]; int8: dequantised. */
void CPU(weight_row)(float *y, const struct linear *l, int o);

/* x with pass's dropout of adapter a into out [N][K], or x itself where none is active. */
const float *CPU(dropped)(struct backend *be, float *out, const float *x, int K, int N, const struct lora *a,
                          const struct linear_pass *pass);

/* dx[n][k] = (or +=) sum over o, ascending in blocks, of dy[n][o] W[o][k]: W expanded tile by tile. master: row-major float
 * [out][in] used in place of the packed weight (adapters, pretraining); dx [N][in]. */
void CPU(product_transposed)(struct backend *be, float *dx, bool add, const float *dy, const struct linear *l,
                             const float *master, int out, int in, int N);

/* For each sequence s (tokens start[s] .. start[s+1]-1): scale * sum over its tokens, in order, of left[t][i] right[t][j],
 * in float, added to the accumulators at offset + i * J + j. left [N][I], right [N][J]. */
void CPU(contract)(struct backend *be, const float *left, int I, const float *right, int J, float scale, const int32_t *start,
                   int n_seqs, struct grads *g, int64_t offset);

/* logits [n][V] of gathered rows */
void CPU(head_product)(struct backend *be, float *logits, const float *x, const struct linear *head, int n);

#endif
