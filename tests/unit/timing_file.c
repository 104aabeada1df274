/* timing_file_*: what is written reads back as it was. Malformed files: tests/cli/report.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "timing_file.h"

static struct timing_file example(void)
{
    struct timing_file f = {.version = "1.0", .revision = "abc", .task = "ppo", .device = "CPU, 2 threads", .model = "m\"odel",
                            .ranks = 4, .threads = 2, .nodes = 2, .parameters = 20000000000, .trainable = 1000,
                            .batch_size = 64, .total = {9.5, 10, 10.25}, .n_steps = 5, .first_sec = 3,
                            .sec_per_step = 1.0 / 3, .tokens_per_step = 100.5};
    f.phase[PHASE_GENERATE] = (struct spread){0.1, 0.25, 0.5};
    f.phase[PHASE_FORWARD] = (struct spread){1, 2, 3};
    f.phase[PHASE_OTHER] = (struct spread){0, 0.001, 0.002};
    f.tokens[PHASE_GENERATE] = 123456789012;
    f.bytes[PHASE_GENERATE] = 5;
    f.step_phase[PHASE_GENERATE] = (struct spread){0.01, 0.02, 0.04};
    f.step_phase[PHASE_FORWARD] = (struct spread){0.1, 0.2, 0.2};
    f.step_phase[PHASE_REDUCE] = (struct spread){0, 0.1, 0.2};
    return f;
}

static void same_spread(const struct spread *a, const struct spread *b)
{
    for (int p = 0; p < PHASES; p++)
        assert_true(a[p].min == b[p].min && a[p].mean == b[p].mean && a[p].max == b[p].max);
}

static void test_reads_back(void **state)
{
    (void)state;
    char folder[] = "timing.XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/timing.json", folder);
    struct timing_file f = example(), g;
    assert_int_equal(timing_file_write(&f, path), 0);
    assert_int_equal(timing_file_read(&g, path), 0);
    assert_string_equal(g.model, f.model);
    assert_string_equal(g.device, f.device);
    assert_true(g.ranks == 4 && g.threads == 2 && g.nodes == 2 && g.n_steps == 5);
    assert_true(g.parameters == f.parameters && g.trainable == f.trainable && g.batch_size == f.batch_size);
    assert_true(g.sec_per_step == f.sec_per_step && g.first_sec == 3 && g.tokens_per_step == 100.5);
    assert_true(g.total.min == 9.5 && g.total.mean == 10 && g.total.max == 10.25);
    same_spread(g.phase, f.phase);
    same_spread(g.step_phase, f.step_phase);
    assert_memory_equal(g.tokens, f.tokens, sizeof f.tokens);
    assert_memory_equal(g.bytes, f.bytes, sizeof f.bytes);
    timing_file_free(&g);
    timing_file_free(&g);
    f.device = "\xff";
    assert_int_equal(timing_file_write(&f, path), -1);
    assert_non_null(strstr(error_message(), path));
    file_remove_tree(folder);
}

/* Waiting in a sum is not a rank's own work. */
static void test_imbalance_is_of_own_work(void **state)
{
    (void)state;
    struct timing_file f = example();
    assert_true(fabs(timing_file_imbalance(&f) - 0.24 / 0.22) < 1e-12);
    assert_true(fabs(timing_file_tokens_per_sec(&f) - 301.5) < 1e-9);
    memset(f.step_phase, 0, sizeof f.step_phase);
    f.sec_per_step = 0;
    assert_true(timing_file_imbalance(&f) == 1 && timing_file_tokens_per_sec(&f) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_back),
        cmocka_unit_test(test_imbalance_is_of_own_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
