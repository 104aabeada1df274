/* Statistics in index order: plain sums in double, two passes for the variance. */
#include "stats.h"

#include <math.h>

static const double WHITEN_EPSILON = 1e-8; /* TRL 0.4 */

double stats_mean(const double *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / (double)n : 0.0;
}

static double mean_float(const float *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / (double)n : 0.0;
}

double stats_variance(const double *x, int64_t n)
{
    const double mean = stats_mean(x, n);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sum / (double)(n - 1) : 0.0;
}

static double variance_float(const float *x, int64_t n)
{
    const double mean = mean_float(x, n);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sum / (double)(n - 1) : 0.0;
}

void stats_whiten(float *x, int64_t n, bool shift_mean)
{
    const double mean = mean_float(x, n);
    const double scale = 1.0 / sqrt(variance_float(x, n) + WHITEN_EPSILON);
    const double back = shift_mean ? 0.0 : mean;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((x[i] - mean) * scale + back);
}
