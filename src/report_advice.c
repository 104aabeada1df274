/* Thresholds are rules of thumb for PPO on language models; each line says what was measured and what to try. Unless it
 * says otherwise, a number is the mean of the last tenth of the steps. */
#include "report_advice.h"

#include <stdarg.h>
#include <stdio.h>

static const double KL_MAX = 10;            /* nats a response */
static const double CLIPFRAC_MAX = 0.3;     /* share of tokens whose ratio leaves the clip range */
static const double ENTROPY_LEFT_MIN = 0.3; /* of what it was in the first tenth */
static const double GAP_MAX = 0.01;         /* mean difference of log-probabilities, sampled and recomputed */
static const double IMBALANCE_MAX = 1.2;
static const double OTHER_MAX = 0.2; /* share of the run */

struct advice {
    struct text *out;
    int n;
};

static void add(struct advice *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct advice *a, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_format(a->out, "- %s\n", line);
    a->n++;
}

static void look_at_policy(struct advice *a, const struct curves *c, int64_t tenth)
{
    int64_t last = c->n_rows - tenth;
    double kl = curve_mean(curves_find(c, "objective/kl"), last, tenth);
    double clipfrac = curve_mean(curves_find(c, "policy/clipfrac_avg"), last, tenth);
    const struct curve *entropy = curves_find(c, "policy/entropy_avg");
    double before = curve_mean(entropy, 0, tenth), after = curve_mean(entropy, last, tenth);
    if (kl > KL_MAX)
        add(a, "KL to the reference policy is %.3g, above %g: responses may have left fluent text for what the reward likes. "
            "Raise ppo.init_kl_coef, lower ppo.target or optim.learning_rate, or stop earlier.", kl, KL_MAX);
    if (kl < -0.1)
        add(a, "KL to the reference policy is %.3g: an estimate below 0 means that responses are not drawn from the distribution "
            "that is scored (generate.top_k, top_p, min_new_tokens).", kl);
    if (clipfrac > CLIPFRAC_MAX)
        add(a, "%.0f %% of the tokens are clipped: updates are too large. Lower optim.learning_rate or ppo.ppo_epochs.",
            100 * clipfrac);
    if (before > 0 && after < ENTROPY_LEFT_MIN * before)
        add(a, "Entropy fell from %.3g to %.3g nats a token: the policy has collapsed to few responses. Lower "
            "optim.learning_rate, or raise ppo.init_kl_coef or ppo.ent_coef.", before, after);
}

static void look_at_training(struct advice *a, const struct curves *c, int64_t tenth)
{
    int64_t last = c->n_rows - tenth;
    double skipped = curve_mean(curves_find(c, "val/num_skipped_updates"), 0, c->n_rows) * (double)c->n_rows;
    double gap = curve_mean(curves_find(c, "sampling/logprob_gap"), last, tenth);
    double explained = curve_mean(curves_find(c, "val/explained_variance"), last, tenth);
    const struct curve *score = curves_find(c, "objective/scores");
    double before = curve_mean(score, 0, tenth), after = curve_mean(score, last, tenth);
    if (c->n_rows >= 20 && after <= before)
        add(a, "The score did not rise (%.4g in the first tenth of the steps, %.4g in the last).", before, after);
    if (skipped >= 1)
        add(a, "%.0f updates were skipped (the log says why): ratios that run away or gradients that are not finite want a lower "
            "optim.learning_rate.", skipped);
    if (c->n_rows >= 20 && explained < 0)
        add(a, "The value head explains nothing of the returns (explained variance %.3g): raise ppo.vf_coef or train longer.",
            explained);
    if (gap > GAP_MAX)
        add(a, "Log-probabilities of sampling and of training differ by %.3g on average.", gap);
    if (c->n_null)
        add(a, "%lld values in metrics.jsonl were not finite.", (long long)c->n_null);
}

static void look_at_time(struct advice *a, const struct timing_file *t)
{
    double imbalance = timing_file_imbalance(t);
    double other = t->total.mean > 0 ? t->phase[PHASE_OTHER].mean / t->total.mean : 0;
    if (imbalance > IMBALANCE_MAX)
        add(a, "The slowest rank works %.2f times as long as the mean: the others wait for it. Larger ppo.mini_batch_size lets "
            "samples be dealt more evenly; or the ranks' devices differ.", imbalance);
    if (other > OTHER_MAX)
        add(a, "%.0f %% of the time is in no named phase.", 100 * other);
}

int report_advice(struct text *out, const struct past_run *r)
{
    struct advice a = {.out = out};
    int64_t tenth = (r->curves.n_rows + 9) / 10;
    if (r->curves.n_rows > 0) {
        look_at_policy(&a, &r->curves, tenth);
        look_at_training(&a, &r->curves, tenth);
    }
    if (r->finished)
        look_at_time(&a, &r->timing);
    return a.n;
}
