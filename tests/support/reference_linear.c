#include "support/reference_linear.h"

#include "support/ops_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(int64_t n, size_t size)
{
    void *p = calloc((size_t)n + 1, size);
    if (!p)
        abort();
    return p;
}

/* code[i] = rint(127 x[i] / absmax), elements of magnitude >= threshold apart (0: none) */
static float quantise(double *code, const float *x, int n, float threshold)
{
    float absmax = 0;
    for (int i = 0; i < n; i++)
        if (threshold == 0 || fabsf(x[i]) < threshold)
            absmax = fmaxf(absmax, fabsf(x[i]));
    const float factor = absmax > 0 ? 127.0f / absmax : 0;
    for (int i = 0; i < n; i++)
        code[i] = threshold == 0 || fabsf(x[i]) < threshold ? rintf(x[i] * factor) : 0;
    return absmax;
}

void reference_weights(double *w, const struct linear *l, const float *rows)
{
    const enum dtype stored = ops_on_cuda() && l->dtype != DTYPE_I8 ? DTYPE_BF16 : l->dtype;
    for (int64_t o = 0; o < l->out; o++) {
        double *to = w + o * l->in;
        const float *row = rows + o * l->in;
        if (stored == DTYPE_I8) {
            const float absmax = quantise(to, row, l->in, 0);
            for (int k = 0; k < l->in; k++)
                to[k] *= absmax / 127.0;
            continue;
        }
        for (int k = 0; k < l->in; k++)
            to[k] = stored == DTYPE_F16    ? half_to_float(half_from_float(row[k]))
                    : stored == DTYPE_BF16 ? bf16_to_float(bf16_from_float(row[k]))
                                           : row[k];
    }
}

static bool dropped(const struct lora *a, const struct linear_pass *pass, int n, int k)
{
    const struct batch *b = pass->batch;
    return rng_uniform(rng_word(a->key, pass->step, (uint64_t)b->sample[b->sequence[n]],
                                (uint32_t)b->position[n], (uint32_t)k)) < a->dropout;
}

/* factor[n][k] of x before A: 0 or 1 / (1 - dropout), or 1 without dropout */
static double *dropout_factors(const struct lora *a, int in, int N, const struct linear_pass *pass)
{
    double *factor = allocate((int64_t)N * in, sizeof *factor);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < in; k++)
            factor[(int64_t)n * in + k] = !pass->dropout           ? 1
                                          : dropped(a, pass, n, k) ? 0
                                                                   : 1 / (1 - (double)a->dropout);
    return factor;
}

static struct lora *adapter_of(const struct linear *l, const struct linear_pass *pass)
{
    return pass->adapter >= 0 ? l->adapter[pass->adapter] : NULL;
}

/* The exact sums of LLM.int8() and what is left out of them, one row. */
static void llm_int8_row(double *y, const struct linear *l, const double *w, const float *x)
{
    double *code = allocate(l->in, sizeof *code);
    const float threshold = l->outlier_threshold, absmax = quantise(code, x, l->in, threshold);
    for (int o = 0; o < l->out; o++) {
        const double *row = w + (int64_t)o * l->in;
        y[o] = 0;
        for (int k = 0; k < l->in; k++)
            y[o] += row[k] *
                    (threshold > 0 && fabsf(x[k]) >= threshold ? x[k] : code[k] * absmax / 127);
    }
    free(code);
}

/* h [N][r] = A (factor * x) */
static double *down(const struct lora *a, const double *factor, const float *x, int in, int N)
{
    double *h = allocate((int64_t)N * a->r, sizeof *h);
    for (int64_t n = 0; n < N; n++)
        for (int64_t j = 0; j < a->r; j++)
            for (int k = 0; k < in; k++)
                h[n * a->r + j] += (double)a->a[j * in + k] * factor[n * in + k] * x[n * in + k];
    return h;
}

