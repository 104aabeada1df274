/* Filters of lists and dicts: jinja2/filters.py. */
#include "jinja_tree.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

static int filter_list(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    *out = (struct jinja_value){.kind = JINJA_LIST};
    return jinja_items(r, &out->list, v);
}

static int filter_items(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    if (v->kind == JINJA_UNDEFINED)
        return jinja_list_new(r, out, JINJA_LIST, 0);
    return v->kind == JINJA_DICT ? jinja_pairs(r, out, v) : jinja_fail(r, "items of a %s", jinja_kind_name(v));
}

static int end_item(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, bool last)
{
    struct jinja_list *items;
    TRY(jinja_items(r, &items, v));
    *out = items->n ? items->item[last ? items->n - 1 : 0] : jinja_undefined("an item of an empty list");
    return 0;
}

static int filter_first(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return end_item(r, out, v, false);
}

static int filter_last(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return end_item(r, out, v, true);
}

static int filter_reverse(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    (void)a;
    if (v->kind == JINJA_STRING)
        return jinja_fail(r, "reverse of a str is not supported");
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, out, JINJA_LIST, items->n));
    for (size_t i = items->n; i-- > 0;)
        TRY(jinja_list_add(r, out->list, items->item[i]));
    return 0;
}

/* The field "a.b.0" of a value; without one the value. */
static int attribute_of(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *path)
{
    struct jinja_value key;
    *out = *v;
    if (path->kind == JINJA_UNDEFINED || path->kind == JINJA_NONE)
        return 0;
    if (path->kind == JINJA_INT)
        return jinja_index(r, out, v, path);
    if (path->kind != JINJA_STRING)
        return jinja_fail(r, "an attribute that is a %s", jinja_kind_name(path));
    for (size_t at = 0, to; at <= path->text.n; at = to + 1) {
        const char *dot = at < path->text.n ? memchr(path->text.bytes + at, '.', path->text.n - at) : NULL;
        to = dot ? (size_t)(dot - path->text.bytes) : path->text.n;
        key = jinja_borrow(path->text.bytes + at, to - at);
        const struct jinja_value from = *out;
        TRY(jinja_index(r, out, &from, &key));
    }
    return 0;
}

static int filter_join(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    struct jinja_value item;
    struct text joined = {0};
    int rc = 0;
    TRY(jinja_items(r, &items, v));
    for (size_t i = 0; !rc && i < items->n; i++) {
        rc = i ? jinja_str(r, &joined, &a->value[0]) : 0;
        if (!rc)
            rc = attribute_of(r, &item, &items->item[i], &a->value[1]);
        if (!rc)
            rc = jinja_str(r, &joined, &item);
    }
    if (!rc)
        rc = jinja_string(r, out, text_string(&joined), joined.n);
    text_free(&joined);
    return rc;
}

/* ---- map, select ---- */

/* The filter or test that an argument names. */
static int named(struct jinja_run *r, const struct jinja_callable **out, const struct jinja_value *name, bool test)
{
    struct jinja_value copy;
    if (name->kind != JINJA_STRING)
        return jinja_fail(r, "the name of a %s is a %s", test ? "test" : "filter", jinja_kind_name(name));
    TRY(jinja_string(r, &copy, name->text.bytes, name->text.n));
    *out = test ? jinja_test_find(copy.text.bytes) : jinja_filter_find(copy.text.bytes);
    return *out ? 0 : jinja_fail(r, "the %s \"%.40s\" is not supported", test ? "test" : "filter", copy.text.bytes);
}

static struct jinja_args behind(const struct jinja_args *a, size_t n)
{
    return a->n > n ? (struct jinja_args){a->value + n, a->keyword + n, a->n - n} : (struct jinja_args){0};
}

