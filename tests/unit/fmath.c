/* math_*: against 300-bit values (mpmath) and the C library in long double; recorded bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "fmath.h"
#include "hash.h"

static const double BOUND = 0x1p-49; /* the header promises 2^-48 */

struct value {
    const char *function;
    double x, y, result;
};

static const struct value VALUES[] = {
    {"exp", 0x1.0000000000000p+0, 0, 0x1.5bf0a8b145769p+1},
    {"exp", -0x1.0000000000000p+0, 0, 0x1.78b56362cef38p-2},
    {"exp", 0x1.0000000000000p-1, 0, 0x1.a61298e1e069cp+0},
    {"exp", -0x1.999999999999ap-4, 0, 0x1.cf46d99d52b3ap-1},
    {"exp", 0x1.12e0be826d695p-30, 0, 0x1.000000044b830p+0},
    {"exp", 0x1.4800000000000p+3, 0, 0x1.b9ea2aed2a0f1p+14},
    {"exp", -0x1.9400000000000p+5, 0, 0x1.1ad9f47f3722ap-73},
    {"exp", 0x1.5e00000000000p+9, 0, 0x1.d945df4f8ec8ep+1009},
    {"exp", -0x1.5e00000000000p+9, 0, 0x1.14f2b0fb9307fp-1010},
    {"exp", -0x1.7400000000000p+9, 0, 0x0.0000000000002p-1022},
    {"exp", 0x1.62c0000000000p+9, 0, 0x1.81e9b4b52d0c9p+1023},
    {"expm1", 0x1.12e0be826d695p-30, 0, 0x1.12e0be84bbb51p-30},
    {"expm1", -0x1.4f8b588e368f1p-17, 0, -0x1.4f8aea9acf2c9p-17},
    {"expm1", 0x1.3333333333333p-2, 0, 0x1.6641632306a56p-2},
    {"expm1", -0x1.4cccccccccccdp-1, 0, -0x1.e96cd4f72fa2cp-2},
    {"expm1", 0x1.6666666666666p-1, 0, 0x1.03854c24d130dp+0},
    {"expm1", 0x1.0000000000000p+1, 0, 0x1.98e64b8d4ddaep+2},
    {"expm1", -0x1.8000000000000p+1, 0, -0x1.e6824f33314f5p-1},
    {"log", 0x1.0000000000000p+1, 0, 0x1.62e42fefa39efp-1},
    {"log", 0x1.0000000000000p-1, 0, -0x1.62e42fefa39efp-1},
    {"log", 0x1.0000000001000p+0, 0, 0x1.ffffffffff000p-41},
    {"log", 0x1.fffffff800000p-1, 0, -0x1.0000000200000p-30},
    {"log", 0x1.6a09e65dc27dfp-1, 0, -0x1.62e4300c77ae8p-2},
    {"log", 0x1.7e43c8800759cp+996, 0, 0x1.5963447f87fb5p+9},
    {"log", 0x0.0000000000001p-1022, 0, -0x1.74385446d71c3p+9},
    {"log", 0x1.921fb54442d18p+1, 0, 0x1.250d048e7a1bdp+0},
    {"log", 0x1.8a00000000000p+15, 0, 0x1.5a82193bf2ed8p+3},
    {"sin", 0x1.5798ee2308c3ap-27, 0, 0x1.5798ee2308c3ap-27},
    {"cos", 0x1.5798ee2308c3ap-27, 0, 0x1.0000000000000p+0},
    {"sin", 0x1.0000000000000p-1, 0, 0x1.eaee8744b05f0p-2},
    {"cos", 0x1.0000000000000p-1, 0, 0x1.c1528065b7d50p-1},
    {"sin", 0x1.0000000000000p+0, 0, 0x1.aed548f090ceep-1},
    {"cos", 0x1.0000000000000p+0, 0, 0x1.14a280fb5068cp-1},
    {"sin", 0x1.0000000000000p+1, 0, 0x1.d18f6ead1b446p-1},
    {"cos", 0x1.0000000000000p+1, 0, -0x1.aa22657537205p-2},
    {"sin", 0x1.921fb54442d18p+1, 0, 0x1.1a62633145c07p-53},
    {"cos", 0x1.921fb54442d18p+1, 0, -0x1.0000000000000p+0},
    {"sin", -0x1.4000000000000p+3, 0, 0x1.1689ef5f34f52p-1},
    {"cos", -0x1.4000000000000p+3, 0, -0x1.ad9ac890c6b1fp-1},
    {"sin", 0x1.e848000000000p+19, 0, -0x1.6664b2568d867p-2},
    {"cos", 0x1.e848000000000p+19, 0, 0x1.df9df9906d32cp-1},
    {"sin", 0x1.e847f00000000p+19, 0, -0x1.833357b1489f3p-1},
    {"cos", 0x1.e847f00000000p+19, 0, 0x1.4efdfc640fc4dp-1},
    {"sin", 0x1.6300000000000p+8, 0, -0x1.f9bd0307d1de3p-16},
    {"cos", 0x1.6300000000000p+8, 0, -0x1.fffffffc18e4cp-1},
    {"sin", 0x1.979c000000000p+15, 0, -0x1.ffffffffdea62p-1},
    {"cos", 0x1.979c000000000p+15, 0, 0x1.719a47d413c35p-18},
    {"cos", 0x1.1475cc9eedf00p+4, 0, -0x1.6111d218effa2p-49},
    {"tanh", 0x1.0c6f7a0b5ed8dp-20, 0, 0x1.0c6f7a0b5e767p-20},
    {"tanh", 0x1.999999999999ap-4, 0, 0x1.983d7795f413ap-4},
    {"tanh", 0x1.5c28f5c28f5c3p-2, 0, 0x1.4f563bf387da9p-2},
    {"tanh", 0x1.70a3d70a3d70ap-2, 0, 0x1.617fc9aaeddd6p-2},
    {"tanh", 0x1.0000000000000p+0, 0, 0x1.85efab514f394p-1},
    {"tanh", -0x1.4000000000000p+1, 0, -0x1.f9258260a71c2p-1},
    {"tanh", 0x1.4000000000000p+3, 0, 0x1.ffffffdc96f35p-1},
    {"tanh", 0x1.5000000000000p+4, 0, 0x1.0000000000000p+0},
    {"pow_int", 0x1.ff7ced916872bp-1, 0x1.0000000000000p+0, 0x1.ff7ced916872bp-1},
    {"pow_int", 0x1.ff7ced916872bp-1, 0x1.86a0000000000p+16, 0x1.940747bb85395p-145},
    {"pow_int", 0x1.ccccccccccccdp-1, 0x1.2800000000000p+5, 0x1.4c31dc5657068p-6},
    {"pow_int", 0x1.000001ad7f29bp+0, 0x1.dcd6500000000p+29, 0x1.349445c228792p+144},
    {"pow_int", -0x1.8000000000000p+0, 0x1.0800000000000p+5, -0x1.3bfefa65abb83p+19},
    {"pow_int", 0x1.0000000000000p+1, -0x1.f400000000000p+9, 0x1.0000000000000p-1000},
    {"pow_int", 0x1.e666666666666p-1, 0x1.ff00000000000p+8, 0x1.232abe5fed27cp-38},
    {"pow", 0x1.3880000000000p+13, -0x1.0000000000000p-2, 0x1.999999999999ap-4},
    {"pow", 0x1.3880000000000p+13, -0x1.e000000000000p-1, 0x1.74eea61c12623p-13},
    {"pow", 0x1.0624dd2f1a9fcp-10, 0x1.92ccccccccccdp+6, 0x1.5c9f66a15894cp-1004},
    {"pow", 0x1.56e1fc2f8f359p-997, 0x1.0000000000000p+0, 0x1.56e1fc2f8f359p-997},
    {"pow", 0x1.0000000000000p+1, 0x1.0000000000000p-1, 0x1.6a09e667f3bcdp+0},
    {"pow", 0x1.e848000000000p+18, -0x1.f800000000000p-1, 0x1.4985fec80a8cbp-19},
    {"pow", 0x1.000000006df38p+0, 0x1.d1a94a2000000p+39, 0x1.349550eb7664cp+144},
};

