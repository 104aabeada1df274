/* PPO's losses over the tokens of one global mini-batch, and their derivatives for one sample's
 * tokens.
 *
 * The two are apart since they are needed at different times: a rank goes backward on a sample as
 * soon as it has gone forward on it (a token's derivative depends on that token and the token count
 * alone), while losses, guards and statistics are computed from the gathered arrays of all ranks,
 * in global order. Everything in double. Source: Schulman et al. 2017 (arXiv:1707.06347); clipped
 * value loss as in TRL 0.7 (SPEC 2.8, appendix A).
 *
 * Ranks: local, same bits on every rank. Cannot fail: what is not finite comes out as not finite.
 */
#ifndef RLHF_SRC_POLICY_LOSS_H
#define RLHF_SRC_POLICY_LOSS_H

#include <stdbool.h>
#include <stdint.h>

struct policy_loss_settings {
    double cliprange, cliprange_value, vf_coef, ent_coef;
};

/* Response tokens, samples end to end. New: of the policy being trained; old: of the rollout.
 * Borrowed. */
struct policy_loss_tokens {
    int64_t n;
    const float *logprob, *value, *entropy; /* [n] new */
    const float *old_logprob, *old_value;   /* [n] */
    const float *advantage, *ret;           /* [n] constants of the step */
};

/* Means over the n tokens. rho = exp(logprob - old_logprob), exactly 1 where both have the same
 * bits. */
struct policy_loss {
    double policy; /* max(-A rho, -A clamp(rho, 1 - cliprange, 1 + cliprange)) */
    double value; /* max((v - R)^2, (v_clipped - R)^2) / 2; v_clipped: held to old_value +- range */
    double entropy;        /* of the whole distribution at each token */
    double total;          /* policy + vf_coef value - ent_coef entropy */
    double approxkl;       /* (logprob - old_logprob)^2 / 2 */
    double policykl;       /* old_logprob - logprob */
    double clipfrac;       /* share where the clipped policy term is the larger */
    double value_clipfrac; /* share where the clipped value term is the larger */
    double ratio;          /* rho */
    double ratio_var;      /* Bessel variance of rho over the tokens */
    double value_error;    /* (v - R)^2 */
    double value_mean;     /* v */
};

/* n = 0 gives zeros. */
void policy_loss_ppo(struct policy_loss *loss, const struct policy_loss_tokens *tokens,
                     const struct policy_loss_settings *settings);

/* Derivatives of total for the tokens of one sample.
 *
 *   d/d logprob = -A rho / n where the unclipped term is the larger or equal, else 0
 *   d/d entropy = -ent_coef / n
 *   d/d value   = vf_coef (v - R) / n where the unclipped term is the larger or equal; else 0 where
 *                 v is clipped
 *
 * dlogprob, dentropy, dvalue  [tokens->n] float, written
 * n_global                    tokens of the whole mini-batch over all ranks, > 0: the
 *                             denominator of the means
 */
void policy_loss_ppo_backward(float *dlogprob, float *dentropy, float *dvalue,
                              const struct policy_loss_tokens *tokens, int64_t n_global,
                              const struct policy_loss_settings *settings);

/* exp(logprob - old_logprob); 1.0 exactly for equal bits. */
double policy_loss_ratio(float logprob, float old_logprob);

/* The mean ratio is above ratio_threshold (0: no guard): leave this mini-batch's update out. */
bool policy_loss_guard(const struct policy_loss *loss, double ratio_threshold);

/* The policy has moved too far from the rollout's for further epochs: policykl > 1.5 target_kl.
 * Source: TRL 0.7. */
bool policy_loss_stop(const struct policy_loss *loss, double target_kl);

#endif
