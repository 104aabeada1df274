/* stats_*: the golden values of SPEC 10.1, and the edges n = 0, 1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "stats.h"

static const float A[7] = {0.355775f, 0.3745f, 0.71f, 0.8f, -0.242f, -0.36f, -0.8f};
static const double WHITENED[7] = {0.39532269, 0.42668602, 0.98862976, 1.13937473,
                                   -0.605917,  -0.8035604, -1.5405358};

static void test_golden_mean_and_variance(void **state)
{
    (void)state;
    const double x[7] = {0.355775, 0.3745, 0.71, 0.8, -0.242, -0.36, -0.8};
    assert_true(fabs(stats_mean(x, 7) - 0.11975357142857135) < 1e-16);
    assert_true(fabs(stats_variance(x, 7) - 0.3564506125892857) < 1e-15);
}

static void test_golden_whitening(void **state)
{
    (void)state;
    float x[7], y[7];
    double whitened[7];
    for (int i = 0; i < 7; i++)
        x[i] = y[i] = A[i];
    stats_whiten(x, 7, true);
    for (int i = 0; i < 7; i++) {
        assert_true(fabs(x[i] - WHITENED[i]) < 2e-7);
        whitened[i] = x[i];
    }
    assert_true(fabs(stats_mean(whitened, 7)) < 1e-7);
    assert_true(fabs(stats_variance(whitened, 7) - 1.0) < 1e-6);
    stats_whiten(y, 7, false);
    for (int i = 0; i < 7; i++)
        assert_true(fabs(y[i] - (WHITENED[i] + 0.11975357142857135)) < 2e-7);
}

/* Second pass around the mean: a one-pass variance would lose everything here. */
static void test_variance_keeps_digits_far_from_zero(void **state)
{
    (void)state;
    const double x[4] = {1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16};
    assert_true(stats_variance(x, 4) == 30.0);
}

static void test_nothing_and_one(void **state)
{
    (void)state;
    float one[1] = {3.0f};
    assert_true(stats_mean(NULL, 0) == 0.0 && stats_variance(NULL, 0) == 0.0);
    assert_true(stats_mean(&(double){3}, 1) == 3.0 && stats_variance(&(double){3}, 1) == 0.0);
    stats_whiten(NULL, 0, true);
    stats_whiten(one, 1, false);
    assert_true(one[0] == 3.0f);
    stats_whiten(one, 1, true);
    assert_true(one[0] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_mean_and_variance),
        cmocka_unit_test(test_golden_whitening),
        cmocka_unit_test(test_variance_keeps_digits_far_from_zero),
        cmocka_unit_test(test_nothing_and_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
