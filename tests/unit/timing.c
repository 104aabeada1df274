/* timing_*: phases add up to the time that passed; steps are judged without the first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <time.h>

#include "timing.h"

static void pass(double sec)
{
    nanosleep(&(struct timespec){0, (long)(sec * 1e9)}, NULL);
}

static double sum(const double sec[PHASES])
{
    double all = 0;
    for (int p = 0; p < PHASES; p++)
        all += sec[p];
    return all;
}

static void test_phases_add_up(void **state)
{
    (void)state;
    struct timing t;
    double before = timing_now();
    timing_init(&t);
    pass(0.002);
    timing_begin(&t, PHASE_GENERATE);
    pass(0.004);
    timing_begin(&t, PHASE_GATHER); /* its time is not generate's */
    timing_add_bytes(&t, 10);
    pass(0.008);
    timing_end(&t, 0);
    timing_add_bytes(&t, 3);
    timing_end(&t, 7);
    timing_begin(&t, PHASE_LOAD); /* still open at the end */
    pass(0.002);
    timing_settle(&t);
    double after = timing_now();
    assert_true(fabs(sum(t.sec) - (t.since - t.start)) < 1e-9);
    assert_true(sum(t.sec) <= after - before);
    assert_true(t.sec[PHASE_OTHER] >= 0.002 && t.sec[PHASE_GENERATE] >= 0.004 && t.sec[PHASE_GATHER] >= 0.008);
    assert_true(t.sec[PHASE_LOAD] >= 0.002);
    assert_int_equal(t.bytes[PHASE_GATHER], 10);
    assert_int_equal(t.bytes[PHASE_GENERATE], 3);
    assert_int_equal(t.tokens[PHASE_GENERATE], 7);
    assert_int_equal(t.tokens[PHASE_GATHER], 0);
}

static double step(struct timing *t, double sec, int64_t tokens)
{
    timing_step_begin(t);
    timing_begin(t, PHASE_FORWARD);
    pass(sec);
    timing_end(t, 0);
    return timing_step_end(t, tokens);
}

static void test_first_step_is_left_out_once_there_is_another(void **state)
{
    (void)state;
    struct timing t;
    timing_init(&t);
    double first = step(&t, 0.02, 100);
    assert_true(first >= 0.02 && t.first_sec == first);
    assert_true(t.timed.n == 1 && t.timed.total == first && t.timed.tokens == 100);
    assert_true(fabs(timing_left(&t, 3) - 3 * first) < 1e-12);
    pass(0.005); /* between steps: in no step, but part of the pace */
    double second = step(&t, 0.001, 10), third = step(&t, 0.001, 20);
    assert_true(t.n_steps == 3 && t.timed.n == 2 && t.timed.tokens == 30);
    assert_true(t.first_sec == first && fabs(t.timed.total - second - third) < 1e-12);
    assert_true(fabs(sum(t.timed.sec) - t.timed.total) < 1e-9);
    double pace = timing_left(&t, 1);
    assert_true(pace >= (second + third + 0.005) / 2 && pace <= timing_total(&t) / 2);
    assert_true(timing_left(&t, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phases_add_up),
        cmocka_unit_test(test_first_step_is_left_out_once_there_is_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
