/* Activations, plain or gated: y = act(up), or act(gate) * up; and their derivatives. Element by element, so nothing but
 * the values decides the bits. The kind is a constant in each loop: the switch is outside. */
#include "cpu/ops.h"
#include "cpu/vmath.h"

enum { SPAN = 4096 }; /* elements a turn of the parallel loop */

#define INLINE static inline __attribute__((always_inline))

/* sqrt(2 / pi), and the cubic term of Hendrycks & Gimpel 2016 (arXiv:1606.08415) */
#define GELU_SCALE 0.797884561f
#define GELU_CUBIC 0.044715f

INLINE vec value(enum activation act, vec x)
{
    const vec half = vec_all(0.5f), one = vec_all(1.0f);
    switch (act) {
    case ACT_GELU:
        return half * x * (one + vec_erf(x * vec_all(0.707106781f)));
    case ACT_GELU_TANH:
        return half * x *
               (one + vec_tanh(vec_all(GELU_SCALE) * VEC_FMA(vec_all(GELU_CUBIC) * x, x * x, x)));
    case ACT_SILU:
        return x * vec_logistic(x);
    case ACT_RELU:
        return vec_select(x < vec_all(0.0f), vec_all(0.0f), x);
    case ACT_QUICK_GELU:
        return x * vec_logistic(vec_all(1.702f) * x);
    case ACT_TANH:
        return vec_tanh(x);
    }
    return x;
}

INLINE vec slope(enum activation act, vec x)
{
    const vec half = vec_all(0.5f), one = vec_all(1.0f);
    switch (act) {
    case ACT_GELU: { /* Phi(x) + x phi(x) */
        vec density = vec_all(0.398942280f) * vec_exp(-half * x * x);
        return VEC_FMA(x, density, half * (one + vec_erf(x * vec_all(0.707106781f))));
    }
    case ACT_GELU_TANH: { /* u = c (x + a x^3): (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) c (1 + 3 a x^2) */
        vec square = x * x;
        vec t = vec_tanh(vec_all(GELU_SCALE) * VEC_FMA(vec_all(GELU_CUBIC) * x, square, x));
        vec du = vec_all(GELU_SCALE) * VEC_FMA(vec_all(3 * GELU_CUBIC), square, one);
        return VEC_FMA(half * x * (one - t * t), du, half * (one + t));
    }
    case ACT_SILU: {
        vec s = vec_logistic(x);
        return s * VEC_FMA(x, one - s, one);
    }
    case ACT_RELU:
        return vec_select(x > vec_all(0.0f), one, vec_all(0.0f));
    case ACT_QUICK_GELU: {
        vec s = vec_logistic(vec_all(1.702f) * x);
        return s * VEC_FMA(vec_all(1.702f) * x, one - s, one);
    }
    case ACT_TANH: {
        vec t = vec_tanh(x);
        return one - t * t;
    }
    }
    return one;
}

/* 16 elements */
INLINE v16 forward16(enum activation act, v16 up, v16 gate, bool gated)
{
    V16_PARTS(i)
    {
        up.part[i] = gated ? value(act, gate.part[i]) * up.part[i] : value(act, up.part[i]);
    }
    return up;
}

INLINE void forward_span(enum activation act, float *y, const float *up, const float *gate, int n)
{
    int i = 0;
    if (gate) {
        for (; i + LANES <= n; i += LANES)
            v16_store(y + i, forward16(act, v16_load(up + i), v16_load(gate + i), true));
        if (i < n)
            v16_store_part(
                y + i,
                forward16(act, v16_load_part(up + i, n - i), v16_load_part(gate + i, n - i), true),
                n - i);
        return;
    }
    for (; i + LANES <= n; i += LANES)
        v16_store(y + i, forward16(act, v16_load(up + i), v16_all(0), false));
    if (i < n)
        v16_store_part(y + i, forward16(act, v16_load_part(up + i, n - i), v16_all(0), false),
                       n - i);
}

/* dy becomes dup, gate becomes dgate. */
INLINE void backward16(enum activation act, v16 *dy, const v16 *up, v16 *gate, bool gated)
{
    V16_PARTS(i)
    {
        if (gated) {
            vec g = gate->part[i], d = dy->part[i];
            gate->part[i] = d * up->part[i] * slope(act, g);
            dy->part[i] = d * value(act, g);
        } else {
            dy->part[i] *= slope(act, up->part[i]);
        }
    }
}

INLINE void backward_span(enum activation act, float *dup, float *dgate, const float *dy,
                          const float *up, const float *gate, int n)
{
    const bool gated = gate != NULL;
    for (int i = 0; i < n; i += LANES) {
        if (n - i >= LANES) {
            v16 d = v16_load(dy + i), u = v16_load(up + i), g = gated ? v16_load(gate + i) : u;
            backward16(act, &d, &u, &g, gated);
            v16_store(dup + i, d);
            if (gated)
                v16_store(dgate + i, g);
        } else {
            v16 d = v16_load_part(dy + i, n - i), u = v16_load_part(up + i, n - i);
            v16 g = gated ? v16_load_part(gate + i, n - i) : u;
            backward16(act, &d, &u, &g, gated);
            v16_store_part(dup + i, d, n - i);
            if (gated)
                v16_store_part(dgate + i, g, n - i);
        }
    }
}

#define EACH_ACTIVATION(act, CALL)                                                                 \
    switch (act) {                                                                                 \
    case ACT_GELU:                                                                                 \
        CALL(ACT_GELU);                                                                            \
        break;                                                                                     \
    case ACT_GELU_TANH:                                                                            \
        CALL(ACT_GELU_TANH);                                                                       \
        break;                                                                                     \
    case ACT_SILU:                                                                                 \
        CALL(ACT_SILU);                                                                            \
        break;                                                                                     \
    case ACT_RELU:                                                                                 \
        CALL(ACT_RELU);                                                                            \
        break;                                                                                     \
    case ACT_QUICK_GELU:                                                                           \
        CALL(ACT_QUICK_GELU);                                                                      \
        break;                                                                                     \
    case ACT_TANH:                                                                                 \
        CALL(ACT_TANH);                                                                            \
        break;                                                                                     \
    }

void CPU(act_forward)(struct backend *be, float *y, const float *up, const float *gate,
                      enum activation act, int N, int I)
{
    const int64_t total = (int64_t)N * I;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if (total >= PARALLEL_MIN)
    for (int64_t i = 0; i < total; i += SPAN) {
        const int n = total - i < SPAN ? (int)(total - i) : SPAN;
#define FORWARD(kind) forward_span(kind, y + i, up + i, gate ? gate + i : NULL, n)
        EACH_ACTIVATION(act, FORWARD)
    }
}

void CPU(act_backward)(struct backend *be, float *dup, float *dgate, const float *dy,
                       const float *up, const float *gate, enum activation act, int N, int I)
{
    const int64_t total = (int64_t)N * I;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if (total >= PARALLEL_MIN)
    for (int64_t i = 0; i < total; i += SPAN) {
        const int n = total - i < SPAN ? (int)(total - i) : SPAN;
        float *dg = gate ? dgate + i : NULL;
#define BACKWARD(kind) backward_span(kind, dup + i, dg, dy + i, up + i, gate ? gate + i : NULL, n)
        EACH_ACTIVATION(act, BACKWARD)
    }
}
