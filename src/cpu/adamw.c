/* AdamW in float32 (Loshchilov & Hutter, arXiv:1711.05101), as PyTorch orders it: decay, moments, step.
 *
 *   p <- p (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
 *   p <- p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)
 *
 * All constants are worked out in double and rounded once. Elements without gradient, moments and decay keep their bits. */
#include "cpu/fixed.h"
#include "cpu/ops.h"

enum { SPAN = 4096 };

struct constants {
    double gradient; /* 2^-48 * clip */
    float decay, beta1, rest1, beta2, rest2, epsilon, inverse_root, step;
};

/* n <= 16 elements; always inlined, so that n = 16 becomes vectors. */
static inline __attribute__((always_inline)) void update(float *restrict p, float *restrict m,
                                                         float *restrict v,
                                                         const int64_t *restrict sum, int n,
                                                         const struct constants *c)
{
    for (int i = 0; i < n; i++) {
        float g = (float)(fixed_double(sum[i]) * c->gradient);
        float m1 = fmaf(c->beta1, m[i], c->rest1 * g);
        float v1 = fmaf(c->beta2, v[i], c->rest2 * g * g);
        float size = fmaf(sqrtf(v1), c->inverse_root, c->epsilon);
        m[i] = m1;
        v[i] = v1;
        p[i] = fmaf(-c->step, m1 / size, p[i] * c->decay);
    }
}

static void update_span(float *p, float *m, float *v, const int64_t *sum, int n,
                        const struct constants *constants)
{
    const struct constants c = *constants;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        update(p + i, m + i, v + i, sum + i, LANES, &c);
    update(p + i, m + i, v + i, sum + i, n - i, &c);
}

void CPU(adamw)(struct backend *be, float *p, float *m, float *v, const struct grads *g,
                const struct adamw *how)
{
    const int64_t n = g->n;
    const struct constants c = {
        .gradient = 0x1p-48 * how->clip,
        .decay = (float)(1 - how->learning_rate * how->weight_decay),
        .beta1 = (float)how->beta1,
        .rest1 = (float)(1 - how->beta1),
        .beta2 = (float)how->beta2,
        .rest2 = (float)(1 - how->beta2),
        .epsilon = (float)how->epsilon,
        .inverse_root = (float)(1 / sqrt(how->correction2)),
        .step = (float)(how->learning_rate / how->correction1),
    };
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if (n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += SPAN)
        update_span(p + i, m + i, v + i, g->sum + i, n - i < SPAN ? (int)(n - i) : SPAN, &c);
}