void reference_linear(double *y, const struct linear *l, const float *rows, const float *x, int N,
                      const struct linear_pass *pass)
{
    double *w = allocate((int64_t)l->out * l->in, sizeof *w);
    reference_weights(w, l, rows);
    for (int64_t n = 0; n < N; n++) {
        if (l->matmul == MATMUL_LLM_INT8)
            llm_int8_row(y + n * l->out, l, w, x + n * l->in);
        for (int64_t o = 0; o < l->out; o++) {
            double *sum = &y[n * l->out + o];
            *sum = l->matmul == MATMUL_LLM_INT8 ? *sum : 0;
            for (int k = 0; l->matmul != MATMUL_LLM_INT8 && k < l->in; k++)
                *sum += w[o * l->in + k] * x[n * l->in + k];
            *sum += l->bias ? l->bias[o] : 0;
        }
    }
    free(w);
    const struct lora *a = adapter_of(l, pass);
    if (!a)
        return;
    double *factor = dropout_factors(a, l->in, N, pass), *h = down(a, factor, x, l->in, N);
    for (int64_t n = 0; n < N; n++)
        for (int64_t o = 0; o < l->out; o++)
            for (int64_t j = 0; j < a->r; j++)
                y[n * l->out + o] += (double)a->scale * a->b[o * a->r + j] * h[n * a->r + j];
    free(factor);
    free(h);
}

/* y = h B^T scale, h = A u, u = factor * x: dh = scale B^T dy, dB = scale dy h^T, dA = dh u^T, dx += factor * A^T dh */
static void adapter_backward(const struct reference_gradients *to, const struct lora *a,
                             const float *dy, const float *x, int out, int in, int N,
                             const struct linear_pass *pass)
{
    double *factor = dropout_factors(a, in, N, pass), *h = down(a, factor, x, in, N);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t j = 0; j < a->r; j++) {
            double dh = 0;
            for (int64_t o = 0; o < out; o++) {
                const double d = (double)a->scale * dy[n * out + o];
                dh += d * a->b[o * a->r + j];
                if (to->db)
                    to->db[o * a->r + j] += d * h[n * a->r + j];
            }
            for (int k = 0; k < in; k++) {
                if (to->da)
                    to->da[j * in + k] += dh * factor[n * in + k] * x[n * in + k];
                if (to->dx)
                    to->dx[n * in + k] += factor[n * in + k] * a->a[j * in + k] * dh;
            }
        }
    }
    free(factor);
    free(h);
}

void reference_linear_backward(const struct reference_gradients *to, const struct linear *l,
                               const float *rows, const float *dy, const float *x, int N,
                               const struct linear_pass *pass)
{
    const int64_t in = l->in;
    double *w = allocate(l->out * in, sizeof *w);
    reference_weights(w, l, rows);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t o = 0; o < l->out; o++) {
            const double d = dy[n * l->out + o];
            if (to->dbias)
                to->dbias[o] += d;
            for (int64_t k = 0; k < in; k++) {
                if (to->dx)
                    to->dx[n * in + k] += w[o * in + k] * d;
                if (to->dw)
                    to->dw[o * in + k] += d * x[n * in + k];
            }
        }
    }
    free(w);
    if (adapter_of(l, pass))
        adapter_backward(to, adapter_of(l, pass), dy, x, l->out, l->in, N, pass);
}

struct reference_statistics reference_head(const double *z, int V, int target, double temperature)
{
    double max = z[0], sum = 0, entropy = 0;
    for (int v = 1; v < V; v++)
        max = fmax(max, z[v]);
    for (int v = 0; v < V; v++)
        sum += exp((z[v] - max) / temperature);
    const double lse = max / temperature + log(sum);
    for (int v = 0; v < V; v++) {
        const double logp = z[v] / temperature - lse;
        entropy -= exp(logp) * logp;
    }
    return (struct reference_statistics){z[target] / temperature - lse, entropy, lse};
}

void reference_head_backward(double *dz, const double *z, int V, int target, double temperature,
                             double g, double h)
{
    const struct reference_statistics s = reference_head(z, V, target, temperature);
    for (int v = 0; v < V; v++) {
        const double logp = z[v] / temperature - s.lse, p = exp(logp);
        dz[v] = (g * ((v == target) - p) - h * p * (logp + s.entropy)) / temperature;
    }
}
