/* Elementary functions: argument reduction in two or three pieces, then a Taylor or artanh series
 * on a small interval.
 *
 * Series are longer than a minimax polynomial would be, but their coefficients are known exactly,
 * and none of this is in an inner loop. What is hard is the last bits: the reductions are exact
 * (fma gives the error of a product), and the constants below are ln 2 and pi/2 in pieces, computed
 * to 400 bits and rounded.
 */
#include "fmath.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const double LN2_HIGH = 0x1.62e42ffp-1; /* 33 bits: its product with an exponent is exact */
static const double LN2_LOW = -0x1.718432a1b0e26p-35;
static const double LN2_LAST = -0x1.9ff0342542fc3p-90;
static const double INVERSE_LN2 = 0x1.71547652b82fep+0;
static const double HALF_PI[3] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54,
                                  -0x1.f1976b7ed8fbcp-110};
static const double TWO_OVER_PI = 0x1.45f306dc9c883p-1;
static const double SQRT_HALF = 0x1.6a09e667f3bcdp-1;

/* 1/n! for n = 0 .. 18: quotients of exact doubles, rounded correctly at compile time */
static const double INVERSE_FACTORIAL[19] = {
    1.0,
    1.0,
    1.0 / 2,
    1.0 / 6,
    1.0 / 24,
    1.0 / 120,
    1.0 / 720,
    1.0 / 5040,
    1.0 / 40320,
    1.0 / 362880,
    1.0 / 3628800,
    1.0 / 39916800,
    1.0 / 479001600,
    1.0 / 6227020800.0,
    1.0 / 87178291200.0,
    1.0 / 1307674368000.0,
    1.0 / 20922789888000.0,
    1.0 / 355687428096000.0,
    1.0 / 6402373705728000.0,
};

/* The unevaluated sum high + low, |low| <= ulp(high) / 2. */
struct pair {
    double high, low;
};

static struct pair pair_sum(double a, double b)
{
    const double sum = a + b, part = sum - a;
    return (struct pair){sum, (a - (sum - part)) + (b - part)};
}

static struct pair pair_product(struct pair a, struct pair b)
{
    const double high = a.high * b.high;
    if (isinf(high) || high == 0.0)
        return (struct pair){high, 0.0};
    const double low = fma(a.high, b.high, -high) + fma(a.high, b.low, a.low * b.high);
    return pair_sum(high, low);
}

