/* Filters: jinja2/filters.py, and transformers' tojson. */
#include "jinja_tree.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- strings ---- */

/* str(v), unless it is a string already. */
static int as_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v)
{
    struct text text = {0};
    *out = *v;
    if (v->kind == JINJA_STRING)
        return 0;
    int rc = jinja_str(r, &text, v);
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    text_free(&text);
    return rc;
}

static int filter_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return as_string(r, out, v);
}

static int filter_trim(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_value text;
    TRY(as_string(r, &text, v));
    return jinja_strip(r, out, &text, &a->value[0], true, true);
}

static int change_case(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, enum jinja_case how)
{
    struct jinja_value text;
    TRY(as_string(r, &text, v));
    return jinja_change_case(r, out, &text, how);
}

static int filter_lower(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return change_case(r, out, v, CASE_LOWER);
}

static int filter_upper(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return change_case(r, out, v, CASE_UPPER);
}

static int filter_capitalize(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return change_case(r, out, v, CASE_CAPITALIZE);
}

static int filter_replace(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_value text, parts[3];
    const struct jinja_args strings = {parts, a->keyword, 3};
    TRY(as_string(r, &text, v));
    if (text.safe)
        return jinja_fail(r, "replace in a text that is marked as safe is not supported");
    parts[2] = a->value[2];
    for (int i = 0; i < 2; i++)
        TRY(as_string(r, &parts[i], &a->value[i]));
    return jinja_replace(r, out, &text, &strings);
}

static int filter_safe(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    TRY(as_string(r, out, v));
    out->safe = true;
    return 0;
}

static int filter_escape(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_value string;
    struct text text = {0};
    (void)a;
    TRY(as_string(r, &string, v));
    *out = string;
    if (string.safe)
        return 0;
    int rc = jinja_escape(r, &text, string.text.bytes, string.text.n);
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    out->safe = true;
    text_free(&text);
    return rc;
}

/* Every line but the first, and blank ones, behind `width` blanks. */
static int filter_indent(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const bool first = jinja_truth(&a->value[1]), blank = jinja_truth(&a->value[2]);
    const struct jinja_value *width = &a->value[0];
    const int64_t n = width->kind == JINJA_INT ? width->integer : 4;
    struct jinja_value string, spaces = *width, space = jinja_borrow(" ", 1), count = jinja_int(n);
    struct text text = {0};
    int rc = 0;
    TRY(as_string(r, &string, v));
    if (width->kind != JINJA_STRING)
        TRY(jinja_binary(r, &spaces, "*", &space, &count));
    for (size_t at = 0; !rc && at <= string.text.n;) {
        const char *end = at < string.text.n ? memchr(string.text.bytes + at, '\n', string.text.n - at) : NULL;
        const size_t to = end ? (size_t)(end - string.text.bytes) : string.text.n;
        if (at ? blank || to > at : first)
            rc = jinja_put(r, &text, spaces.text.bytes, spaces.text.n);
        if (!rc)
            rc = jinja_put(r, &text, string.text.bytes + at, to - at + (end != NULL));
        at = to + 1;
    }
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    text_free(&text);
    return rc;
}

/* ---- JSON ---- */

static int json_indent(struct jinja_run *r, struct jinja_json *how, const struct jinja_value *v)
{
    const struct jinja_value space = jinja_borrow(" ", 1);
    struct jinja_value spaces = *v;
    if (v->kind == JINJA_UNDEFINED || v->kind == JINJA_NONE)
        return 0;
    if (v->kind != JINJA_STRING)
        TRY(jinja_binary(r, &spaces, "*", &space, v));
    how->indent = spaces.text.bytes;
    how->n_indent = spaces.text.n;
    return 0;
}

static int json_separators(struct jinja_run *r, struct jinja_json *how, const struct jinja_value *v)
{
    struct jinja_value copy[2];
    if (v->kind == JINJA_UNDEFINED || v->kind == JINJA_NONE)
        return 0;
    if ((v->kind != JINJA_TUPLE && v->kind != JINJA_LIST) || v->list->n != 2 || v->list->item[0].kind != JINJA_STRING ||
        v->list->item[1].kind != JINJA_STRING)
        return jinja_fail(r, "tojson: separators that are not a pair of str");
    for (int i = 0; i < 2; i++) /* with a NUL behind them */
        TRY(jinja_string(r, &copy[i], v->list->item[i].text.bytes, v->list->item[i].text.n));
    how->item = copy[0].text.bytes;
    how->key = copy[1].text.bytes;
    return 0;
}

