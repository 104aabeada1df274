/* reward_output: classes by name and number, logits and probabilities, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "error.h"
#include "labels.h"
#include "reward_output.h"

static char *names[] = {"NEGATIVE", "POSITIVE", "0"};

static int label_of(const char *label, int n)
{
    struct reward_output o;
    const struct labels labels = {n, names};
    if (reward_output_choose(&o, &(struct reward_spec){.label = label}, &labels) != 0)
        return -1;
    assert_int_equal(o.n, n);
    return o.label;
}

static void test_label_is_a_name_else_a_number_else_the_last(void **state)
{
    (void)state;
    assert_int_equal(label_of(NULL, 2), 1);
    assert_int_equal(label_of("", 1), 0);
    assert_int_equal(label_of("NEGATIVE", 2), 0);
    assert_int_equal(label_of("1", 3), 1);
    assert_int_equal(label_of("0", 2), 0);
    assert_int_equal(label_of("0", 3), 2); /* the name comes first */
    const char *const wrong[] = {"positive", "2", "-1", "1x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(label_of(wrong[i], 2), -1);
        assert_int_equal(error_kind(), ERR_INPUT);
        assert_non_null(strstr(error_message(), "NEGATIVE, POSITIVE"));
    }
}

static double score(enum function_choice function, int label, int n, const float *logit)
{
    const struct reward_output o = {n, label, function};
    return reward_output_score(&o, logit);
}

static void test_functions_are_those_of_the_pipeline(void **state)
{
    (void)state;
    const float z[3] = {-1.5f, 2.25f, 0.5f};
    assert_true(score(FUNCTION_NONE, 1, 3, z) == 2.25);
    double sum = 0;
    for (int k = 0; k < 3; k++) {
        const double p = score(FUNCTION_SOFTMAX, k, 3, z);
        assert_float_equal(p, exp(z[k]) / (exp(-1.5) + exp(2.25) + exp(0.5)), 1e-12);
        sum += p;
    }
    assert_float_equal(sum, 1, 1e-12);
    assert_float_equal(score(FUNCTION_SIGMOID, 0, 1, z), 1 / (1 + exp(1.5)), 1e-12);
    const float far[2] = {-1000, 1000};
    assert_true(score(FUNCTION_SOFTMAX, 1, 2, far) == 1 && score(FUNCTION_SOFTMAX, 0, 2, far) == 0);
    assert_true(score(FUNCTION_SIGMOID, 0, 2, far) == 0 && score(FUNCTION_SIGMOID, 1, 2, far) == 1);
}

static void test_softmax_of_one_output_is_refused(void **state)
{
    (void)state;
    struct reward_output o;
    const struct labels one = {1, names};
    assert_int_equal(reward_output_choose(&o, &(struct reward_spec){.function = FUNCTION_SOFTMAX}, &one), -1);
    assert_int_equal(error_kind(), ERR_INPUT);
    assert_int_equal(reward_output_choose(&o, &(struct reward_spec){.function = FUNCTION_SIGMOID}, &one), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_label_is_a_name_else_a_number_else_the_last),
        cmocka_unit_test(test_functions_are_those_of_the_pipeline),
        cmocka_unit_test(test_softmax_of_one_output_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
