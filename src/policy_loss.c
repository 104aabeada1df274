/* PPO's losses. Both public functions go through the same per-token term, so that a loss and its
 * derivative cannot disagree on which branch was taken. Comparisons are written so that NaN is
 * carried on, never dropped by a maximum. */
#include "policy_loss.h"

#include "error.h"
#include "fmath.h"

#include <stddef.h>

/* One token's terms, not yet divided by n. */
struct term {
    double ratio;
    double policy, value; /* the larger of each pair; value without the 1/2 */
    bool policy_clipped, value_clipped;
    double dlogprob, dvalue; /* of policy, and of value / 2 */
};

static double clamp(double x, double low, double high)
{
    if (x < low)
        return low;
    return x > high ? high : x;
}

double policy_loss_ratio(float logprob, float old_logprob)
{
    return math_exp((double)logprob - (double)old_logprob); /* e^0 is exactly 1 */
}

static struct term term_of(const struct policy_loss_tokens *t, int64_t i,
                           const struct policy_loss_settings *s)
{
    struct term r;
    const double a = t->advantage[i];
    r.ratio = policy_loss_ratio(t->logprob[i], t->old_logprob[i]);
    const double free_policy = -a * r.ratio;
    const double held_policy = -a * clamp(r.ratio, 1.0 - s->cliprange, 1.0 + s->cliprange);
    r.policy_clipped = held_policy > free_policy;
    r.policy = r.policy_clipped ? held_policy : free_policy;
    r.dlogprob = r.policy_clipped ? 0.0 : free_policy; /* d rho / d logprob = rho */

    const double v = t->value[i], old = t->old_value[i], target = t->ret[i];
    const double held = clamp(v, old - s->cliprange_value, old + s->cliprange_value);
    const double free_error = (v - target) * (v - target),
                 held_error = (held - target) * (held - target);
    r.value_clipped = held_error > free_error;
    r.value = r.value_clipped ? held_error : free_error;
    r.dvalue = r.value_clipped
                   ? 0.0
                   : v - target; /* clipped and larger: held differs from v, so it is flat there */
    return r;
}

void policy_loss_ppo(struct policy_loss *loss, const struct policy_loss_tokens *tokens,
                     const struct policy_loss_settings *settings)
{
    *loss = (struct policy_loss){0};
    if (tokens->n <= 0)
        return;
    for (int64_t i = 0; i < tokens->n; i++) {
        const struct term r = term_of(tokens, i, settings);
        const double d = (double)tokens->logprob[i] - tokens->old_logprob[i];
        const double gap = (double)tokens->value[i] - tokens->ret[i];
        loss->policy += r.policy;
        loss->value += 0.5 * r.value;
        loss->entropy += tokens->entropy[i];
        loss->approxkl += 0.5 * d * d;
        loss->policykl -= d;
        loss->clipfrac += r.policy_clipped;
        loss->value_clipfrac += r.value_clipped;
        loss->ratio += r.ratio;
        loss->value_error += gap * gap;
        loss->value_mean += tokens->value[i];
    }
    const double n = (double)tokens->n;
    double *const mean[] = {&loss->policy,         &loss->value,    &loss->entropy,
                            &loss->approxkl,       &loss->policykl, &loss->clipfrac,
                            &loss->value_clipfrac, &loss->ratio,    &loss->value_error,
                            &loss->value_mean};
    for (size_t i = 0; i < sizeof mean / sizeof *mean; i++)
        *mean[i] /= n;
    double square = 0.0;
    for (int64_t i = 0; i < tokens->n; i++) {
        const double d =
            policy_loss_ratio(tokens->logprob[i], tokens->old_logprob[i]) - loss->ratio;
        square += d * d;
    }
    loss->ratio_var = tokens->n > 1 ? square / (n - 1.0) : 0.0;
    loss->total =
        loss->policy + settings->vf_coef * loss->value - settings->ent_coef * loss->entropy;
}

void policy_loss_ppo_backward(float *dlogprob, float *dentropy, float *dvalue,
                              const struct policy_loss_tokens *tokens, int64_t n_global,
                              const struct policy_loss_settings *settings)
{
    CHECK(n_global >= tokens->n && (n_global > 0 || tokens->n == 0),
          "%lld tokens of a mini-batch of %lld", (long long)tokens->n, (long long)n_global);
    const double n = (double)n_global;
    for (int64_t i = 0; i < tokens->n; i++) {
        const struct term r = term_of(tokens, i, settings);
        dlogprob[i] = (float)(r.dlogprob / n);
        dentropy[i] = (float)(-settings->ent_coef / n);
        dvalue[i] = (float)(settings->vf_coef * r.dvalue / n);
    }
}

bool policy_loss_guard(const struct policy_loss *loss, double ratio_threshold)
{
    return ratio_threshold > 0.0 && loss->ratio > ratio_threshold;
}

bool policy_loss_stop(const struct policy_loss *loss, double target_kl)
{
    return loss->policykl > 1.5 * target_kl;
}