static int filter_tojson(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct text text = {0};
    struct jinja_json how = {.ascii = jinja_truth(&a->value[0]), .sort_keys = jinja_truth(&a->value[3])};
    TRY(json_indent(r, &how, &a->value[1]));
    TRY(json_separators(r, &how, &a->value[2]));
    int rc = jinja_to_json(r, &text, v, &how);
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    text_free(&text);
    return rc;
}

/* ---- numbers ---- */

static int filter_int(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    char *end = NULL;
    struct jinja_value text;
    *out = a->value[0].kind == JINJA_UNDEFINED ? jinja_int(0) : a->value[0];
    if (v->kind == JINJA_UNDEFINED)
        return jinja_fail(r, "\"%.80s\" is undefined", v->name ? v->name : "a value");
    if (v->kind == JINJA_BOOL || v->kind == JINJA_INT)
        *out = jinja_int(jinja_integer(v));
    else if (v->kind == JINJA_FLOAT && fabs(v->real) < 9e18)
        *out = jinja_int((int64_t)v->real);
    if (v->kind != JINJA_STRING)
        return 0;
    const struct jinja_value white = jinja_none();
    TRY(jinja_strip(r, &text, v, &white, true, true));
    TRY(jinja_string(r, &text, text.text.bytes, text.text.n));
    const double real = strtod(text.text.bytes, &end);
    const bool whole = text.text.n && end == text.text.bytes + text.text.n;
    if (whole && fabs(real) < 9e18)
        *out = jinja_int(strpbrk(text.text.bytes, ".eE") ? (int64_t)real : strtoll(text.text.bytes, NULL, 10));
    return 0;
}

static int filter_float(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    char *end = NULL;
    struct jinja_value text;
    *out = a->value[0].kind == JINJA_UNDEFINED ? (struct jinja_value){.kind = JINJA_FLOAT} : a->value[0];
    if (jinja_is_number(v))
        *out = (struct jinja_value){.kind = JINJA_FLOAT, .real = jinja_real(v)};
    if (v->kind != JINJA_STRING || !v->text.n)
        return 0;
    TRY(jinja_string(r, &text, v->text.bytes, v->text.n));
    const double real = strtod(text.text.bytes, &end);
    if (end == text.text.bytes + text.text.n)
        *out = (struct jinja_value){.kind = JINJA_FLOAT, .real = real};
    return 0;
}

static int filter_abs(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value zero = jinja_int(0);
    (void)a;
    *out = *v;
    if (!jinja_is_number(v))
        return jinja_fail(r, "abs of a %s", jinja_kind_name(v));
    return jinja_real(v) < 0 ? jinja_binary(r, out, "-", &zero, v) : 0;
}

/* ---- all values ---- */

static int filter_default(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r;
    const bool absent = v->kind == JINJA_UNDEFINED || (jinja_truth(&a->value[1]) && !jinja_truth(v));
    *out = !absent                                                      ? *v
           : a->value[0].kind == JINJA_UNDEFINED && !a->value[0].name ? jinja_borrow("", 0)
                                                                        : a->value[0];
    return 0;
}

static int filter_length(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    (void)a;
    if (v->kind == JINJA_STRING) {
        TRY(jinja_work(r, v->text.n / 256));
        *out = jinja_int((int64_t)jinja_characters(v));
        return 0;
    }
    TRY(jinja_items(r, &items, v));
    *out = jinja_int((int64_t)items->n);
    return 0;
}

const struct jinja_callable *jinja_filter_find(const char *name)
{
    static const struct jinja_callable filters[] = {
        {"abs", filter_abs, 0, 0, {0}},
        {"capitalize", filter_capitalize, 0, 0, {0}},
        {"count", filter_length, 0, 0, {0}},
        {"d", filter_default, 0, 2, {"default_value", "boolean"}},
        {"default", filter_default, 0, 2, {"default_value", "boolean"}},
        {"e", filter_escape, 0, 0, {0}},
        {"escape", filter_escape, 0, 0, {0}},
        {"float", filter_float, 0, 1, {"default"}},
        {"indent", filter_indent, 0, 3, {"width", "first", "blank"}},
        {"int", filter_int, 0, 1, {"default"}},
        {"length", filter_length, 0, 0, {0}},
        {"lower", filter_lower, 0, 0, {0}},
        {"replace", filter_replace, 2, 3, {"old", "new", "count"}},
        {"safe", filter_safe, 0, 0, {0}},
        {"string", filter_string, 0, 0, {0}},
        {"tojson", filter_tojson, 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
        {"trim", filter_trim, 0, 1, {"chars"}},
        {"upper", filter_upper, 0, 0, {0}},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name))
            return &filters[i];
    return jinja_list_filter_find(name);
}
