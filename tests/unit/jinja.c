/* Tests of src/jinja.h: what transformers' Jinja gives (tests/reference/jinja.jsonl), what is refused and how, the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "file.h"
#include "jinja.h"
#include "jsonl.h"

/* Renders into *out, emptied first; 0 or -1. */
static int render(struct text *out, const char *source, size_t n, const json_t *variables)
{
    text_clear(out);
    error_clear();
    struct jinja *j = jinja_parse("t", source, n);
    const int rc = j ? jinja_render(j, out, variables, 0) : -1;
    jinja_free(j);
    return rc;
}

/* One line that begins with the template's name. */
static void check_message(const char *source)
{
    const char *message = error_message();
    if (strncmp(message, "t:", 2) != 0 || strchr(message, '\n') || error_kind() != ERR_FILE)
        fail_msg("%s: \"%s\"", source, message);
}

static void test_recorded(void **state)
{
    (void)state;
    const char *folder = getenv("srcdir") ? getenv("srcdir") : ".";
    struct text bytes = {0}, is = {0};
    struct jsonl j;
    json_t *row, *variables = NULL;
    int failures = 0, n = 0, more;
    char *path = file_join(folder, "tests/reference/jinja.jsonl");
    assert_int_equal(file_read(&bytes, path), 0);
    jsonl_open(&j, path, bytes.bytes, bytes.n);
    while ((more = jsonl_next(&j, &row)) > 0) {
        const json_t *template = json_object_get(row, "template"), *text = json_object_get(row, "text");
        if (!template) {
            variables = json_incref(json_object_get(row, "variables"));
        } else {
            const int rc = render(&is, json_string_value(template), json_string_length(template), variables);
            n++;
            if (rc)
                check_message(json_string_value(template));
            if (!rc != !!text || (text && (is.n != json_string_length(text) || memcmp(text_string(&is), json_string_value(text), is.n)))) {
                failures++;
                print_error("%s\n  is  %s\n  not %s\n", json_string_value(template), rc ? error_message() : text_string(&is),
                            json_string_value(text ? text : json_object_get(row, "error")));
            }
        }
        json_decref(row);
    }
    assert_int_equal(more, 0);
    assert_true(n > 150);
    json_decref(variables);
    text_free(&bytes);
    text_free(&is);
    free(path);
    assert_int_equal(failures, 0);
}

