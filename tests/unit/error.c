/* Tests of src/error.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "error.h"

static void test_messages_of_files_are_one_printable_line(void **state)
{
    (void)state;
    assert_int_equal(error_set(ERR_FILE, "token \"%s\"", "a\n\x1b[2Jb\x7f\t\xc3\xa9"), -1);
    assert_string_equal(error_message(), "token \"a??[2Jb??\xc3\xa9\"");
    error_context("%s", "folder\r/x");
    assert_string_equal(error_message(), "folder?/x: token \"a??[2Jb??\xc3\xa9\"");
    assert_int_equal(error_exit_code(), 1);
}

static void test_reports_on_settings_keep_their_lines(void **state)
{
    (void)state;
    error_set(ERR_INPUT, "a:1: one\na:2: \"\x01\"");
    assert_string_equal(error_message(), "a:1: one\na:2: \"?\"");
    assert_int_equal(error_exit_code(), 2);
}

static void test_longest_message_is_cut(void **state)
{
    (void)state;
    char name[20000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    error_set(ERR_FILE, "%s", name);
    const size_t n = strlen(error_message());
    assert_true(n > 1000 && n < sizeof name);
    error_context("%s", name);
    assert_int_equal(strlen(error_message()), n);
    error_clear();
    assert_string_equal(error_message(), "");
    assert_int_equal(error_exit_code(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_of_files_are_one_printable_line),
        cmocka_unit_test(test_reports_on_settings_keep_their_lines),
        cmocka_unit_test(test_longest_message_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
