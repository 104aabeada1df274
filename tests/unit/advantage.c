/* advantage_gae: SPEC 10.1, and the two ends of lambda. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "advantage.h"

static void check(const float *got, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(fabs(got[i] - want[i]) < 1e-7);
}

static void test_golden(void **state)
{
    (void)state;
    const float reward[2][4] = {{.1f, -.2f, .05f, 1}, {0, .3f, -.5f}},
                value[2][4] = {{.5f, .4f, .3f, .2f}, {.1f, .2f, .3f}};
    const double advantage[2][4] = {{.355775, .3745, .71, .8}, {-.242, -.36, -.8}};
    const double ret[2][4] = {{.855775, .7745, 1.01, 1.0}, {-.142, -.16, -.5}};
    float a[4], r[4];
    for (int i = 0; i < 2; i++) {
        const int T = 4 - i;
        advantage_gae(a, r, reward[i], value[i], T, 1.0, 0.95);
        check(a, advantage[i], T);
        check(r, ret[i], T);
    }
}

static void test_lambda_one_is_return_minus_value(void **state)
{
    (void)state;
    const float reward[3] = {1, 2, 4}, value[3] = {.5f, -1, 3};
    const double discounted[3] = {1 + .5 * (2 + .5 * 4), 2 + .5 * 4, 4};
    float a[3], r[3];
    advantage_gae(a, r, reward, value, 3, 0.5, 1.0);
    check(r, discounted, 3);
    advantage_gae(a, r, reward, value, 3, 0.5, 0.0); /* one step */
    check(a, (const double[]){1 - .5 - .5, 2 + 1.5 + 1, 4 - 3}, 3);
}

static void test_no_tokens(void **state)
{
    (void)state;
    advantage_gae(NULL, NULL, NULL, NULL, 0, 1.0, 0.95);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_lambda_one_is_return_minus_value),
        cmocka_unit_test(test_no_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
