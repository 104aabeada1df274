/* score_*: running moments of SPEC 2.6, scaling, norm, clip, EOS penalty. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "score.h"

static void test_moments_golden(void **state)
{
    (void)state;
    const double first[4] = {1, 2, 3, 4}, second[4] = {0, 0, 10, 2};
    struct score_moments m = {0};
    score_moments_add(&m, first, 4);
    assert_true(m.mean == 2.5 && m.variance == 1.25 && fabs(m.std - 1.29099445) < 1e-8);
    score_moments_add(&m, second, 4);
    assert_true(m.mean == 2.75 && m.variance == 9.1875 && fabs(m.std - 3.24037035) < 1e-8);
    assert_true(m.count == 8);
}

static void test_one_score_has_std_one(void **state)
{
    (void)state;
    struct score_moments m = {0};
    double x[1] = {4.0};
    score_process(x, 1, &m, &(struct score_settings){.scaling = true});
    assert_true(m.std == 1.0 && fabs(x[0] - 4.0) < 1e-6 && isfinite(x[0]));
    score_process(x, 0, &m, &(struct score_settings){.scaling = true});
    assert_true(m.count == 1);
}

static void test_scaling_norm_and_clip(void **state)
{
    (void)state;
    const double factor = 1.2909944487358056 + 0x1p-23;
    struct score_moments m = {0}, again = {0}, none = {0};
    double x[4] = {1, 2, 3, 4}, y[4] = {1, 2, 3, 4}, z[3] = {-7, 0.5, 7};
    score_process(x, 4, &m, &(struct score_settings){.scaling = true});
    score_process(y, 4, &again,
                  &(struct score_settings){.scaling = true, .norm = true, .clip = 0.5});
    for (int i = 0; i < 4; i++)
        assert_true(fabs(x[i] - (i + 1) / factor) < 1e-14);
    assert_true(y[0] == -0.5 && y[3] == 0.5);
    assert_true(fabs(y[1] - -0.5 / factor) < 1e-14 && fabs(y[2] - 0.5 / factor) < 1e-14);
    score_process(z, 3, &none, &(struct score_settings){.norm = true, .clip = 5});
    assert_true(z[0] == -5 && z[1] == 0.5 && z[2] == 5 &&
                none.count == 0); /* norm alone does nothing, as in TRL */
}

static void test_missing_eos_penalty(void **state)
{
    (void)state;
    double x[3] = {1, 2, 3};
    const bool finished[3] = {true, false, true};
    score_missing_eos(x, finished, 3, 1.5);
    assert_true(x[0] == 1 && x[1] == 0.5 && x[2] == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments_golden),
        cmocka_unit_test(test_one_score_has_std_one),
        cmocka_unit_test(test_scaling_norm_and_clip),
        cmocka_unit_test(test_missing_eos_penalty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
