/* report_table_*: escapes and columns; report_advice: each line where it belongs, none elsewhere; curves of ragged lines. */
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

#include "curves.h"
#include "error.h"
#include "file.h"
#include "report_advice.h"
#include "report_table.h"

static void test_table_in_both_forms(void **state)
{
    (void)state;
    struct report_table t = {0};
    struct text out = {0};
    report_table_markdown(&out, &t, 0, 0, 0);
    assert_string_equal(text_string(&out), "");
    report_table_column(&t, "name");
    report_table_column(&t, "x, y");
    report_table_column(&t, "n");
    report_table_text(&t, "a|b\n<i>, \"%d\"", 5);
    report_table_number(&t, 1.0 / 3);
    report_table_number(&t, NAN);
    report_table_text(&t, "c");
    report_table_number(&t, -12345678.9);
    report_table_number(&t, 1e-7);
    report_table_markdown(&out, &t, 0, 0, 3);
    assert_string_equal(text_string(&out), "| name | x, y | n |\n| --- | ---: | ---: |\n"
                                           "| a\\|b &lt;i>, \"5\" | 0.3333 | - |\n| c | -12345679 | 1e-07 |\n\n");
    text_clear(&out);
    report_table_markdown(&out, &t, 1, 2, 1);
    assert_string_equal(text_string(&out), "| name | n |\n| --- | ---: |\n| a\\|b &lt;i>, \"5\" | - |\n| c | 1e-07 |\n\n");
    text_clear(&out);
    report_table_csv(&out, &t);
    assert_string_equal(text_string(&out), "name,\"x, y\",n\n\"a|b\n<i>, \"\"5\"\"\",0.333333333333333,\nc,-12345678.9,1e-07\n");
    text_free(&out);
    report_table_free(&t);
    report_table_free(&t);
}

/* metrics.jsonl of 20 steps that go from first to last in a straight line. */
static void write_line(const char *path, const char *name, double first, double last)
{
    struct text lines = {0};
    for (int i = 0; i < 20; i++)
        text_format(&lines, "{\"step\": %d, \"objective/scores\": %d, \"%s\": %g}\n", i + 1, i, name,
                    first + (last - first) * i / 19);
    assert_int_equal(file_write_atomic(path, lines.bytes, lines.n), 0);
    text_free(&lines);
}

static void test_advice_where_numbers_look_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double first, last;
        const char *advice; /* NULL: none */
    } cases[] = {
        {"objective/kl", 0, 12, "KL to the reference policy is 11.7, above 10"},
        {"objective/kl", 30, 9, NULL}, /* the end counts */
        {"objective/kl", 0, -1, "below 0"},
        {"policy/clipfrac_avg", 0.1, 0.5, "49 % of the tokens are clipped"},
        {"policy/entropy_avg", 2, 0.1, "Entropy fell from 1.95 to 0.15"},
        {"policy/entropy_avg", 2, 1, NULL},
        {"val/num_skipped_updates", 0, 1, "10 updates were skipped"},
        {"val/num_skipped_updates", 0, 0, NULL},
        {"val/explained_variance", 0, -0.5, "value head explains nothing"},
        {"sampling/logprob_gap", 0, 0.1, "differ by 0.0974"},
    };
    char folder[] = "report.XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct past_run r;
        struct text out = {0};
        write_line(path, cases[i].name, cases[i].first, cases[i].last);
        assert_int_equal(past_run_open(&r, folder), 0);
        assert_int_equal(report_advice(&out, &r), cases[i].advice != NULL);
        if (cases[i].advice && !strstr(text_string(&out), cases[i].advice))
            fail_msg("\"%s\" not in %s", cases[i].advice, text_string(&out));
        past_run_close(&r);
        text_free(&out);
    }
    file_remove_tree(folder);
}

static void test_curves_of_ragged_lines(void **state)
{
    (void)state;
    static const char LINES[] =
        "{\"step\": 1, \"a\": 2}\n\n{\"step\": 2, \"b\": null, \"a\": 4}\n{\"b\": 0.5, \"step\": 4}\n{\"step";
    char folder[] = "report.XXXXXX", path[64];
    struct curves c;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    assert_int_equal(file_write_atomic(path, LINES, sizeof LINES - 1), 0);
    assert_int_equal(curves_read(&c, path), 0);
    assert_true(c.n == 3 && c.n_rows == 3 && c.n_null == 1);
    const struct curve *a = curves_find(&c, "a"), *b = curves_find(&c, "b");
    assert_true(a->value[0] == 2 && a->value[1] == 4 && isnan(a->value[2]));
    assert_true(isnan(b->value[0]) && isnan(b->value[1]) && b->value[2] == 0.5);
    assert_true(curve_mean(a, 0, 3) == 3 && isnan(curve_mean(b, 0, 2)) && isnan(curve_mean(NULL, 0, 3)));
    assert_null(curves_find(&c, "c"));
    curves_free(&c);
    file_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_in_both_forms),
        cmocka_unit_test(test_advice_where_numbers_look_wrong),
        cmocka_unit_test(test_curves_of_ragged_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
