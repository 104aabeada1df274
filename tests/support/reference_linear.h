/* Linear layers and the heads in float64, written as their formulas read, to test the backends against. Weights are given
 * as the float rows that linear_put_rows gets, and rounded as the backend stores the layer's dtype: itself, or bf16 for each
 * floating one on CUDA. Shapes as in backend.h. */
#ifndef RLHF_TESTS_SUPPORT_REFERENCE_LINEAR_H
#define RLHF_TESTS_SUPPORT_REFERENCE_LINEAR_H

#include "backend.h"

/* w [out][in]: what the layer holds once its rows are stored. */
void reference_weights(double *w, const struct linear *l, const float *rows);

/* y [N][out], written. Codes of int8 rows are rounded in float as LLM.int8() does, all sums are in float64. */
void reference_linear(double *y, const struct linear *l, const float *rows, const float *x, int N,
                      const struct linear_pass *pass);

/* Where gradients are added to; NULL: not wanted. */
struct reference_gradients {
    double *dx, *da, *db, *dw, *dbias;
};

void reference_linear_backward(const struct reference_gradients *to, const struct linear *l,
                               const float *rows, const float *dy, const float *x, int N,
                               const struct linear_pass *pass);

struct reference_statistics {
    double logprob, entropy, lse;
};

/* Of softmax(z / temperature), z [V]. */
struct reference_statistics reference_head(const double *z, int V, int target, double temperature);

/* dz [V] of g * logprob + h * entropy, written. */
void reference_head_backward(double *dz, const double *z, int V, int target, double temperature,
                             double g, double h);

#endif
