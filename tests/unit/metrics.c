/* metrics_*: numbers read back as they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "metrics.h"

static void test_set_replaces_and_keeps_order(void **state)
{
    (void)state;
    struct metrics m = {0};
    struct text line = {0};
    metrics_set(&m, "step", 3);
    metrics_set(&m, "objective/kl", 0.1);
    metrics_set(&m, "loss/policy_avg", NAN);
    metrics_set(&m, "objective/kl", -0.25);
    metrics_format(&line, &m);
    assert_string_equal(text_string(&line),
                        "{\"step\": 3, \"objective/kl\": -0.25, \"loss/policy_avg\": null}");
    assert_true(metrics_get(&m, "objective/kl") == -0.25 && isnan(metrics_get(&m, "none")));
    text_free(&line);
}

static void test_numbers_read_back(void **state)
{
    (void)state;
    const double values[] = {
        0.1, 1.0 / 3, 1.41e-5, 5e-324, 1.7976931348623157e308, -0.0, 123456789012345678.0, 2.5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct metrics m = {0};
        struct text line = {0};
        metrics_set(&m, "x", values[i]);
        metrics_format(&line, &m);
        json_t *object = json_loads(text_string(&line), 0, NULL);
        assert_non_null(object);
        assert_true(json_number_value(json_object_get(object, "x")) == values[i]);
        json_decref(object);
        text_free(&line);
    }
    struct metrics m = {0};
    struct text line = {0};
    metrics_set(&m, "x", 1.41e-5);
    metrics_format(&line, &m);
    assert_string_equal(text_string(&line),
                        "{\"x\": 1.41e-05}"); /* and no digits more than needed */
    text_free(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_replaces_and_keeps_order),
        cmocka_unit_test(test_numbers_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
