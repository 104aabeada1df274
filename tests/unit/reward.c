/* reward_*: the table, the weighted sum, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "file.h"
#include "reward.h"

static char word_list[] = "reward.XXXXXX";

static int make_list(void **state)
{
    (void)state;
    return mkdtemp(word_list) ? 0 : -1;
}

static int remove_list(void **state)
{
    (void)state;
    return file_remove_tree(word_list);
}

static char *list_path(void)
{
    char *path = file_join(word_list, "words.tsv");
    assert_int_equal(file_write_atomic(path, "good\t2\nbad\t-1\n", 14), 0);
    return path;
}

static void refused(const struct reward_spec *specs, int n, const char *message)
{
    struct reward *r = (struct reward *)1;
    assert_int_equal(reward_open(&r, specs, n), -1);
    assert_null(r);
    assert_int_equal(error_kind(), ERR_INPUT);
    if (!strstr(error_message(), message))
        fail_msg("\"%s\" is not in \"%s\"", message, error_message());
}

static void test_what_is_refused(void **state)
{
    (void)state;
    char *path = list_path();
    refused(NULL, 0, "no reward is configured");
    refused(&(struct reward_spec){.type = "lexikon", .weight = 1}, 1,
            "\"lexikon\" is no reward type; there are \"lexicon\", \"program\", \"classifier\", \"adapter\"");
    refused(&(struct reward_spec){.weight = 1}, 1, "is no reward type");
    refused(&(struct reward_spec){.type = "classifier", .weight = 1}, 1,
            "reward \"classifier\": path is missing");
    refused(&(struct reward_spec){.type = "adapter", .weight = 1}, 1,
            "reward \"adapter\": path is missing");
    refused(&(struct reward_spec){.type = "lexicon", .weight = 1}, 1,
            "reward \"lexicon\": path is missing");
    refused(&(struct reward_spec){.type = "program", .name = "mine", .weight = 1}, 1,
            "reward \"mine\": command is missing");
    refused(
        &(struct reward_spec){.type = "program", .command = "cat", .weight = 1, .timeout_sec = -1},
        1, "timeout_sec = -1");
    refused(&(struct reward_spec){.type = "lexicon", .path = path, .weight = NAN}, 1,
            "not a finite number");
    const struct reward_spec twice[2] = {{.type = "lexicon", .path = path, .weight = 1},
                                         {.type = "lexicon", .path = path, .weight = 1}};
    refused(twice, 2, "two rewards are named \"lexicon\"");
    free(path);
}

static void test_weighted_sum_and_parts(void **state)
{
    (void)state;
    char *path = list_path();
    const struct reward_spec specs[2] = {
        {.type = "lexicon", .name = "mood", .path = path, .weight = 0.5},
        {.type = "program",
         .name = "length",
         .weight = -0.25,
         .command = "while read -r line; do echo ${#line}; done",
         .timeout_sec = 20},
    };
    const struct reward_text texts[3] = {
        {0, "p", "good bad", 1, 8, NULL, 0}, {1, "p", "Good!", 1, 5, NULL, 0}, {2, "p", "", 1, 0, NULL, 0}};
    struct reward *r;
    double score[3], parts[6], again[3];
    assert_int_equal(reward_open(&r, specs, 2), 0);
    assert_int_equal(reward_load(r), 0);
    assert_int_equal(reward_n_parts(r), 2);
    assert_string_equal(reward_part_name(r, 0), "mood");
    assert_string_equal(reward_part_name(r, 1), "length");
    assert_int_equal(reward_score(r, texts, 3, score, parts), 0);
    const double mood[3] = {0.5, 2, 0},
                 length[3] = {38 + 8, 38 + 5,
                              38}; /* {"index":0,"prompt":"p","response":""} and the text */
    for (int i = 0; i < 3; i++) {
        assert_true(parts[i] == mood[i] && parts[3 + i] == length[i]);
        assert_true(score[i] == 0.5 * parts[i] - 0.25 * parts[3 + i]);
    }
    assert_int_equal(reward_score(r, texts, 3, again, parts),
                     0); /* and the program is asked again */
    assert_memory_equal(again, score, sizeof score);
    assert_int_equal(reward_score(r, NULL, 0, NULL, NULL), 0);
    reward_close(r);
    reward_close(NULL);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_weighted_sum_and_parts),
    };
    return cmocka_run_group_tests(tests, make_list, remove_list);
}