/* map("filter", ..) or map(attribute = "a.b", default = ..). */
static int filter_map(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_callable *filter = NULL;
    struct jinja_value path = jinja_none(), otherwise = jinja_undefined(NULL), item;
    const struct jinja_args rest = behind(a, 1);
    struct jinja_list *items;
    if (a->n && !a->keyword[0])
        TRY(named(r, &filter, &a->value[0], false));
    for (size_t i = 0; !filter && i < a->n; i++) {
        if (strcmp(a->keyword[i], "attribute") != 0 && strcmp(a->keyword[i], "default") != 0)
            return jinja_fail(r, "map does not take \"%.40s\"", a->keyword[i]);
        *(a->keyword[i][0] == 'a' ? &path : &otherwise) = a->value[i];
    }
    if (!filter && path.kind == JINJA_NONE)
        return jinja_fail(r, "map needs a filter or an attribute");
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, out, JINJA_LIST, items->n));
    for (size_t i = 0; i < items->n; i++) {
        TRY(filter ? jinja_apply(r, &item, filter, &items->item[i], &rest) : attribute_of(r, &item, &items->item[i], &path));
        TRY(jinja_list_add(r, out->list, !filter && item.kind == JINJA_UNDEFINED ? otherwise : item));
    }
    return 0;
}

/* Items that a test takes (without a test: that are true), or does not; with_attribute: tested is a field of theirs. */
static int choose(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a,
                  bool with_attribute, bool wanted)
{
    const struct jinja_callable *test = NULL;
    const size_t at = with_attribute;
    const struct jinja_args rest = behind(a, at + 1);
    struct jinja_value item, truth;
    struct jinja_list *items;
    if (with_attribute && !a->n)
        return jinja_fail(r, "selectattr needs an attribute");
    if (a->n > at)
        TRY(named(r, &test, &a->value[at], true));
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    for (size_t i = 0; i < items->n; i++) {
        item = items->item[i];
        if (with_attribute)
            TRY(attribute_of(r, &item, &items->item[i], &a->value[0]));
        truth = item;
        if (test)
            TRY(jinja_apply(r, &truth, test, &item, &rest));
        if (jinja_truth(&truth) == wanted)
            TRY(jinja_list_add(r, out->list, items->item[i]));
    }
    return 0;
}

static int filter_select(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return choose(r, out, v, a, false, true);
}

static int filter_reject(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return choose(r, out, v, a, false, false);
}

static int filter_selectattr(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return choose(r, out, v, a, true, true);
}

static int filter_rejectattr(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return choose(r, out, v, a, true, false);
}

/* ---- order ---- */

/* What items are ordered by: strings without their case unless it counts. */
static int sort_key(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, bool with_case)
{
    *out = *v;
    return v->kind == JINJA_STRING && !with_case ? jinja_change_case(r, out, v, CASE_LOWER) : 0;
}

/* Stable insertion of item i among those before it. */
static int insert(struct jinja_run *r, struct jinja_value *key, struct jinja_value *item, size_t i, bool reverse)
{
    const struct jinja_value this_key = key[i], this_item = item[i];
    int order = 0;
    size_t at = i;
    for (; at > 0; at--) {
        TRY(jinja_work(r, 1));
        TRY(jinja_compare(r, &order, &key[at - 1], &this_key));
        if (reverse ? order >= 0 : order <= 0)
            break;
        key[at] = key[at - 1];
        item[at] = item[at - 1];
    }
    key[at] = this_key;
    item[at] = this_item;
    return 0;
}

static int sort_items(struct jinja_run *r, struct jinja_list *list, const struct jinja_value *path, bool with_case, bool reverse)
{
    struct jinja_value *key, field;
    if (!list->n)
        return 0;
    TRY(jinja_take(r, &key, list->n * sizeof *key));
    for (size_t i = 0; i < list->n; i++) {
        TRY(attribute_of(r, &field, &list->item[i], path));
        TRY(sort_key(r, &key[i], &field, with_case));
        TRY(insert(r, key, list->item, i, reverse));
    }
    return 0;
}

