/* kl_*: the estimators by hand, the controller against SPEC 2.5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "error.h"
#include "kl.h"

static void test_estimators_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double below, above; /* at (-2, -1.5) and (-1.5, -2) */
    } want[] = {{"kl", -0.5, 0.5},
                {"abs", 0.5, 0.5},
                {"mse", 0.125, 0.125},
                {"k3", 0.14872127070012815, 0.10653065971263342}}; /* e^.5 - 1.5, e^-.5 - .5 */
    int n;
    kl_table(&n);
    assert_int_equal(n, 4);
    for (int i = 0; i < n; i++) {
        const struct kl_estimator *e = kl_find(want[i].name);
        assert_non_null(e);
        assert_true(fabs(kl_penalty(e, -2.0, -1.5) - want[i].below) < 1e-15);
        assert_true(fabs(kl_penalty(e, -1.5, -2.0) - want[i].above) < 1e-15);
        assert_true(kl_penalty(e, -3.25, -3.25) == 0.0);
    }
    assert_null(kl_find("full"));
    assert_int_equal(error_kind(), ERR_INPUT);
    assert_non_null(strstr(error_message(), "\"full\""));
    assert_non_null(strstr(error_message(), "\"kl\", \"abs\", \"mse\", \"k3\""));
}

static void test_k3_keeps_digits_near_zero(void **state)
{
    (void)state;
    const struct kl_estimator *k3 = kl_find("k3");
    for (double d = 1e-12; d < 1e-3; d *= 3)
        assert_true(fabs(kl_penalty(k3, -1.0, -1.0 + d) - d * d / 2) < d * d * d + 0x1p-51 * d);
}

static void test_rewards_put_score_on_last_token(void **state)
{
    (void)state;
    const float logprob[3] = {-1.0f, -2.0f, -0.5f}, ref[3] = {-1.5f, -2.0f, -0.25f};
    float reward[3];
    const double kl = kl_rewards(reward, logprob, ref, 3, kl_find("kl"), 0.2, 3.0);
    assert_true(kl == 0.25);
    assert_true(reward[0] == (float)-0.1 && reward[1] == 0.0f && reward[2] == (float)3.05);
    assert_true(kl_rewards(reward, logprob, ref, 0, kl_find("kl"), 0.2, 9.0) == 0.0);
    assert_true(reward[0] == (float)-0.1);
}

static void test_adaptive_controller_golden(void **state)
{
    (void)state;
    struct kl_controller c = {.adaptive = true, .coef = 0.2, .target = 6, .horizon = 10000};
    kl_adapt(&c, 3.0, 256);
    assert_true(fabs(c.coef - 0.198976) < 1e-15);
    kl_adapt(&c, 9.0, 256);
    assert_true(fabs(c.coef - 0.19999475712) < 1e-11 * 0.2);
    kl_adapt(&c, 6.5, 256);
    assert_true(fabs(c.coef - 0.200421412601856) < 1e-15);
    const double before = c.coef;
    kl_adapt(&c, NAN, 256);
    assert_true(c.coef == before);
}

static void test_fixed_controller_stays(void **state)
{
    (void)state;
    struct kl_controller c = {.coef = 0.2, .target = 6, .horizon = 10000};
    kl_adapt(&c, 60.0, 256);
    assert_true(c.coef == 0.2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimators_by_name),
        cmocka_unit_test(test_k3_keeps_digits_near_zero),
        cmocka_unit_test(test_rewards_put_score_on_last_token),
        cmocka_unit_test(test_adaptive_controller_golden),
        cmocka_unit_test(test_fixed_controller_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
