/* Running moments and the three changes to scores. */
#include "score.h"

#include "stats.h"

#include <math.h>

static const double EPSILON = 0x1p-23; /* of float, 1.1920929e-7, as TRL has it */

void score_moments_add(struct score_moments *moments, const double *score, int64_t n)
{
    if (n <= 0)
        return;
    const double c = (double)n, total = moments->count + c;
    const double mean = stats_mean(score, n);
    const double square = stats_variance(score, n) * (c - 1.0); /* sum of (x - mean)^2 */
    const double d = mean - moments->mean;
    moments->variance =
        (square + moments->variance * moments->count + d * d * moments->count * c / total) / total;
    moments->mean += d * c / total;
    moments->std = total < 2.0 ? 1.0 : sqrt(moments->variance * total / (total - 1.0));
    moments->count = total;
}

void score_process(double *score, int64_t n, struct score_moments *moments,
                   const struct score_settings *settings)
{
    if (settings->scaling) {
        score_moments_add(moments, score, n);
        const double shift = settings->norm ? moments->mean : 0.0;
        for (int64_t i = 0; i < n; i++)
            score[i] = (score[i] - shift) / (moments->std + EPSILON);
    }
    if (settings->clip > 0.0) {
        for (int64_t i = 0; i < n; i++) {
            if (score[i] > settings->clip)
                score[i] = settings->clip;
            else if (score[i] < -settings->clip)
                score[i] = -settings->clip;
        }
    }
}

void score_missing_eos(double *score, const bool *finished, int64_t n, double penalty)
{
    for (int64_t i = 0; i < n; i++)
        if (!finished[i])
            score[i] -= penalty;
}
