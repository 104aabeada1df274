/* Names of classes: what config.json may hold, what is refused, and how a class is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "labels.h"

#include <string.h>

static int read_text(struct labels *l, const char *text)
{
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    const int rc = labels_of_config(l, "config.json", config);
    json_decref(config);
    return rc;
}

static void expect_labels(const char *text, int n, const char *first, const char *last)
{
    struct labels l;
    if (read_text(&l, text))
        fail_msg("%s", error_message());
    assert_int_equal(l.n, n);
    assert_string_equal(l.name[0], first);
    assert_string_equal(l.name[n - 1], last);
    labels_free(&l);
    labels_free(&l);
}

static void test_names_and_their_defaults(void **state)
{
    (void)state;
    expect_labels("{\"id2label\":{\"1\":\"POSITIVE\",\"0\":\"NEGATIVE\"}}", 2, "NEGATIVE", "POSITIVE");
    expect_labels("{\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"},\"label2id\":{\"x\":0},\"num_labels\":3}", 3, "a", "c");
    expect_labels("{\"id2label\":null,\"label2id\":{\"good\":1,\"bad\":0}}", 2, "bad", "good");
    expect_labels("{}", 2, "LABEL_0", "LABEL_1");
    expect_labels("{\"num_labels\":1}", 1, "LABEL_0", "LABEL_0");
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"id2label\":[\"a\"]}", "id2label is not an object"},
        {"{\"id2label\":{}}", "id2label is not an object of 1"},
        {"{\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", "not 0 to 1"},
        {"{\"id2label\":{\"0\":\"a\",\"00\":\"b\"}}", "not 0 to 1"},
        {"{\"id2label\":{\"0\":\"a\",\"-1\":\"b\"}}", "not 0 to 1"},
        {"{\"id2label\":{\"0\":\"a\",\"1x\":\"b\"}}", "not 0 to 1"},
        {"{\"id2label\":{\"0\":\"a\",\"99999999999999999999\":\"b\"}}", "not 0 to 1"},
        {"{\"id2label\":{\"0\":7}}", "name of label 0 is not a string"},
        {"{\"id2label\":{\"0\":\"a\",\"1\":\"a\"}}", "two labels have the name 'a'"},
        {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"num_labels\":3}", "num_labels is 3, but 2 labels"},
        {"{\"label2id\":{\"a\":\"0\"}}", "not 0 to 0"},
        {"{\"label2id\":{\"a\":0,\"b\":4294967296}}", "not 0 to 1"},
        {"{\"num_labels\":0}", "num_labels is not"},
        {"{\"num_labels\":2.5}", "num_labels is not"},
        {"{\"num_labels\":1000000000}", "1 to 10000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct labels l;
        error_clear();
        if (read_text(&l, cases[i][0]) == 0)
            fail_msg("read, should say: %s", cases[i][1]);
        if (!strstr(error_message(), cases[i][1]))
            fail_msg("'%s' does not say '%s'", error_message(), cases[i][1]);
        assert_true(l.n == 0 && !l.name);
    }
}

static void test_found_by_name_or_number(void **state)
{
    (void)state;
    struct labels l;
    assert_int_equal(read_text(&l, "{\"id2label\":{\"0\":\"negative\",\"1\":\"positive\",\"2\":\"0\"}}"), 0);
    assert_int_equal(labels_find(&l, "positive"), 1);
    assert_int_equal(labels_find(&l, "1"), 1);
    assert_int_equal(labels_find(&l, "0"), 2); /* a name before a number */
    static const char *const unknown[] = {"Positive", "3", "-1", "", "1.0", "99999999999999999999"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(labels_find(&l, unknown[i]), -1);
        assert_non_null(strstr(error_message(), "not one of negative, positive, 0, nor a number from 0 to 2"));
    }
    labels_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_their_defaults),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_found_by_name_or_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
