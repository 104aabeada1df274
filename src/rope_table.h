/* Cosines and sines of rotary positions, with the scalings to longer contexts. */
#ifndef RLHF_SRC_ROPE_TABLE_H
#define RLHF_SRC_ROPE_TABLE_H

#include "arch.h"

/* Angles per position, in radians, of the rotary pairs: inv [rotary_dims / 2], written. n = rotary_dims, P =
 * original_max_positions, f = factor.
 *   plain, dynamic  inv_j = theta^(-2j / n)       (dynamic: of sequences up to max_positions)
 *   linear          inv_j / f
 *   llama3          turns within P below low_freq_factor: inv_j / f; above high_freq_factor: inv_j; a blend between
 *   yarn            from inv_j, where a pair turns more than beta_fast times within P, to inv_j / f, where less than beta_slow
 * Returns what cosines and sines are multiplied by: yarn's attention_factor, else 1.
 * Source: transformers' modeling_rope_utils.py; YaRN: Peng et al. 2023 (arXiv:2309.00071), sections 3.2 to 3.4. */
double rope_table_angles(double *inv, const struct arch *a);

/* cos and sin [n] of a position's angles, times scale. Computed in double. */
void rope_table_row(float *cos, float *sin, const double *inv, int n, double scale, int position);

#endif
