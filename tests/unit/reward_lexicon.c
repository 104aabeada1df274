/* reward_lexicon: words, folding, compounds, phrases; files that are malformed; the real lists. */
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
#include "reward_lexicon.h"

static char folder[] = "lexicon.XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static int open_list(void **lexicon, const char *bytes, size_t n)
{
    char *path = file_join(folder, "words");
    assert_int_equal(file_write_atomic(path, bytes, n), 0);
    const int rc = reward_lexicon_open(lexicon, &(struct reward_spec){.path = path});
    free(path);
    return rc;
}

static double score_bytes(void *lexicon, const char *response, size_t n)
{
    double score;
    const struct reward_text text = {
        .prompt = "good good good", .prompt_bytes = 14, .response = response, .response_bytes = n};
    assert_int_equal(reward_lexicon_score(lexicon, &text, 1, &score), 0);
    return score;
}

static double score_of(void *lexicon, const char *response)
{
    return score_bytes(lexicon, response, strlen(response));
}

static void test_words(void **state)
{
    (void)state;
    static const char list[] =
        "\xef\xbb\xbfgood\t7\r\nBAD,-1.5\n\n so-so , -0.5\ncan't stand\t-3\n:)\t1\ndon't\t-1\n"
        "\xc3\x84rger\t-4\nawful\t-3\t0.5\t[-3, -3]\nGood\t2\n";
    void *l;
    assert_int_equal(open_list(&l, list, sizeof list - 1), 0);
    assert_true(score_of(l, "") == 0.0);
    assert_true(score_of(l, " ... !?") == 0.0);
    assert_true(score_of(l, "good") == 2.0);
    assert_true(score_of(l, "GOOD, good; (Good)") == 2.0);
    assert_true(score_of(l, "a good film") == 2.0 / 3);
    assert_true(score_of(l, "goodness") == 0.0);
    assert_true(score_of(l, "good bad") == 0.25);
    assert_true(score_of(l, "So-so") == -0.5);       /* the compound is listed: one word */
    assert_true(score_of(l, "good-looking") == 1.0); /* it is not: two words */
    assert_true(score_of(l, "good--bad - good") == 2.5 / 3);
    assert_true(score_of(l, "'good'") == 2.0); /* quotes around, apostrophes inside */
    assert_true(score_of(l, "Don\xe2\x80\x99t don't") == -1.0);
    assert_true(score_of(l, "\xc3\xa4rger \xc3\x84RGER") == -4.0);
    assert_true(score_of(l, "awful :)") == -3.0);
    assert_true(score_of(l, "can't stand") == 0.0); /* a phrase: skipped with a warning */
    assert_true(score_of(l, "good\xff\xfe"
                            "bad") == 0.25); /* bytes that are no UTF-8 part words */
    assert_true(score_bytes(l, "good\0bad", 8) == 0.25);
    reward_lexicon_close(l);
    reward_lexicon_close(NULL);
}

static void test_malformed_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *list, *message;
    } bad[] = {
        {"good\t1\nbad\n", "words:2: expected a word"},
        {"good\t\n", "words:1: expected"},
        {"\t1\n", "words:1: expected"},
        {",1\n", "words:1: expected"},
        {"good\t1x\n", "words:1: expected"},
        {"good\tnan\n", "words:1: expected"},
        {"good\t1e999\n", "words:1: expected"},
        {"good\t0x10\n", "words:1: expected"},
        {"good 1\n", "words:1: expected"},
        {"a\t1\nb\t2\nc\xff\t3", "words:3: expected"},
        {"", "no words"},
        {"so much\t1\n", "no words"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        void *l = &l;
        assert_int_equal(open_list(&l, bad[i].list, strlen(bad[i].list)), -1);
        assert_null(l);
        assert_int_equal(error_kind(), ERR_FILE);
        if (!strstr(error_message(), bad[i].message))
            fail_msg("\"%s\" is not in \"%s\"", bad[i].message, error_message());
    }
    void *l;
    assert_int_equal(open_list(&l, "a\t1\nb\0c\t2\n", 10), -1);
    assert_non_null(strstr(error_message(), "words:2:"));
    assert_int_equal(reward_lexicon_open(&l, &(struct reward_spec){.path = "no/such/file"}), -1);
    assert_non_null(strstr(error_message(), "no/such/file"));
}

/* The best of words and of texts that anyone would order the same way. */
static void test_real_lists(void **state)
{
    (void)state;
    static const char *const lists[] = {"afinn-111.tsv", "vader.tsv"};
    const char *data = getenv("RLHF_HPC_DATA");
    if (!data) {
        print_message("skipped: RLHF_HPC_DATA is not set\n");
        skip();
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char path[4096];
        void *l;
        snprintf(path, sizeof path, "%s/lexicon/%s", data, lists[i]);
        if (reward_lexicon_open(&l, &(struct reward_spec){.path = path}) != 0)
            fail_msg("%s", error_message());
        assert_true(score_of(l, "A wonderful, brilliant and funny film.") > 0.3);
        assert_true(score_of(l, "A horrible, boring waste of time.") < -0.3);
        assert_true(score_of(l, "The film is on a table.") == 0.0);
        reward_lexicon_close(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_malformed_lines_are_named),
        cmocka_unit_test(test_real_lists),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