/* Constructs of Jinja, or of Python, that are not here; malformed ones are in test_recorded too. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *source, *message;
    } cases[] = {
        {"a\n{% include 'x' %}", "t:2: the tag {% include %} is not supported"},
        {"{% import 'x' as y %}", "t:1: the tag {% import %} is not supported"},
        {"{% from 'x' import y %}", "t:1: the tag {% from %} is not supported"},
        {"{% extends 'x' %}", "t:1: the tag {% extends %} is not supported"},
        {"{% block a %}{% endblock %}", "t:1: the tag {% block %} is not supported"},
        {"{% call f() %}{% endcall %}", "t:1: the tag {% call %} is not supported"},
        {"{% filter upper %}{% endfilter %}", "t:1: the tag {% filter %} is not supported"},
        {"{% with a = 1 %}{% endwith %}", "t:1: the tag {% with %} is not supported"},
        {"{% autoescape true %}{% endautoescape %}", "t:1: the tag {% autoescape %} is not supported"},
        {"{% do x %}", "t:1: the tag {% do %} is not supported"},
        {"{% %}", "t:1: %} where the name of a tag was expected"},
        {"{% 5 %}", "t:1: \"5\" where the name of a tag was expected"},
        {"\n{% for a in b recursive %}{% endfor %}", "t:2: \"recursive\" loops are not supported"},
        {"{% set a | upper %}{% endset %}", "t:1: a filter of a {% set %} block is not supported"},
        {"{{ f(*a) }}", "t:1: * and ** in a call are not supported"},
        {"{{ f(**a) }}", "t:1: * and ** in a call are not supported"},
        {"{{ f(a=1, 2) }}", "t:1: an argument without a name behind one with a name"},
        {"{{ a | groupby('x') }}", "t:1: the filter \"groupby\" is not supported"},
        {"{{ a is escaped }}", "t:1: the test \"escaped\" is not supported"},
        {"{{ 'a'.format(1) }}", "t:1: the method \"format\" of str is not supported"},
        {"{{ {}.update({}) }}", "t:1: the method \"update\" of dict is not supported"},
        {"{{ [].append(1) }}", "t:1: the method \"append\" of list is not supported"},
        {"{{ ''.__class__ }}", "t:1: access to \"__class__\" is not allowed"},
        {"{{ '%s' % 1 }}", "t:1: str % int is not supported"},
        {"{{ '\\N{DASH}' }}", "t:1: a string with the escape \\N, which is not supported"},
        {"{{ '\\ud800' }}", "t:1: a string with an escape that is no character"},
        {"{{ '\\x1' }}", "t:1: a string with an unfinished \\x or \\u escape"},
        {"{{ '\\u12", "t:1: a string without its closing quote"},
        {"{{ 99999999999999999999 }}", "t:1: a number that is too large"},
        {"{{ 9223372036854775807 + 1 }}", "t:1: an integer beyond 64 bits"},
        {"{{ 10 ** 30 }}", "t:1: an integer beyond 64 bits"},
        {"{{ 1e999 }}", "t:1: a number that is too large"},
        {"{{ cycler(1) }}", "t:1: \"cycler\" is undefined"},
        {"{{ joiner() }}", "t:1: \"joiner\" is undefined"},
        {"{{ caller() }}", "t:1: \"caller\" is undefined"},
        {"{{ loop.index }}", "t:1: \"loop\" is undefined, so it has no \"index\""},
        {"{% for a in [1] %}{{ loop.parent }}{% endfor %}", "t:1: loop.parent is not supported"},
        {"{% for a in [1] %}{{ loop([2]) }}{% endfor %}", "t:1: a loop cannot be called"},
        {"{{ raise_exception('a\nb') }}", "t:1: the template refuses: a?b"},
        {"x\n\n{{ raise_exception('No ' ~ 'tools') }}", "t:3: the template refuses: No tools"},
        {"{{ strftime_now(1) }}", "t:1: strftime_now of a int"},
        {"{{ '' | tojson(separators=1) }}", "t:1: tojson: separators that are not a pair of str"},
        {"{{ range | tojson }}", "t:1: tojson: function is no JSON"},
        {"{{ range }}", "t:1: a function has no text"},
        {"{{ range(1, 2, 3, 4) }}", "t:1: \"range\" does not take these 4 arguments"},
        {"{{ range(0, 99999999999) }}", "t:1: range with a step of 0 or bounds that are too large"},
        {"{{ 1 | default(2, 3, 4) }}", "t:1: \"default\" does not take these 3 arguments"},
        {"{{ 1 | tojson(nosuch=1) }}", "t:1: \"tojson\" does not take these 1 arguments"},
        {"{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "t:1: the macro m has no parameters for 1 of the arguments"},
        {"{% set a.b = 1 %}", "t:1: {% set a.b %}: a is no namespace"},
        {"{% set n = namespace() %}{% set n._a = 1 %}", "t:1: a field of a namespace may not begin with _: _a"},
        {"{% if a %}\n\n{% for b in c %}", "t:3: the template ends without the {% endfor %} for line 3"},
        {"{% if a %}x", "t:1: the template ends without the {% endif %} for line 1"},
        {"{% endfor %}", "t:1: {% endfor %} ends nothing that is open"},
        {"{% for a in b %}{% endif %}{% endfor %}", "t:1: {% endif %} ends nothing that is open"},
        {"{% break %}", "t:1: {% break %} outside of a loop"},
        {"{% for a in b %}{% macro c() %}{% continue %}{% endmacro %}{% endfor %}", "t:1: {% continue %} outside of a loop"},
        {"{{ a", "t:1: {{ without its }}"},
        {"{% a", "t:1: {% without its %}"},
        {"{# a", "t:1: {# without its #}"},
        {"{% raw %}", "t:1: {% raw %} without its {% endraw %}"},
        {"{{ ) }}", "t:1: a closing bracket that none opened"},
        {"{{ (] }}", "t:1: a closing bracket that none opened"},
        {"{{ a ? b }}", "t:1: a character that means nothing in a tag"},
        {"{{ h\xc3\xa9 }}", "t:1: a character that means nothing in a tag"},
        {"{{ }}", "t:1: }} where an expression was expected"},
        {"{{ a[] }}", "t:1: \"]\" where an index was expected"},
        {"{{ {1} }}", "t:1: \"}\" where \":\" was expected"},
        {"{{ {'a': } }}", "t:1: \"}\" where an expression was expected"},
        {"{{ a.+ }}", "t:1: \"+\" where a name was expected"},
        {"{{ a if }}", "t:1: }} where an expression was expected"},
        {"{{ a not b }}", "t:1: \"not\" where \"}}\" was expected"},
        {"{% set a %}", "t:1: the template ends without the {% endset %} for line 1"},
        {"{% macro m %}{% endmacro %}", "t:1: %} where \"(\" was expected"},
        {"{% macro m(1) %}{% endmacro %}", "t:1: \"1\" where a name was expected"},
        {"{% for 1 in a %}{% endfor %}", "t:1: \"1\" where a name was expected"},
        {"bad \xff byte", "t: not UTF-8 at byte 4"},
    };
    json_t *none = json_object();
    struct text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(render(&out, cases[i].source, strlen(cases[i].source), none), -1);
        if (strcmp(error_message(), cases[i].message) != 0)
            fail_msg("%s: \"%s\" is not \"%s\"", cases[i].source, error_message(), cases[i].message);
        check_message(cases[i].source);
    }
    text_free(&out);
    json_decref(none);
}

/* n times a text between two others. */
static void repeat(struct text *out, const char *begin, const char *part, int n, const char *end)
{
    text_clear(out);
    text_add_string(out, begin);
    while (n--)
        text_add_string(out, part);
    text_add_string(out, end);
}

