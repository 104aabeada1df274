/* In double from the written functions of fmath.h: the same bits on every machine. */
#include "rope_table.h"

#include "fmath.h"

#include <math.h>

static const double two_pi = 6.283185307179586;

static double llama3_angle(const struct arch_rope *r, double inv)
{
    double turns = r->original_max_positions * inv / two_pi;
    if (turns < r->low_freq_factor)
        return inv / r->factor;
    if (turns > r->high_freq_factor)
        return inv;
    double smooth = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * inv / r->factor + smooth * inv;
}

/* The pair (not a whole number) that turns so often within the original context. */
static double yarn_pair(const struct arch *a, double turns)
{
    return a->rotary_dims * math_log(a->rope.original_max_positions / (turns * two_pi)) / (2 * math_log(a->rope.theta));
}

static double yarn_angle(const struct arch *a, double inv, int j)
{
    double low = fmax(floor(yarn_pair(a, a->rope.beta_fast)), 0);
    double high = fmin(ceil(yarn_pair(a, a->rope.beta_slow)), a->rotary_dims - 1);
    if (low == high)
        high += 0.001;
    double share = fmin(fmax((j - low) / (high - low), 0), 1);
    return share * inv / a->rope.factor + (1 - share) * inv;
}

double rope_table_angles(double *inv, const struct arch *a)
{
    const struct arch_rope *r = &a->rope;
    for (int j = 0; j < a->rotary_dims / 2; j++) {
        inv[j] = math_pow(r->theta, -2.0 * j / a->rotary_dims);
        if (r->scaling == ROPE_LINEAR)
            inv[j] /= r->factor;
        else if (r->scaling == ROPE_LLAMA3)
            inv[j] = llama3_angle(r, inv[j]);
        else if (r->scaling == ROPE_YARN)
            inv[j] = yarn_angle(a, inv[j], j);
    }
    return r->scaling == ROPE_YARN ? r->attention_factor : 1;
}

void rope_table_row(float *cos, float *sin, const double *inv, int n, double scale, int position)
{
    for (int j = 0; j < n; j++) {
        double angle = position * inv[j];
        cos[j] = (float)(scale * math_cos(angle));
        sin[j] = (float)(scale * math_sin(angle));
    }
}