/* x * 2^k with one rounding, for k in [-1100, 1100] */
static double scale(double x, int k)
{
    if (k > 1000)
        return x * 0x1p1000 * scale(1.0, k - 1000);
    if (k < -1000)
        return x * scale(1.0, k + 1000) * 0x1p-1000;
    const uint64_t bits = (uint64_t)(k + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

/* x = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)); x positive and finite */
static double split(int *exponent, double x)
{
    int e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    e += (int)(bits >> 52) - 1022;
    bits = (bits & 0x000fffffffffffffu) | 0x3fe0000000000000u; /* in [1/2, 1) */
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < SQRT_HALF) {
        m *= 2.0;
        e -= 1;
    }
    *exponent = e;
    return m;
}

/* e^x = 2^k e^r, |r| <= ln 2 / 2: the first term left out, r^15 / 15!, is below 2^-62 */
double math_exp(double x)
{
    if (isnan(x))
        return x;
    if (x > 709.79)
        return INFINITY;
    if (x < -745.2)
        return 0.0;
    const double k = floor(fma(x, INVERSE_LN2, 0.5));
    double r = fma(-k, LN2_HIGH, x);
    r = fma(-k, LN2_LOW, r);
    double sum = INVERSE_FACTORIAL[14];
    for (int n = 13; n >= 0; n--)
        sum = fma(sum, r, INVERSE_FACTORIAL[n]);
    return scale(sum, (int)k);
}

double math_expm1(double x)
{
    if (fabs(x) > 0.7)
        return math_exp(x) - 1.0;
    double sum = INVERSE_FACTORIAL[18];
    for (int n = 17; n >= 1; n--)
        sum = fma(sum, x, INVERSE_FACTORIAL[n]);
    return sum * x;
}

/* The terms above the first of 2 artanh(s) / s = 2 + 2 s^2/3 + 2 s^4/5 + ..; |s| <= 0.1716, so the
 * first term left out,
 * 2 s^24 / 25, is below 2^-64 */
static double artanh_tail(double s)
{
    const double square = s * s;
    double sum = 2.0 / 23;
    for (int n = 21; n >= 3; n -= 2)
        sum = fma(sum, square, 2.0 / n);
    return sum * square;
}

/* log(m 2^e) = e ln 2 + 2 artanh(s), s = (m - 1) / (m + 1) */
double math_log(double x)
{
    if (isnan(x) || x < 0.0)
        return NAN;
    if (x == 0.0)
        return -INFINITY;
    if (isinf(x))
        return x;
    int e;
    const double f = split(&e, x) - 1.0;
    const double s = f / (2.0 + f);
    const double log_m = fma(s, artanh_tail(s), 2.0 * s);
    return fma(e, LN2_HIGH, fma(e, LN2_LOW, log_m));
}

/* The same with some 10 bits more: s as a pair, its tail times it in double */
static struct pair log_pair(double x)
{
    int e;
    const double f = split(&e, x) - 1.0;
    const struct pair below = pair_sum(2.0, f);
    const double s = f / below.high;
    const double s_low = fma(-s, below.low, fma(-s, below.high, f)) / below.high;
    const struct pair head = pair_sum(e * LN2_HIGH, 2.0 * s);
    const struct pair middle = pair_sum(head.high, fma(e, LN2_LOW, s * artanh_tail(s)));
    return pair_sum(middle.high, middle.low + head.low + fma(e, LN2_LAST, 2.0 * s_low));
}

/* x - k pi/2 as a pair in about [-pi/4, pi/4], and k mod 4. The first product is exact with fma
 * since it cancels to a multiple of 2^-53; the second is carried with its error; the third need not
 * be. */
static struct pair quarter_turn(int *quadrant, double x)
{
    const double k = floor(fma(x, TWO_OVER_PI, 0.5));
    *quadrant = (int)((int64_t)k & 3);
    const double rest = fma(-k, HALF_PI[0], x);
    const double second = k * HALF_PI[1];
    const struct pair y = pair_sum(rest, -second);
    const double low = y.low - fma(k, HALF_PI[1], -second) - k * HALF_PI[2];
    return pair_sum(y.high, low);
}

/* sin(y.high) + y.low cos(y.high); the first term left out is y^19 / 19! */
static double sin_series(struct pair y)
{
    const double square = y.high * y.high;
    double sum = INVERSE_FACTORIAL[17];
    for (int n = 15; n >= 3; n -= 2)
        sum = fma(sum, square, n % 4 == 1 ? INVERSE_FACTORIAL[n] : -INVERSE_FACTORIAL[n]);
    const double cosine = fma(-0.5, square, 1.0);
    return y.high + fma(sum * square, y.high, y.low * cosine);
}

/* cos(y.high) - y.low sin(y.high); the first term left out is y^20 / 20! */
static double cos_series(struct pair y)
{
    const double square = y.high * y.high;
    double sum = -INVERSE_FACTORIAL[18];
    for (int n = 16; n >= 2; n -= 2)
        sum = fma(sum, square, n % 4 == 0 ? INVERSE_FACTORIAL[n] : -INVERSE_FACTORIAL[n]);
    return 1.0 + fma(sum, square, -y.low * y.high);
}

static double turned(double x, int turn)
{
    if (!(fabs(x) <= 0x1p30))
        return NAN;
    int quadrant;
    const struct pair y = quarter_turn(&quadrant, x);
    quadrant = (quadrant + turn) & 3;
    const double value = quadrant & 1 ? cos_series(y) : sin_series(y);
    return quadrant & 2 ? -value : value;
}

double math_sin(double x)
{
    return x == 0.0 ? x : turned(x, 0);
}

double math_cos(double x)
{
    return turned(x, 1); /* cos x = sin(x + pi/2) */
}

double math_tanh(double x)
{
    const double a = fabs(x);
    if (isnan(x) || a == 0.0)
        return x;
    double t = 1.0;
    if (a < 0.35) {
        const double up = math_expm1(2.0 * a);
        t = up / (up + 2.0);
    } else if (a < 22.0) { /* beyond, 1 - tanh is below 2^-54 */
        t = 1.0 - 2.0 / (math_exp(2.0 * a) + 1.0);
    }
    return x < 0.0 ? -t : t;
}

double math_pow_int(double base, int64_t n)
{
    uint64_t bits = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    struct pair power = {1.0, 0.0}, square = {base, 0.0};
    while (bits) {
        if (bits & 1)
            power = pair_product(power, square);
        bits >>= 1;
        if (bits)
            square = pair_product(square, square);
    }
    return n < 0 ? 1.0 / power.high : power.high;
}

double math_pow(double base, double exponent)
{
    if (exponent == 0.0 || base == 1.0)
        return 1.0;
    if (isnan(base) || isnan(exponent) || base < 0.0)
        return NAN;
    if (base == 0.0 || isinf(base) || isinf(exponent)) {
        const bool grows = (base > 1.0) == (exponent > 0.0);
        return grows ? INFINITY : 0.0;
    }
    const struct pair l = log_pair(base);
    const double high = exponent * l.high;
    if (!(fabs(high) < 800.0))
        return high > 0.0 ? INFINITY : 0.0;
    const double low = fma(exponent, l.high, -high) + exponent * l.low;
    const double power = math_exp(high);
    return isinf(power) ? power : fma(power, low, power);
}