static double call(const struct value *v)
{
    static const struct {
        const char *name;
        double (*function)(double);
    } unary[] = {{"exp", math_exp}, {"expm1", math_expm1}, {"log", math_log},
                 {"sin", math_sin}, {"cos", math_cos},     {"tanh", math_tanh}};
    for (size_t i = 0; i < sizeof unary / sizeof *unary; i++)
        if (!strcmp(v->function, unary[i].name))
            return unary[i].function(v->x);
    if (!strcmp(v->function, "pow_int"))
        return math_pow_int(v->x, (int64_t)v->y);
    return math_pow(v->x, v->y);
}

static void test_values_of_high_precision(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        const struct value *v = &VALUES[i];
        const double got = call(v);
        if (!(fabs(got - v->result) <= BOUND * fabs(v->result)))
            fail_msg("%s(%.17g, %.17g) = %.17g, not %.17g", v->function, v->x, v->y, got,
                     v->result);
    }
}

/* Largest relative distance between two functions on a grid. */
static double distance(double (*mine)(double), long double (*theirs)(long double), double low,
                       double high)
{
    double worst = 0.0;
    for (int i = 0; i < 20000; i++) {
        const double x = low + (high - low) * (i + 0.37) / 20000;
        const long double want = theirs(x);
        const double gap = (double)fabsl((mine(x) - want) / want);
        worst = gap > worst ? gap : worst;
    }
    return worst;
}

