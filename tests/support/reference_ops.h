/* Operations in float64, written as their formulas read, to test the backends against. Inputs are float as the operations
 * get them, results double. Shapes as in backend.h. */
#ifndef RLHF_TESTS_SUPPORT_REFERENCE_OPS_H
#define RLHF_TESTS_SUPPORT_REFERENCE_OPS_H

#include "backend.h"

/* One row. */
void reference_norm(double *y, const double *x, const struct norm *n, int H);
/* Adds to dx, dweight, dbias [H]. */
void reference_norm_backward(double *dx, double *dweight, double *dbias, const double *dy,
                             const double *x, const struct norm *n, int H);

/* One head at a position, in place; direction 1, or -1 for the inverse. */
void reference_rope(double *x, const struct attention *a, int position, double direction);

/* One sequence of T tokens: q, o [T][nh * hd], k, v [T][nkv * hd]. */
void reference_attention(double *o, const double *q, const double *k, const double *v,
                         const struct attention *a, int T);
void reference_attention_backward(double *dq, double *dk, double *dv, const double *d_o,
                                  const double *q, const double *k, const double *v,
                                  const struct attention *a, int T);

double reference_activation(enum activation act, double x);
double reference_activation_slope(enum activation act, double x);

/* One element. */
void reference_adamw(double *p, double *m, double *v, double gradient, const struct adamw *how);

#endif
