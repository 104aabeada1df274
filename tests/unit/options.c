/* Tests of src/options.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "error.h"
#include "options.h"
#include "settings.h"

enum { ARGS_MAX = 12 };

static int parse(struct options *o, const char *const *arguments)
{
    char *argv[ARGS_MAX + 2] = {(char *)"rlhf-hpc"};
    int argc = 1;
    for (; arguments[argc - 1]; argc++)
        argv[argc] = (char *)arguments[argc - 1];
    error_clear();
    return options_parse(o, argc, argv);
}
#define PARSE(o, ...) parse(o, (const char *const[]){__VA_ARGS__, NULL})

static void test_all_options(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(PARSE(&o, "-s", "a=1", "in.cfg", "--set=b=2", "-pr", "--set", "c=x=y"), 0);
    assert_string_equal(o.input, "in.cfg");
    assert_int_equal(o.n_set, 3);
    assert_string_equal(o.set[0], "a=1");
    assert_string_equal(o.set[1], "b=2");
    assert_string_equal(o.set[2], "c=x=y");
    assert_true(o.plan && o.resume && !o.bench && !o.help && !o.version);
    options_free(&o);
    options_free(&o);
    assert_int_equal(PARSE(&o, "--bench", "--", "-odd.cfg"), 0);
    assert_true(o.bench);
    assert_string_equal(o.input, "-odd.cfg");
    options_free(&o);
    assert_int_equal(PARSE(&o, "--report", "run1", "run2", "run3"), 0);
    assert_null(o.input);
    assert_int_equal(o.n_report, 3);
    assert_string_equal(o.report[2], "run3");
    options_free(&o);
}

static void test_help_and_version_need_no_input(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(PARSE(&o, "-h"), 0);
    assert_true(o.help);
    options_free(&o);
    assert_int_equal(PARSE(&o, "--version", "a", "b"), 0);
    assert_true(o.version);
    options_free(&o);
}

static void test_bad_usage(void **state)
{
    (void)state;
    static const struct {
        const char *argument[4], *message;
    } cases[] = {
        {{NULL}, "no input.cfg given (see --help)"},
        {{"a", "b"}, "one input.cfg at a time: \"a\" and \"b\" were given"},
        {{"a", "ppo.gamma=1"},
         "one input.cfg at a time: \"a\" and \"ppo.gamma=1\" were given (settings go behind "
         "--set)"},
        {{"--plam", "a"}, "unknown option --plam; did you mean --plan?"},
        {{"a", "--resum3"}, "unknown option --resum3; did you mean --resume?"},
        {{"a", "--batch_size=3"}, "unknown option --batch_size (see --help)"},
        {{"--res", "--re", "a"}, "option --re is ambiguous (see --help)"},
        {{"--plan=yes", "a"}, "option --plan takes no value"},
        {{"-x", "a"}, "unknown option -x (see --help)"},
        {{"a", "-px"}, "unknown option -x (see --help)"},
        {{"a", "-xp"}, "unknown option -x (see --help)"},
        {{"a", "--set"}, "option --set needs KEY=VALUE, as in --set ppo.batch_size=64"},
        {{"a", "-s"}, "option -s needs KEY=VALUE, as in --set ppo.batch_size=64"},
        {{"a", "-s", "ppo.gamma"},
         "--set ppo.gamma: must be KEY=VALUE, as in --set ppo.batch_size=64"},
        {{"a", "-s", "=1"}, "--set =1: must be KEY=VALUE, as in --set ppo.batch_size=64"},
        {{"--report"}, "--report needs the folder of a run, or of several"},
        {{"--report", "a", "--plan"}, "--report reads finished runs: it goes with no other option"},
        {{"-r", "--bench", "a"}, "--resume and --bench exclude each other"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct options o;
        assert_int_equal(PARSE(&o, cases[i].argument[0], cases[i].argument[1], cases[i].argument[2],
                               cases[i].argument[3]),
                         -1);
        assert_int_equal(error_exit_code(), 2);
        assert_string_equal(error_message(), cases[i].message);
        options_free(&o);
    }
}

static void test_help_lists_options_and_tasks(void **state)
{
    (void)state;
    struct text help = {0};
    options_help(&help);
    for (int i = 0; settings_task_names[i]; i++)
        assert_non_null(strstr(help.bytes, settings_task_names[i]));
    const char *options[] = {"--set",   "--plan", "--resume", "--report",
                             "--bench", "--help", "--version"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        assert_non_null(strstr(help.bytes, options[i]));
    text_free(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_options),
        cmocka_unit_test(test_help_and_version_need_no_input),
        cmocka_unit_test(test_bad_usage),
        cmocka_unit_test(test_help_lists_options_and_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
