#include "support/reference_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double norm_moments(double *mean, const double *x, const struct norm *n, int H)
{
    *mean = 0;
    if (n->kind == NORM_LAYER) {
        for (int i = 0; i < H; i++)
            *mean += x[i] / H;
    }
    double square = 0;
    for (int i = 0; i < H; i++)
        square += (x[i] - *mean) * (x[i] - *mean) / H;
    return 1 / sqrt(square + n->eps);
}

void reference_norm(double *y, const double *x, const struct norm *n, int H)
{
    double mean, scale = norm_moments(&mean, x, n, H);
    for (int i = 0; i < H; i++)
        y[i] = (x[i] - mean) * scale * n->weight[i] + (n->bias ? n->bias[i] : 0);
}

void reference_norm_backward(double *dx, double *dweight, double *dbias, const double *dy,
                             const double *x, const struct norm *n, int H)
{
    double mean, scale = norm_moments(&mean, x, n, H), mean_g = 0, mean_gx = 0;
    for (int i = 0; i < H; i++) {
        double xhat = (x[i] - mean) * scale, g = dy[i] * n->weight[i];
        mean_g += n->kind == NORM_LAYER ? g / H : 0;
        mean_gx += g * xhat / H;
        dweight[i] += dy[i] * xhat;
        dbias[i] += dy[i];
    }
    for (int i = 0; i < H; i++) {
        double xhat = (x[i] - mean) * scale, g = dy[i] * n->weight[i];
        dx[i] += scale * (g - mean_g - xhat * mean_gx);
    }
}

void reference_rope(double *x, const struct attention *a, int position, double direction)
{
    const int half = a->rotary_dims / 2;
    for (int i = 0; i < half; i++) {
        double c = a->rope_cos[(size_t)position * half + i];
        double s = a->rope_sin[(size_t)position * half + i] * direction;
        double first = x[i], second = x[i + half];
        x[i] = first * c - second * s;
        x[i + half] = second * c + first * s;
    }
}

/* One past the last key that query i sees. */
static int keys_end(const struct attention *a, int i, int T)
{
    return a->bidirectional ? T : i + 1;
}

/* Probabilities of query i of a head over the first n keys; 0 outside the window. */
static void probabilities(double *p, const double *q, const double *k, const struct attention *a,
                          int i, int n, int head)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads, kv = head / group;
    double highest = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++) {
        p[j] = 0;
        for (int d = 0; d < hd; d++)
            p[j] += q[((size_t)i * a->heads + head) * hd + d] *
                    k[((size_t)j * a->kv_heads + kv) * hd + d] * a->scale;
        if (a->window > 0 && j <= i - a->window)
            p[j] = -INFINITY;
        highest = fmax(highest, p[j]);
    }
    for (int j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - highest);
    for (int j = 0; j < n; j++)
        p[j] /= sum;
}

void reference_attention(double *o, const double *q, const double *k, const double *v,
                         const struct attention *a, int T)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads;
    double *p = malloc((size_t)(T + 1) * sizeof *p);
    for (int i = 0; i < T; i++) {
        const int n = keys_end(a, i, T);
        for (int head = 0; head < a->heads; head++) {
            double *out = o + ((size_t)i * a->heads + head) * hd;
            probabilities(p, q, k, a, i, n, head);
            for (int d = 0; d < hd; d++) {
                out[d] = 0;
                for (int j = 0; j < n; j++)
                    out[d] += p[j] * v[((size_t)j * a->kv_heads + head / group) * hd + d];
            }
        }
    }
    free(p);
}

void reference_attention_backward(double *dq, double *dk, double *dv, const double *d_o,
                                  const double *q, const double *k, const double *v,
                                  const struct attention *a, int T)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads;
    double *p = malloc((size_t)(T + 1) * sizeof *p), *dp = malloc((size_t)(T + 1) * sizeof *dp);
    memset(dq, 0, (size_t)T * a->heads * hd * sizeof *dq);
    memset(dk, 0, (size_t)T * a->kv_heads * hd * sizeof *dk);
    memset(dv, 0, (size_t)T * a->kv_heads * hd * sizeof *dv);
    for (int i = 0; i < T; i++) {
        const int n = keys_end(a, i, T);
        for (int head = 0; head < a->heads; head++) {
            const size_t at = ((size_t)i * a->heads + head) * hd;
            double mean = 0;
            probabilities(p, q, k, a, i, n, head);
            for (int j = 0; j < n; j++) {
                const size_t kv = ((size_t)j * a->kv_heads + head / group) * hd;
                dp[j] = 0;
                for (int d = 0; d < hd; d++) {
                    dp[j] += d_o[at + d] * v[kv + d];
                    dv[kv + d] += p[j] * d_o[at + d];
                }
                mean += p[j] * dp[j];
            }
            for (int j = 0; j < n; j++) {
                const size_t kv = ((size_t)j * a->kv_heads + head / group) * hd;
                const double ds = p[j] * (dp[j] - mean) * a->scale;
                for (int d = 0; d < hd; d++) {
                    dq[at + d] += ds * k[kv + d];
                    dk[kv + d] += ds * q[at + d];
                }
            }
        }
    }
    free(p);
    free(dp);
}

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static const double pi = 3.14159265358979323846;

double reference_activation(enum activation act, double x)
{
    switch (act) {
    case ACT_GELU:
        return x * 0.5 * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case ACT_SILU:
        return x * logistic(x);
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_QUICK_GELU:
        return x * logistic(1.702 * x);
    case ACT_TANH:
        return tanh(x);
    }
    return x;
}

double reference_activation_slope(enum activation act, double x)
{
    const double step = 1e-5; /* central difference: error about step^2 */
    if (act == ACT_RELU)
        return x > 0;
    return (reference_activation(act, x + step) - reference_activation(act, x - step)) / (2 * step);
}

void reference_adamw(double *p, double *m, double *v, double gradient, const struct adamw *how)
{
    const double g = gradient * how->clip;
    *p -= how->learning_rate * how->weight_decay * *p;
    *m = how->beta1 * *m + (1 - how->beta1) * g;
    *v = how->beta2 * *v + (1 - how->beta2) * g * g;
    *p -=
        how->learning_rate * (*m / how->correction1) / (sqrt(*v / how->correction2) + how->epsilon);
}
