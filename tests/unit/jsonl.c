/* Tests of src/jsonl.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "jsonl.h"
#include "text.h"

static int read_all(const char *bytes, size_t n)
{
    struct jsonl j;
    json_t *object;
    int more;
    jsonl_open(&j, "f.jsonl", bytes, n);
    while ((more = jsonl_next(&j, &object)) > 0)
        json_decref(object);
    assert_null(object);
    return more;
}

static void expect_error(const char *bytes, const char *message)
{
    error_clear();
    assert_int_equal(read_all(bytes, strlen(bytes)), -1);
    assert_int_equal(error_kind(), ERR_FILE);
    if (strncmp(error_message(), message, strlen(message)) != 0)
        fail_msg("%s\nexpected %s", error_message(), message);
}

static void test_lines(void **state)
{
    (void)state;
    const char *text = "\xef\xbb\xbf\n \t\r\n"
                       "{\"a\": \"x\\u0000y\xe2\x80\xa8z\"}\r\n" /* NUL; U+2028 splits no line */
                       "{\"a\": 2}\n\n"
                       "{\"a\": [\"}\", \"\\\"[[\"]}";
    struct jsonl j;
    json_t *o;
    jsonl_open(&j, "f.jsonl", text, strlen(text));
    assert_int_equal(jsonl_next(&j, &o), 1);
    assert_int_equal(j.line, 3);
    assert_int_equal(json_string_length(json_object_get(o, "a")), 7);
    assert_memory_equal(json_string_value(json_object_get(o, "a")), "x\0y\xe2\x80\xa8z", 7);
    json_decref(o);
    assert_int_equal(jsonl_next(&j, &o), 1);
    assert_int_equal(j.line, 4);
    assert_int_equal(json_integer_value(json_object_get(o, "a")), 2);
    json_decref(o);
    assert_int_equal(jsonl_next(&j, &o), 1);
    assert_int_equal(j.line, 6);
    assert_int_equal(json_array_size(json_object_get(o, "a")), 2);
    json_decref(o);
    assert_int_equal(jsonl_next(&j, &o), 0);
    assert_int_equal(jsonl_next(&j, &o), 0);
    assert_int_equal(read_all("", 0), 0);
}

static void test_malformed(void **state)
{
    (void)state;
    expect_error("{\"a\": 1}\n{\"a\": }\n", "f.jsonl:2: not valid JSON: ");
    expect_error("{\"a\": \"line\nbreak\"}", "f.jsonl:1: not valid JSON: ");
    expect_error("{\"a\": 1} {\"b\": 1}", "f.jsonl:1: not valid JSON: ");
    expect_error("{\"a\": \"\xff\"}", "f.jsonl:1: not valid JSON: ");
    expect_error("{\"a\": 99999999999999999999}", "f.jsonl:1: not valid JSON: ");
    expect_error("\n[1, 2]", "f.jsonl:2: an array where an object { .. } was expected");
    expect_error("\"text\"", "f.jsonl:1: a string where an object { .. } was expected");
    expect_error("3", "f.jsonl:1: an integer where an object { .. } was expected");
    expect_error("null", "f.jsonl:1: null where an object { .. } was expected");
}

static void test_depth(void **state)
{
    (void)state;
    for (int depth = 63; depth <= 65; depth++) {
        struct text t = {0};
        text_add_string(&t, "{\"a\":");
        for (int i = 1; i < depth; i++)
            text_add_string(&t, "[");
        for (int i = 1; i < depth; i++)
            text_add_string(&t, "]");
        text_add_string(&t, "}");
        assert_int_equal(read_all(t.bytes, t.n), depth <= JSONL_DEPTH_MAX ? 0 : -1);
        text_free(&t);
    }
    struct text deep = {0};
    for (int i = 0; i < 1000000; i++)
        text_add_string(&deep, "[");
    expect_error(deep.bytes, "f.jsonl:1: nested deeper than 64");
    text_free(&deep);
}

/* Bytes at the edge of their allocation: a read beyond them is seen by the address sanitizer. */
static void test_every_prefix_ends(void **state)
{
    (void)state;
    const char text[] = "{\"a\": [1, \"\\\\\\\"\"], \"b\": {\"c\": null}}\r\n{\"d\": -1.5e3}\n";
    for (size_t n = 0; n < sizeof text; n++) {
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, text, n);
        (void)read_all(copy, n);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_every_prefix_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
