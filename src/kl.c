/* Estimators and the controller. The formulas are the header's. */
#include "kl.h"

#include "error.h"
#include "fmath.h"
#include "text.h"

#include <math.h>
#include <string.h>

static const double ERROR_CLIP = 0.2; /* Ziegler et al. 2019 */

static double penalty_kl(double logprob, double ref_logprob)
{
    return logprob - ref_logprob;
}

static double penalty_abs(double logprob, double ref_logprob)
{
    return fabs(logprob - ref_logprob);
}

static double penalty_mse(double logprob, double ref_logprob)
{
    const double d = logprob - ref_logprob;
    return 0.5 * d * d;
}

static double penalty_k3(double logprob, double ref_logprob)
{
    const double d = logprob - ref_logprob;
    return math_expm1(-d) + d;
}

static const struct kl_estimator ESTIMATORS[] = {
    {"kl", penalty_kl},
    {"abs", penalty_abs},
    {"mse", penalty_mse},
    {"k3", penalty_k3},
};

const struct kl_estimator *kl_table(int *n)
{
    *n = sizeof ESTIMATORS / sizeof *ESTIMATORS;
    return ESTIMATORS;
}

const struct kl_estimator *kl_find(const char *name)
{
    int n;
    const struct kl_estimator *row = kl_table(&n);
    struct text names = {0};
    for (int i = 0; i < n; i++) {
        if (!strcmp(row[i].name, name)) {
            text_free(&names);
            return &row[i];
        }
        text_format(&names, "%s\"%s\"", i ? ", " : "", row[i].name);
    }
    error_set(ERR_INPUT, "\"%s\" is no KL penalty; there are %s", name, text_string(&names));
    text_free(&names);
    return NULL;
}

double kl_penalty(const struct kl_estimator *estimator, double logprob, double ref_logprob)
{
    return estimator->penalty(logprob, ref_logprob);
}

double kl_rewards(float *reward, const float *logprob, const float *ref_logprob, int T,
                  const struct kl_estimator *estimator, double coef, double score)
{
    double sum = 0.0;
    for (int t = 0; t < T; t++) {
        const double kl = kl_penalty(estimator, logprob[t], ref_logprob[t]);
        sum += kl;
        reward[t] = (float)(-coef * kl + (t == T - 1 ? score : 0.0));
    }
    return sum;
}

void kl_adapt(struct kl_controller *controller, double kl, int64_t n_samples)
{
    if (!controller->adaptive || !isfinite(kl))
        return;
    double e = kl / controller->target - 1.0;
    if (e > ERROR_CLIP)
        e = ERROR_CLIP;
    else if (e < -ERROR_CLIP)
        e = -ERROR_CLIP;
    controller->coef *= 1.0 + e * (double)n_samples / controller->horizon;
}
