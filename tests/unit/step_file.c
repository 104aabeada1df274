/* step_file_*: a resumed run continues its file. The lines are those of metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
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
    strcpy(f->name, "steps.XXXXXX");
    assert_non_null(mkdtemp(f->name));
    snprintf(f->path, sizeof f->path, "%s/steps.jsonl", f->name);
}

static void write_steps(const char *path, int64_t last, int from, int to)
{
    struct step_file f;
    assert_int_equal(step_file_open(&f, path, last, true), 0);
    for (int step = from; step <= to; step++) {
        struct metrics m = {0};
        metrics_set(&m, "step", step);
        metrics_set(&m, "lr", 0.1 / step);
        assert_int_equal(metrics_write_line(&f, &m), 0);
    }
    step_file_close(&f);
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
        struct step_file open;
        text_format(&file, "{\"step\": 1}\n%s", bad[i]);
        assert_int_equal(file_write_atomic(f.path, file.bytes, file.n), 0);
        assert_int_equal(step_file_open(&open, f.path, 1, true), -1);
        assert_int_equal(error_kind(), ERR_FILE);
        assert_non_null(strstr(error_message(), "steps.jsonl:2: "));
        text_free(&file);
    }
    file_remove_tree(f.name);
}

static void test_other_ranks_touch_nothing(void **state)
{
    (void)state;
    struct folder f;
    struct step_file open;
    struct metrics m = {0};
    make_folder(&f);
    assert_int_equal(step_file_open(&open, f.path, 0, false), 0);
    assert_int_equal(metrics_write_line(&open, &m), 0);
    step_file_close(&open);
    assert_false(file_exists(f.path));
    file_remove_tree(f.name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_continues),
        cmocka_unit_test(test_line_that_is_no_step_is_named),
        cmocka_unit_test(test_other_ranks_touch_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
