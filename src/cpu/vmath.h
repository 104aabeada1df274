/* Functions by vectors, each lane on its own: tanh, erf, the logistic function. Like vec_exp in cpu.h they are plain
 * sequences of multiply, fma and select, so every instruction set gives the same bits. NaN stays NaN. */
#ifndef RLHF_SRC_CPU_VMATH_H
#define RLHF_SRC_CPU_VMATH_H

#include "cpu/cpu.h"

static inline vec vec_abs(vec x)
{
    return (vec)((ivec)x & 0x7fffffff);
}

/* size with the sign of x, size >= 0 */
static inline vec vec_sign(vec size, vec x)
{
    return (vec)((ivec)size | ((ivec)x & (int32_t)0x80000000));
}

/* Below 0.625 a polynomial in x^2 (coefficients: Cephes tanhf, S. Moshier), above 1 - 2 / (e^2x + 1). Within 3 ulp. */
static inline vec vec_tanh(vec x)
{
    vec a = vec_abs(x), z = x * x;
    vec p = vec_all(-5.70498872745e-3f);
    p = VEC_FMA(p, z, vec_all(2.06390887954e-2f));
    p = VEC_FMA(p, z, vec_all(-5.37397155531e-2f));
    p = VEC_FMA(p, z, vec_all(1.33314422036e-1f));
    p = VEC_FMA(p, z, vec_all(-3.33332819422e-1f));
    vec small = VEC_FMA(p * z, a, a);
    vec large = vec_all(1.0f) - vec_all(2.0f) / (vec_exp(a + a) + vec_all(1.0f));
    return vec_sign(vec_select(a < vec_all(0.625f), small, large), x);
}

/* Within 6.3e-8 of erf. Below 0.921875 x + x P(x^2), P of degree 6; above 1 - e^Q(x), Q of degree 7, x held at 4.
 * P and Q: Lawson-weighted least squares in float64 on Chebyshev nodes, largest errors 4e-10 and 4e-11 before rounding. */
static inline vec vec_erf(vec x)
{
    vec a = vec_abs(x), z = x * x;
    vec p = vec_all(8.37018815e-5f);
    p = VEC_FMA(p, z, vec_all(-8.14272847e-4f));
    p = VEC_FMA(p, z, vec_all(5.20103471e-3f));
    p = VEC_FMA(p, z, vec_all(-2.68593989e-2f));
    p = VEC_FMA(p, z, vec_all(1.12836957e-1f));
    p = VEC_FMA(p, z, vec_all(-3.76126349e-1f));
    p = VEC_FMA(p, z, vec_all(1.28379166e-1f));
    vec small = VEC_FMA(p, a, a);
    vec held = vec_select(a > vec_all(4.0f), vec_all(4.0f), a);
    vec q = vec_all(-2.11842635e-5f);
    q = VEC_FMA(q, held, vec_all(4.35478083e-4f));
    q = VEC_FMA(q, held, vec_all(-4.17590234e-3f));
    q = VEC_FMA(q, held, vec_all(2.5131952e-2f));
    q = VEC_FMA(q, held, vec_all(-1.08299106e-1f));
    q = VEC_FMA(q, held, vec_all(-6.33329928e-1f));
    q = VEC_FMA(q, held, vec_all(-1.12952316f));
    q = VEC_FMA(q, held, vec_all(1.76362111e-4f));
    vec large = vec_all(1.0f) - vec_exp(q);
    return vec_sign(vec_select(a < vec_all(0.921875f), small, large), x);
}

/* 1 / (1 + e^-x) */
static inline vec vec_logistic(vec x)
{
    return vec_all(1.0f) / (vec_all(1.0f) + vec_exp(-x));
}

#endif
