/* What happens to the scores of a batch before they become rewards: EOS penalty, then scaling, then
 * clipping.
 *
 * Scores of the whole global batch in index order. Ranks: local, same bits on every rank. Cannot
 * fail.
 */
#ifndef RLHF_SRC_SCORE_H
#define RLHF_SRC_SCORE_H

#include <stdbool.h>
#include <stdint.h>

/* Running moments of all scores seen (part of a checkpoint). The zeroed struct has seen none. */
struct score_moments {
    double mean, variance; /* variance biased, as the running update needs it */
    double std;            /* unbiased */
    double count;
};

struct score_settings {
    bool scaling, norm; /* use_score_scaling; use_score_norm (only with scaling) */
    double clip;        /* score_clip; 0: none */
};

/* Joins a batch to the moments (Chan et al. 1983, pairwise update):
 *   m, v, c = mean, biased variance, count of the batch;  d = m - mean;  N = count + c
 *   variance <- (v c + variance count + d^2 count c / N) / N;  mean <- mean + d c / N
 *   std <- sqrt(variance N / (N - 1)), 1 while N < 2;  count <- N
 */
void score_moments_add(struct score_moments *moments, const double *score, int64_t n);

/* Scaling: the batch joins the moments, then score <- score / (std + 2^-23), with norm (score -
 * mean) / (std + 2^-23); then clamps to [-clip, clip]. Source: TRL 0.7, SPEC 2.6. */
void score_process(double *score, int64_t n, struct score_moments *moments,
                   const struct score_settings *settings);

/* score <- score - penalty where the response did not end with an EOS token. Goes before
 * score_process: it is a part of what the response is worth, so it is scaled and clipped with the
 * rest. Source: TRL's missing_eos_penalty. */
void score_missing_eos(double *score, const bool *finished, int64_t n, double penalty);

#endif
