/* Tests of src/csv.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "csv.h"
#include "error.h"

static int read_all(const char *bytes, size_t n)
{
    struct csv c;
    int rc = csv_open(&c, "f.csv", bytes, n), more = 0;
    while (rc == 0 && (more = csv_next(&c)) > 0)
        ;
    csv_close(&c);
    return rc ? rc : more;
}

static void test_quotes_and_line_breaks(void **state)
{
    (void)state;
    const char text[] = "\xef\xbb\xbfid,text,\"the label\"\r\n"
                        "1,\"a, \"\"b\"\"\nc\r\nd\",0\r\n"
                        "\n\r\n"
                        ",,\n"
                        "\"\",x\0y,\"9\"";
    struct csv c;
    assert_int_equal(csv_open(&c, "f.csv", text, sizeof text - 1), 0);
    assert_int_equal(c.n_columns, 3);
    assert_int_equal(csv_column(&c, "id"), 0);
    assert_int_equal(csv_column(&c, "the label"), 2);
    assert_int_equal(csv_column(&c, "ID"), -1);
    assert_int_equal(csv_next(&c), 1);
    assert_int_equal(c.line, 2);
    assert_string_equal(text_string(&c.field[1]), "a, \"b\"\nc\r\nd");
    assert_string_equal(text_string(&c.field[2]), "0");
    assert_int_equal(csv_next(&c), 1);
    assert_int_equal(c.line, 7);
    assert_string_equal(text_string(&c.field[0]), "");
    assert_string_equal(text_string(&c.field[2]), "");
    assert_int_equal(csv_next(&c), 1);
    assert_int_equal(c.line, 8);
    assert_int_equal(c.field[1].n, 3);
    assert_memory_equal(c.field[1].bytes, "x\0y", 3);
    assert_string_equal(text_string(&c.field[2]), "9");
    assert_int_equal(csv_next(&c), 0);
    assert_int_equal(csv_next(&c), 0);
    csv_close(&c);
}

static void test_lone_carriage_return_is_text(void **state)
{
    (void)state;
    struct csv c;
    assert_int_equal(csv_open(&c, "f.csv", "a\nx\ry\r", 7), 0);
    assert_int_equal(csv_next(&c), 1);
    assert_string_equal(text_string(&c.field[0]), "x\ry\r");
    assert_int_equal(csv_next(&c), 0);
    csv_close(&c);
}

static void expect_error(const char *bytes, const char *message)
{
    error_clear();
    assert_int_equal(read_all(bytes, strlen(bytes)), -1);
    assert_int_equal(error_kind(), ERR_FILE);
    assert_string_equal(error_message(), message);
}

static void test_malformed(void **state)
{
    (void)state;
    expect_error("", "f.csv: is empty: a header line with field names was expected");
    expect_error("\n\r\n", "f.csv: is empty: a header line with field names was expected");
    expect_error("a,b\n1\n", "f.csv:2: 1 fields where the header has 2");
    expect_error("a,b\n1,2\n1,2,3\n", "f.csv:3: 3 fields where the header has 2");
    expect_error("a,b,a\n", "f.csv:1: the field name \"a\" occurs twice");
    expect_error("a,b\n\"x\ny\",\xc3\n", "f.csv:3: holds bytes that are no UTF-8");
    expect_error("a\n1\n\"x\n\n", "f.csv:3: a quoted field begins here and does not end");
    expect_error("a\n\"x\n\"y\n", "f.csv:3: text behind the closing quote of a field");
    expect_error(
        "a\nx\"y\"\n",
        "f.csv:2: a quote inside an unquoted field: quote the field and double its quotes");
}

static void test_too_many_columns(void **state)
{
    (void)state;
    char commas[5000];
    memset(commas, ',', sizeof commas);
    error_clear();
    assert_int_equal(read_all(commas, sizeof commas), -1);
    assert_string_equal(error_message(), "f.csv:1: more than 4096 fields");
}

/* Bytes at the edge of their allocation: a read beyond them is seen by the address sanitizer. */
static void test_every_prefix_and_byte_ends(void **state)
{
    (void)state;
    const char text[] = "a,\"b\"\r\n1,\"2\"\"\n\"\r\nx,\r\n";
    for (size_t n = 0; n < sizeof text; n++)
        for (int change = 0; change < 5; change++) {
            char *copy = malloc(n + 1);
            assert_non_null(copy);
            memcpy(copy, text, n);
            if (n && change)
                copy[n / 2] = "\",\n\r"[change - 1];
            copy = realloc(copy, n ? n : 1);
            (void)read_all(copy, n);
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quotes_and_line_breaks),
        cmocka_unit_test(test_lone_carriage_return_is_text),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_too_many_columns),
        cmocka_unit_test(test_every_prefix_and_byte_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
