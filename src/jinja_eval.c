/* Expressions at work: the tree's nodes, slices, calls. */
#include "error.h"
#include "jinja_tree.h"

#include <string.h>

/* ---- comparisons ---- */

static int compare(struct jinja_run *r, bool *holds, const char *operator, const struct jinja_value *a, const struct jinja_value *b)
{
    int order;
    if (operator[0] == 'i' || operator[0] == 'n') { /* in, not in */
        TRY(jinja_contains(r, holds, b, a));
        *holds = *holds == (operator[0] == 'i');
        return 0;
    }
    if (operator[0] == '=' || operator[0] == '!') {
        TRY(jinja_equal(r, holds, a, b));
        *holds = *holds == (operator[0] == '=');
        return 0;
    }
    TRY(jinja_compare(r, &order, a, b));
    *holds = (operator[0] == '<' && order < 0) || (operator[0] == '>' && order > 0) || (operator[1] == '=' && order == 0);
    return 0;
}

/* a < b <= c: each side once, the first that does not hold ends it. */
static int eval_compare(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value left, right;
    bool holds = true;
    TRY(jinja_eval(r, &left, n->a, s));
    for (const struct jinja_node *side = n->items; holds && side; side = side->next) {
        TRY(jinja_eval(r, &right, side->b, s));
        r->line = n->line;
        TRY(compare(r, &holds, side->name, &left, &right));
        left = right;
    }
    *out = jinja_bool(holds);
    return 0;
}

/* ---- slices ---- */

/* A bound of a slice with n items; at: where a missing one lies. */
static int slice_bound(struct jinja_run *r, int64_t *out, const struct jinja_node *n, const struct jinja_scope *s, int64_t length,
                       int64_t missing, int64_t step)
{
    struct jinja_value v = jinja_none();
    const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
    if (n)
        TRY(jinja_eval(r, &v, n, s));
    if (v.kind != JINJA_NONE && v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        return jinja_fail(r, "a slice with a %s", jinja_kind_name(&v));
    *out = missing;
    if (v.kind == JINJA_NONE)
        return 0;
    *out = jinja_integer(&v);
    *out += *out < 0 ? length : 0;
    *out = *out < low ? low : *out > high ? high : *out;
    return 0;
}

static int take_slice(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, int64_t from, int64_t to,
                      int64_t step)
{
    struct jinja_list *items;
    struct jinja_value list;
    if (v->kind == JINJA_STRING && step == 1) {
        const size_t begin = jinja_offset(v, (size_t)from), end = jinja_offset(v, (size_t)to);
        *out = jinja_borrow(v->text.bytes + begin, end > begin ? end - begin : 0);
        return 0;
    }
    TRY(jinja_items(r, &items, v));
    TRY(jinja_list_new(r, &list, v->kind == JINJA_TUPLE ? JINJA_TUPLE : JINJA_LIST, 0));
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step)
        TRY(jinja_list_add(r, list.list, items->item[i]));
    *out = list;
    if (v->kind != JINJA_STRING)
        return 0;
    struct text joined = {0};
    int rc = 0;
    for (size_t i = 0; !rc && i < list.list->n; i++)
        rc = jinja_str(r, &joined, &list.list->item[i]);
    if (!rc)
        rc = jinja_string(r, out, text_string(&joined), joined.n);
    text_free(&joined);
    return rc;
}

static int eval_slice(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_node *n,
                      const struct jinja_scope *s)
{
    int64_t step = 1, from, to;
    if (v->kind != JINJA_STRING && v->kind != JINJA_LIST && v->kind != JINJA_TUPLE)
        return jinja_fail(r, "a slice of a %s", jinja_kind_name(v));
    const int64_t length = (int64_t)(v->kind == JINJA_STRING ? jinja_characters(v) : v->list->n);
    TRY(jinja_work(r, (size_t)length / 256));
    if (n->c) {
        struct jinja_value given;
        TRY(jinja_eval(r, &given, n->c, s));
        if (given.kind != JINJA_INT || given.integer == 0 || given.integer > INT32_MAX || given.integer < -INT32_MAX)
            return jinja_fail(r, "a slice whose step is no whole number but 0");
        step = given.integer;
    }
    TRY(slice_bound(r, &from, n->a, s, length, step < 0 ? length - 1 : 0, step));
    TRY(slice_bound(r, &to, n->b, s, length, step < 0 ? -1 : length, step));
    return take_slice(r, out, v, from, to, step);
}