static int filter_sort(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, out, JINJA_LIST, items->n));
    for (size_t i = 0; i < items->n; i++)
        TRY(jinja_list_add(r, out->list, items->item[i]));
    return sort_items(r, out->list, &a->value[2], jinja_truth(&a->value[1]), jinja_truth(&a->value[0]));
}

/* (key, value), by key or value. */
static int filter_dictsort(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *by = &a->value[1];
    const struct jinja_value at = jinja_int(jinja_is(by, "value"));
    if (v->kind != JINJA_DICT)
        return jinja_fail(r, "dictsort of a %s", jinja_kind_name(v));
    if (by->kind != JINJA_UNDEFINED && !jinja_is(by, "value") && !jinja_is(by, "key"))
        return jinja_fail(r, "dictsort by something but \"key\" or \"value\"");
    TRY(jinja_pairs(r, out, v));
    return sort_items(r, out->list, &at, jinja_truth(&a->value[0]), jinja_truth(&a->value[2]));
}

static int filter_unique(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    struct jinja_value keys, field, key;
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    TRY(jinja_list_new(r, &keys, JINJA_LIST, 0));
    for (size_t i = 0; i < items->n; i++) {
        bool known;
        TRY(attribute_of(r, &field, &items->item[i], &a->value[1]));
        TRY(sort_key(r, &key, &field, jinja_truth(&a->value[0])));
        TRY(jinja_contains(r, &known, &keys, &key));
        if (known)
            continue;
        TRY(jinja_list_add(r, keys.list, key));
        TRY(jinja_list_add(r, out->list, items->item[i]));
    }
    return 0;
}

static int extreme(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, int sign)
{
    struct jinja_list *items;
    struct jinja_value best, key;
    int order;
    TRY(jinja_items(r, &items, v));
    *out = jinja_undefined("an item of an empty list");
    for (size_t i = 0; i < items->n; i++) {
        TRY(sort_key(r, &key, &items->item[i], false));
        order = sign;
        if (i)
            TRY(jinja_compare(r, &order, &key, &best));
        if (order * sign <= 0 && i)
            continue;
        best = key;
        *out = items->item[i];
    }
    return 0;
}

static int filter_max(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return extreme(r, out, v, 1);
}

static int filter_min(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return extreme(r, out, v, -1);
}

static int filter_sum(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    struct jinja_value item, sum = a->value[1].kind == JINJA_UNDEFINED ? jinja_int(0) : a->value[1];
    TRY(jinja_items(r, &items, v));
    for (size_t i = 0; i < items->n; i++) {
        const struct jinja_value before = sum;
        TRY(attribute_of(r, &item, &items->item[i], &a->value[0]));
        TRY(jinja_binary(r, &sum, "+", &before, &item));
    }
    *out = sum;
    return 0;
}

const struct jinja_callable *jinja_list_filter_find(const char *name)
{
    static const struct jinja_callable filters[] = {
        {"dictsort", filter_dictsort, 0, 3, {"case_sensitive", "by", "reverse"}},
        {"first", filter_first, 0, 0, {0}},
        {"items", filter_items, 0, 0, {0}},
        {"join", filter_join, 0, 2, {"d", "attribute"}},
        {"last", filter_last, 0, 0, {0}},
        {"list", filter_list, 0, 0, {0}},
        {"map", filter_map, 0, -1, {0}},
        {"max", filter_max, 0, 0, {0}},
        {"min", filter_min, 0, 0, {0}},
        {"reject", filter_reject, 0, -1, {0}},
        {"rejectattr", filter_rejectattr, 0, -1, {0}},
        {"reverse", filter_reverse, 0, 0, {0}},
        {"select", filter_select, 0, -1, {0}},
        {"selectattr", filter_selectattr, 0, -1, {0}},
        {"sort", filter_sort, 0, 3, {"reverse", "case_sensitive", "attribute"}},
        {"sum", filter_sum, 0, 2, {"attribute", "start"}},
        {"unique", filter_unique, 0, 2, {"case_sensitive", "attribute"}},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name))
            return &filters[i];
    return NULL;
}
