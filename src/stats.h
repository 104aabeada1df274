/* Means, variances and whitening of ragged arrays laid end to end, in index order and in double.
 *
 * The arrays hold response tokens of all samples in global order, without padding, so no mask is
 * needed and every rank that has gathered them computes the same bits. Cannot fail; n = 0 and n = 1
 * are defined below.
 */
#ifndef RLHF_SRC_STATS_H
#define RLHF_SRC_STATS_H

#include <stdbool.h>
#include <stdint.h>

/* (sum of x) / n; 0 for n = 0. */
double stats_mean(const double *x, int64_t n);

/* sum of (x - mean)^2 / (n - 1), in two passes (Bessel's correction); 0 for n < 2. */
double stats_variance(const double *x, int64_t n);

/* x <- (x - mean) / sqrt(variance + 1e-8), plus the mean again without shift_mean. Source: TRL's
 * masked_whiten. One value becomes 0 (itself without shift_mean); none writes nothing. */
void stats_whiten(float *x, int64_t n, bool shift_mean);

#endif