/* ---- calls ---- */

static int eval_arguments(struct jinja_run *r, struct jinja_args *a, const struct jinja_node *items, const struct jinja_scope *s)
{
    size_t n = 0;
    for (const struct jinja_node *i = items; i; i = i->next)
        n++;
    *a = (struct jinja_args){.n = n};
    if (!n)
        return 0;
    TRY(jinja_take(r, &a->value, n * sizeof *a->value));
    TRY(jinja_take(r, &a->keyword, n * sizeof *a->keyword));
    n = 0;
    for (const struct jinja_node *i = items; i; i = i->next, n++) {
        a->keyword[n] = i->name;
        TRY(jinja_eval(r, &a->value[n], i->a, s));
    }
    return 0;
}

enum { PARAMETERS_MAX = 5 };

int jinja_apply(struct jinja_run *r, struct jinja_value *out, const struct jinja_callable *c, const struct jinja_value *self,
                const struct jinja_args *a)
{
    struct jinja_value value[PARAMETERS_MAX];
    const char *keyword[PARAMETERS_MAX] = {0};
    size_t given = 0;
    if (c->max < 0)
        return c->call(r, out, self, a);
    for (int i = 0; i < c->max; i++) {
        value[i] = jinja_undefined(NULL);
        for (size_t k = 0; k < a->n; k++)
            if (a->keyword[k] ? c->keywords[i] && !strcmp(a->keyword[k], c->keywords[i]) : (int)k == i) {
                value[i] = a->value[k];
                given++;
            }
    }
    if (given < a->n)
        return jinja_fail(r, "\"%s\" does not take these %zu arguments", c->name, a->n);
    if (given < (size_t)c->min)
        return jinja_fail(r, "\"%s\" needs %d argument%s", c->name, c->min, c->min > 1 ? "s" : "");
    const struct jinja_args ordered = {value, keyword, (size_t)c->max};
    return c->call(r, out, self, &ordered);
}

static int eval_call(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value callee;
    struct jinja_args a;
    TRY(jinja_eval(r, &callee, n->a, s));
    r->line = n->line;
    if (callee.kind == JINJA_UNDEFINED)
        return jinja_fail(r, "\"%.80s\" is undefined", callee.name ? callee.name : "what is called");
    TRY(eval_arguments(r, &a, n->items, s));
    r->line = n->line;
    if (callee.kind == JINJA_MACRO) {
        TRY(jinja_call_macro(r, out, callee.macro, &a));
        r->line = n->line;
        return 0;
    }
    if (callee.kind == JINJA_METHOD)
        return jinja_apply(r, out, callee.bound->method, &callee.bound->self, &a);
    if (callee.kind == JINJA_FUNCTION)
        return jinja_apply(r, out, callee.function, NULL, &a);
    return jinja_fail(r, "a %s cannot be called", jinja_kind_name(&callee));
}

/* A filter or test. */
static int eval_applied(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value self;
    struct jinja_args a;
    TRY(jinja_eval(r, &self, n->a, s));
    TRY(eval_arguments(r, &a, n->items, s));
    r->line = n->line;
    return jinja_apply(r, out, n->callable, &self, &a);
}

/* ---- expressions ---- */

static int eval_items(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value item, key;
    if (n->kind == NODE_DICT) {
        TRY(jinja_dict_new(r, out, JINJA_DICT, 0));
        for (const struct jinja_node *i = n->items; i; i = i->next) {
            TRY(jinja_eval(r, &key, i->a, s));
            TRY(jinja_eval(r, &item, i->b, s));
            TRY(jinja_dict_set(r, out->dict, key, item));
        }
        return 0;
    }
    TRY(jinja_list_new(r, out, n->kind == NODE_LIST ? JINJA_LIST : JINJA_TUPLE, 0));
    for (const struct jinja_node *i = n->items; i; i = i->next) {
        TRY(jinja_eval(r, &item, i, s));
        TRY(jinja_list_add(r, out->list, item));
    }
    return 0;
}