static void test_grids_against_library(void **state)
{
    (void)state;
    assert_true(distance(math_exp, expl, -700, 700) < BOUND);
    assert_true(distance(math_exp, expl, -1, 1) < BOUND);
    assert_true(distance(math_expm1, expm1l, -2, 2) < BOUND);
    assert_true(distance(math_log, logl, 0.3, 3) < BOUND);
    assert_true(distance(math_log, logl, 1e-5, 1e6) < BOUND);
    assert_true(distance(math_sin, sinl, -1e6, 1e6) < BOUND);
    assert_true(distance(math_cos, cosl, -1e6, 1e6) < BOUND);
    assert_true(distance(math_sin, sinl, -4, 4) < BOUND);
    assert_true(distance(math_cos, cosl, -4, 4) < BOUND);
    assert_true(distance(math_tanh, tanhl, -5, 5) < BOUND);
}

static void test_exact_values_and_edges(void **state)
{
    (void)state;
    assert_true(math_exp(0.0) == 1.0);
    assert_true(math_exp(-0.0) == 1.0);
    assert_true(math_exp(-INFINITY) == 0.0 && math_exp(-1000) == 0.0);
    assert_true(isinf(math_exp(710)) && isinf(math_exp(INFINITY)) && isnan(math_exp(NAN)));
    assert_true(math_expm1(0.0) == 0.0 && math_expm1(-INFINITY) == -1.0);
    assert_true(math_log(1.0) == 0.0);
    assert_true(math_log(0.0) == -INFINITY && isnan(math_log(-1.0)) && isinf(math_log(INFINITY)));
    assert_true(math_sin(0.0) == 0.0 && math_cos(0.0) == 1.0);
    assert_true(isnan(math_sin(INFINITY)) && isnan(math_cos(1e12)) && isnan(math_sin(NAN)));
    assert_true(math_tanh(0.0) == 0.0 && math_tanh(50) == 1.0 && math_tanh(-INFINITY) == -1.0);
    assert_true(isnan(math_tanh(NAN)));
    assert_true(math_pow_int(0.0, 0) == 1.0 && math_pow_int(3.0, 4) == 81.0);
    assert_true(math_pow_int(2.0, -3) == 0.125 && math_pow_int(0.9, INT64_MAX) == 0.0);
    assert_true(isinf(math_pow_int(10.0, 400)) && math_pow_int(1.0, INT64_MIN) == 1.0);
    assert_true(math_pow(7.0, 0.0) == 1.0 && math_pow(1.0, 1e300) == 1.0);
    assert_true(math_pow(0.0, 2.0) == 0.0 && isinf(math_pow(0.0, -2.0)) &&
                isnan(math_pow(-1.0, 2.0)));
    assert_true(isinf(math_pow(10.0, 400)) && math_pow(10.0, -400) == 0.0);
}

/* The promise itself: the bits of a grid, hashed. Recorded on x86-64, where gcc 12 and clang 14 agree
 * at -O0, -O2 and -O3, with and without -march=native. */
static void test_bits_are_the_recorded_ones(void **state)
{
    (void)state;
    struct hash h;
    hash_begin(&h, 0);
    for (int i = -5000; i <= 5000; i++) {
        const double x = i * 0x1p-7 + i * 0x1p-40, positive = (i + 5001) * 0x1p-6;
        const double y[] = {math_exp(x),
                            math_expm1(x * 0x1p-5),
                            math_log(positive),
                            math_sin(x),
                            math_cos(x * 4096),
                            math_tanh(x * 0x1p-3),
                            math_pow_int(1.0 + x * 0x1p-12, i),
                            math_pow(positive, x * 0x1p-2)};
        hash_add(&h, y, sizeof y);
    }
    assert_int_equal(hash_end(&h), 0x4adc7d7c136575aa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_of_high_precision),
        cmocka_unit_test(test_grids_against_library),
        cmocka_unit_test(test_exact_values_and_edges),
        cmocka_unit_test(test_bits_are_the_recorded_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
