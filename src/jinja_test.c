/* Tests, as in "x is defined": jinja2/tests.py. */
#include "jinja_tree.h"

#include <string.h>

#include "error.h"

static int test_boolean(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_BOOL);
    return 0;
}

static int test_callable(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_FUNCTION || v->kind == JINJA_METHOD || v->kind == JINJA_MACRO);
    return 0;
}

static int test_defined(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind != JINJA_UNDEFINED);
    return 0;
}

static int test_undefined(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_UNDEFINED);
    return 0;
}

static int test_none(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_NONE);
    return 0;
}

static int test_true(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_BOOL && v->truth);
    return 0;
}

static int test_false(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_BOOL && !v->truth);
    return 0;
}

static int test_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_STRING);
    return 0;
}

static int test_number(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(jinja_is_number(v));
    return 0;
}

static int test_integer(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_INT);
    return 0;
}

static int test_float(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_FLOAT);
    return 0;
}

static int test_mapping(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_DICT);
    return 0;
}

/* Sequences too: whatever has a length and items, and what is undefined. */
static int test_iterable(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = jinja_bool(v->kind == JINJA_UNDEFINED || (v->kind >= JINJA_STRING && v->kind <= JINJA_DICT));
    return 0;
}

static int test_in(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    *out = jinja_bool(false);
    return jinja_contains(r, &out->truth, &a->value[0], v);
}

static int test_sameas(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    *out = jinja_bool(false);
    if (v->kind != JINJA_BOOL && v->kind != JINJA_NONE)
        return jinja_fail(r, "the test \"sameas\" of a %s is not supported", jinja_kind_name(v));
    return v->kind == a->value[0].kind ? jinja_equal(r, &out->truth, v, &a->value[0]) : 0;
}

static int divides(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *by, int64_t rest)
{
    const struct jinja_value number = *v;
    struct jinja_value is;
    const struct jinja_value expected = jinja_int(rest);
    TRY(jinja_binary(r, &is, "%", &number, by));
    *out = jinja_bool(false);
    return jinja_equal(r, &out->truth, &is, &expected);
}

static int test_divisibleby(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return divides(r, out, v, &a->value[0], 0);
}

static int test_even(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value two = jinja_int(2);
    (void)a;
    return divides(r, out, v, &two, 0);
}

static int test_odd(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value two = jinja_int(2);
    (void)a;
    return divides(r, out, v, &two, 1);
}

static int test_eq(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    *out = jinja_bool(false);
    return jinja_equal(r, &out->truth, v, &a->value[0]);
}

static int test_ne(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    TRY(test_eq(r, out, v, a));
    out->truth = !out->truth;
    return 0;
}

/* order * sign > 0, or 0 with equal. */
static int ordered(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a, int sign,
                   bool equal)
{
    int order;
    TRY(jinja_compare(r, &order, v, &a->value[0]));
    *out = jinja_bool(order == 0 ? equal : (order > 0) == (sign > 0));
    return 0;
}

static int test_lt(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return ordered(r, out, v, a, -1, false);
}

static int test_le(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return ordered(r, out, v, a, -1, true);
}

static int test_gt(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return ordered(r, out, v, a, 1, false);
}

static int test_ge(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return ordered(r, out, v, a, 1, true);
}

const struct jinja_callable *jinja_test_find(const char *name)
{
    static const struct jinja_callable tests[] = {
        {"!=", test_ne, 1, 1, {0}},
        {"<", test_lt, 1, 1, {0}},
        {"<=", test_le, 1, 1, {0}},
        {"==", test_eq, 1, 1, {0}},
        {">", test_gt, 1, 1, {0}},
        {">=", test_ge, 1, 1, {0}},
        {"boolean", test_boolean, 0, 0, {0}},
        {"callable", test_callable, 0, 0, {0}},
        {"defined", test_defined, 0, 0, {0}},
        {"divisibleby", test_divisibleby, 1, 1, {"num"}},
        {"eq", test_eq, 1, 1, {0}},
        {"equalto", test_eq, 1, 1, {0}},
        {"even", test_even, 0, 0, {0}},
        {"false", test_false, 0, 0, {0}},
        {"float", test_float, 0, 0, {0}},
        {"ge", test_ge, 1, 1, {0}},
        {"gt", test_gt, 1, 1, {0}},
        {"greaterthan", test_gt, 1, 1, {0}},
        {"in", test_in, 1, 1, {"seq"}},
        {"integer", test_integer, 0, 0, {0}},
        {"iterable", test_iterable, 0, 0, {0}},
        {"le", test_le, 1, 1, {0}},
        {"lessthan", test_lt, 1, 1, {0}},
        {"lt", test_lt, 1, 1, {0}},
        {"mapping", test_mapping, 0, 0, {0}},
        {"ne", test_ne, 1, 1, {0}},
        {"none", test_none, 0, 0, {0}},
        {"number", test_number, 0, 0, {0}},
        {"odd", test_odd, 0, 0, {0}},
        {"sameas", test_sameas, 1, 1, {"other"}},
        {"sequence", test_iterable, 0, 0, {0}},
        {"string", test_string, 0, 0, {0}},
        {"true", test_true, 0, 0, {0}},
        {"undefined", test_undefined, 0, 0, {0}},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(tests[i].name, name))
            return &tests[i];
    return NULL;
}