static int eval_concat(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct text joined = {0};
    struct jinja_value item;
    int rc = 0;
    for (const struct jinja_node *i = n->items; !rc && i; i = i->next) {
        rc = jinja_eval(r, &item, i, s);
        if (!rc)
            rc = jinja_str(r, &joined, &item);
    }
    if (!rc)
        rc = jinja_string(r, out, text_string(&joined), joined.n);
    text_free(&joined);
    return rc;
}

static void eval_name(struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    const struct jinja_value *found = jinja_scope_find(s, n->name);
    const struct jinja_callable *function = found ? NULL : jinja_function_find(n->name);
    *out = found      ? *found
           : function ? (struct jinja_value){.kind = JINJA_FUNCTION, .function = function}
                      : jinja_undefined(n->name);
}

static int eval_choice(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value truth;
    TRY(jinja_eval(r, &truth, n->b, s));
    if (jinja_truth(&truth))
        return jinja_eval(r, out, n->a, s);
    *out = jinja_undefined("a choice without else");
    return n->c ? jinja_eval(r, out, n->c, s) : 0;
}

static int eval_unary(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_value *v)
{
    const struct jinja_value zero = jinja_int(0);
    if (!jinja_is_number(v))
        return jinja_fail(r, "%s%s is not supported", n->name, jinja_kind_name(v));
    if (v->kind != JINJA_FLOAT)
        return jinja_binary(r, out, n->name, &zero, v);
    *out = (struct jinja_value){.kind = JINJA_FLOAT, .real = n->name[0] == '-' ? -v->real : v->real};
    return 0;
}

/* Expressions that begin with the value of n->a. */
static int eval_operator(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value a, b;
    TRY(jinja_eval(r, &a, n->a, s));
    r->line = n->line;
    switch (n->kind) {
    case NODE_FIELD:
        return jinja_field(r, out, &a, n->name);
    case NODE_AND:
    case NODE_OR:
        *out = a;
        return jinja_truth(&a) == (n->kind == NODE_AND) ? jinja_eval(r, out, n->b, s) : 0;
    case NODE_NOT:
        *out = jinja_bool(!jinja_truth(&a));
        return 0;
    case NODE_UNARY:
        return eval_unary(r, out, n, &a);
    default:
        break;
    }
    if (n->b->kind == NODE_SLICE)
        return eval_slice(r, out, &a, n->b, s);
    TRY(jinja_eval(r, &b, n->b, s));
    r->line = n->line;
    return n->kind == NODE_INDEX ? jinja_index(r, out, &a, &b) : jinja_binary(r, out, n->name, &a, &b);
}

static int eval(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    switch (n->kind) {
    case NODE_CONSTANT:
        *out = n->value;
        return 0;
    case NODE_NAME:
        eval_name(out, n, s);
        return 0;
    case NODE_LIST:
    case NODE_TUPLE:
    case NODE_DICT:
        return eval_items(r, out, n, s);
    case NODE_CALL:
        return eval_call(r, out, n, s);
    case NODE_FILTER:
    case NODE_TEST:
        return eval_applied(r, out, n, s);
    case NODE_CHOICE:
        return eval_choice(r, out, n, s);
    case NODE_COMPARE:
        return eval_compare(r, out, n, s);
    case NODE_CONCAT:
        return eval_concat(r, out, n, s);
    default:
        return eval_operator(r, out, n, s);
    }
}

int jinja_eval(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s)
{
    TRY(jinja_work(r, 1));
    TRY(jinja_enter(r));
    r->line = n->line;
    TRY(eval(r, out, n, s));
    jinja_leave(r);
    return 0;
}
