/* metrics_*: numbers read back as they were; a resumed run continues its file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "metrics.h"

struct folder {
    char name[32], path[64];
};

static void make_folder(struct folder *f)
{
    strcpy(f->name, "metrics.XXXXXX");
    assert_non_null(mkdtemp(f->name));
    snprintf(f->path, sizeof f->path, "%s/metrics.jsonl", f->name);
}

static void write_steps(const char *path, int64_t last, int from, int to)
{
    struct metrics_file f;
    assert_int_equal(metrics_open(&f, path, last, true), 0);
    for (int step = from; step <= to; step++) {
        struct metrics m = {0};
        metrics_set(&m, "step", step);
        metrics_set(&m, "lr", 0.1 / step);
        assert_int_equal(metrics_write_line(&f, &m), 0);
    }
    metrics_close(&f);
}

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
    metrics_clear(&m);
    assert_true(isnan(metrics_get(&m, "step")));
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

/* Steps 1..5, resumed after step 3, and 4..6 again: the file of a run that was never stopped. */
static void test_resume_continues(void **state)
{
    (void)state;
    struct folder f;
    struct text resumed = {0}, whole = {0};
    make_folder(&f);
    write_steps(f.path, 0, 1, 5);
    FILE *cut = fopen(f.path, "a");
    fputs("{\"step\": 6, \"lr", cut);
    fclose(cut);
    write_steps(f.path, 3, 4, 6);
    assert_int_equal(file_read(&resumed, f.path), 0);
    write_steps(f.path, 0, 1, 6);
    assert_int_equal(file_read(&whole, f.path), 0);
    assert_string_equal(text_string(&resumed), text_string(&whole));
    file_remove_tree(f.name);
    text_free(&resumed);
    text_free(&whole);
}

static void test_line_that_is_no_step_is_named(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"lr\": 1}\n", "{\"step\": 1.5}\n", "[]\n", "what\n", "\n", "{\"step\": \"1\"}\n"};
    struct folder f;
    make_folder(&f);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct text file = {0};
        struct metrics_file open;
        text_format(&file, "{\"step\": 1}\n%s", bad[i]);
        assert_int_equal(file_write_atomic(f.path, file.bytes, file.n), 0);
        assert_int_equal(metrics_open(&open, f.path, 1, true), -1);
        assert_int_equal(error_kind(), ERR_FILE);
        assert_non_null(strstr(error_message(), "metrics.jsonl:2: "));
        text_free(&file);
    }
    file_remove_tree(f.name);
}

static void test_other_ranks_touch_nothing(void **state)
{
    (void)state;
    struct folder f;
    struct metrics_file open;
    struct metrics m = {0};
    make_folder(&f);
    assert_int_equal(metrics_open(&open, f.path, 0, false), 0);
    assert_int_equal(metrics_write_line(&open, &m), 0);
    metrics_close(&open);
    assert_false(file_exists(f.path));
    file_remove_tree(f.name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_replaces_and_keeps_order),
        cmocka_unit_test(test_numbers_read_back),
        cmocka_unit_test(test_resume_continues),
        cmocka_unit_test(test_line_that_is_no_step_is_named),
        cmocka_unit_test(test_other_ranks_touch_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
