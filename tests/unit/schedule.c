/* schedule_*: the factors of transformers' get_scheduler at a few steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "error.h"
#include "schedule.h"

/* Warm-up 10, total 110, at these steps. */
static const int64_t STEPS[] = {0, 5, 10, 35, 60, 109, 110, 200};
static const struct {
    const char *name;
    double factor[8];
} WANT[] = {
    {"constant", {1, 1, 1, 1, 1, 1, 1, 1}},
    {"constant_with_warmup", {0, .5, 1, 1, 1, 1, 1, 1}},
    {"linear", {0, .5, 1, .75, .5, .01, 0, 0}},
    {"cosine", {0, .5, 1, 0.8535533905932737, .5, 0.00024671981713422, 0, 0}},
};

static void test_factors(void **state)
{
    (void)state;
    int n;
    schedule_table(&n);
    assert_int_equal(n, sizeof WANT / sizeof *WANT);
    for (int i = 0; i < n; i++) {
        const struct schedule *row = schedule_find(WANT[i].name);
        assert_non_null(row);
        for (int k = 0; k < 8; k++)
            assert_true(fabs(schedule_rate(row, 2e-5, STEPS[k], 10, 110) -
                             2e-5 * WANT[i].factor[k]) < 1e-19);
    }
}

static void test_no_warmup_and_no_steps(void **state)
{
    (void)state;
    int n;
    const struct schedule *row = schedule_table(&n);
    for (int i = 0; i < n; i++)
        assert_true(schedule_rate(&row[i], 0.5, 0, 0, 0) == 0.5);
}

static void test_unknown_name_lists_names(void **state)
{
    (void)state;
    assert_null(schedule_find("polynomial"));
    assert_non_null(
        strstr(error_message(), "\"constant\", \"constant_with_warmup\", \"linear\", \"cosine\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factors),
        cmocka_unit_test(test_no_warmup_and_no_steps),
        cmocka_unit_test(test_unknown_name_lists_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
