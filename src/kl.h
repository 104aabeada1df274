/* The penalty for leaving the reference policy: estimators by name, rewards per token, and the
 * controller of its weight.
 *
 * Ranks: local, same bits on every rank.
 */
#ifndef RLHF_SRC_KL_H
#define RLHF_SRC_KL_H

#include <stdbool.h>
#include <stdint.h>

/* One estimator of the divergence at a sampled token, from its log-probabilities under policy and
 * reference.
 *   kl  : d                     d = logprob - ref_logprob
 *   abs : |d|
 *   mse : d^2 / 2
 *   k3  : e^-d - 1 + d          (Schulman 2020, "Approximating KL divergence")
 */
struct kl_estimator {
    const char *name;
    double (*penalty)(double logprob, double ref_logprob);
};

const struct kl_estimator *kl_table(int *n); /* the rows, for settings and help */

/* The row of that name. Errors: ERR_INPUT with the list of names; returns NULL. */
const struct kl_estimator *kl_find(const char *name);

double kl_penalty(const struct kl_estimator *estimator, double logprob, double ref_logprob);

/* Rewards of one sample's tokens: reward_t = -coef * kl_t, and the score on top at the last token.
 * Source: SPEC 2.4.
 *
 * reward                [T] float, written
 * logprob, ref_logprob  [T] float, response tokens
 *
 * Returns the sum of kl_t, in token order. T = 0 writes nothing: the score of an empty response
 * reaches no token.
 */
double kl_rewards(float *reward, const float *logprob, const float *ref_logprob, int T,
                  const struct kl_estimator *estimator, double coef, double score);

/* The weight of the penalty. Fixed, or adapted once a step after the optimization (Ziegler et al.
 * 2019, section 2.2). */
struct kl_controller {
    bool adaptive;
    double coef, target, horizon;
};

/* coef <- coef * (1 + clip(kl / target - 1, -0.2, 0.2) * n_samples / horizon); fixed: unchanged. kl
 * is the step's objective/kl over all ranks, n_samples the global batch. A kl that is not finite
 * leaves coef as it is. */
void kl_adapt(struct kl_controller *controller, double kl, int64_t n_samples);

#endif