static void expect_bound(const char *source, const char *message)
{
    struct text out = {0};
    json_t *none = json_object();
    assert_int_equal(render(&out, source, strlen(source), none), -1);
    if (!strstr(error_message(), message))
        fail_msg("%.60s: \"%s\" has no \"%s\"", source, error_message(), message);
    text_free(&out);
    json_decref(none);
}

static void test_bounds(void **state)
{
    (void)state;
    struct text t = {0};
    repeat(&t, "{{ ", "(", 10000, "");
    expect_bound(t.bytes, "brackets nested too deep");
    repeat(&t, "{{ ", "-", 100000, "1 }}");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "{{ ", "not ", 100000, "1 }}");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "{{ 1", " if 1 else 1", 100000, " }}");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "{{ 1", " + 1", 100000, " }}");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "{{ a", "[0]", 100000, " }}");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "", "{% if 1 %}", 100000, "");
    expect_bound(t.bytes, "nested deeper than");
    repeat(&t, "{% if 0 %}", "{% elif 0 %}", 100000, "{% endif %}");
    expect_bound(t.bytes, "nested deeper than");
    text_free(&t);
    expect_bound("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper than");
    expect_bound("{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
                 "nested deeper than");
    expect_bound("{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
                 "nested deeper than");
    expect_bound("{% set n = namespace(x=[], y=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% set n.y = [n.y] %}"
                 "{% endfor %}{{ n.x == n.y }}", "nested deeper than");
    expect_bound("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "");
    expect_bound("{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}", "");
    expect_bound("{{ range(1000000000) | length }}", "MiB");
    expect_bound("{{ 'aaaaaaaa' * 1000000000 }}", "");
    expect_bound("{{ ' ' | indent(2000000000) }}", "");
    expect_bound("{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor %}",
                 "MiB");
    expect_bound("{% set n = namespace(x='a') %}{% for i in range(26) %}{% set n.x = n.x + n.x %}{% endfor %}"
                 "{{ n.x | replace('a', n.x) }}", "MiB");
}

static void test_nul_and_date(void **state)
{
    (void)state;
    struct text out = {0};
    json_t *v = json_pack("{s:s%}", "a", "x\0y", (size_t)3);
    assert_int_equal(render(&out, "[{{ a }}]{{ a | length }}{{ a == 'x' }}{{ a | tojson }}", 55, v), 0);
    assert_int_equal(out.n, 5 + 1 + 5 + 10);
    assert_memory_equal(out.bytes, "[x\0y]3False\"x\\u0000y\"", out.n);
    struct jinja *j = jinja_parse("t", "{{ strftime_now('%d %b %Y') }}", 30);
    setenv("TZ", "UTC", 1);
    text_clear(&out);
    assert_int_equal(jinja_render(j, &out, v, 1721995200), 0);
    assert_string_equal(text_string(&out), "26 Jul 2024");
    jinja_free(j);
    jinja_free(NULL);
    json_decref(v);
    text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nul_and_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
