/* What operators, fields and indices do with values. Where Python raises, this fails. */
#include "error.h"
#include "jinja_tree.h"

#include <math.h>
#include <string.h>

/* ---- arithmetic ---- */

static int no_operator(struct jinja_run *r, const char *operator, const struct jinja_value *a, const struct jinja_value *b)
{
    const struct jinja_value *undefined = a->kind == JINJA_UNDEFINED ? a : b;
    if (undefined->kind == JINJA_UNDEFINED && undefined->name)
        return jinja_fail(r, "\"%.80s\" is undefined", undefined->name);
    return jinja_fail(r, "%s %s %s is not supported", jinja_kind_name(a), operator, jinja_kind_name(b));
}

static int too_large(struct jinja_run *r)
{
    return jinja_fail(r, "an integer beyond 64 bits");
}

static int divide_integers(struct jinja_run *r, struct jinja_value *out, char operator, int64_t a, int64_t b)
{
    if (b == 0)
        return jinja_fail(r, "division by zero");
    if (a == INT64_MIN && b == -1)
        return too_large(r);
    const int64_t rest = a % b, down = rest && (rest < 0) != (b < 0); /* Python rounds down */
    *out = jinja_int(operator == '%' ? rest + (down ? b : 0) : a / b - down);
    return 0;
}

static int power(struct jinja_run *r, struct jinja_value *out, int64_t a, int64_t b)
{
    int64_t product = 1;
    for (; b > 0; b--) {
        TRY(jinja_work(r, 1));
        if (__builtin_mul_overflow(product, a, &product))
            return too_large(r);
    }
    *out = jinja_int(product);
    return 0;
}

static int integers(struct jinja_run *r, struct jinja_value *out, const char *operator, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool over = false;
    if (!strcmp(operator, "**"))
        return power(r, out, a, b);
    if (operator[0] == '/' || operator[0] == '%')
        return divide_integers(r, out, operator[0], a, b);
    if (operator[0] == '+')
        over = __builtin_add_overflow(a, b, &result);
    else if (operator[0] == '-')
        over = __builtin_sub_overflow(a, b, &result);
    else
        over = __builtin_mul_overflow(a, b, &result);
    *out = jinja_int(result);
    return over ? too_large(r) : 0;
}

static int reals(struct jinja_run *r, struct jinja_value *out, const char *operator, double a, double b)
{
    double result;
    if ((operator[0] == '/' || operator[0] == '%') && b == 0)
        return jinja_fail(r, "division by zero");
    if (!strcmp(operator, "**"))
        result = pow(a, b);
    else if (!strcmp(operator, "//"))
        result = floor(a / b);
    else if (operator[0] == '%')
        result = a - b * floor(a / b);
    else
        result = operator[0] == '/'   ? a / b
                 : operator[0] == '+' ? a + b
                 : operator[0] == '-' ? a - b
                                      : a * b;
    *out = (struct jinja_value){.kind = JINJA_FLOAT, .real = result};
    return 0;
}

static int put_escaped(struct jinja_run *r, struct text *out, const struct jinja_value *v, bool escape)
{
    return escape && !v->safe ? jinja_escape(r, out, v->text.bytes, v->text.n) : jinja_put(r, out, v->text.bytes, v->text.n);
}

/* a + b; what is not marked as safe is escaped where the other is. */
static int join_strings(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *a, const struct jinja_value *b)
{
    struct text joined = {0};
    const bool safe = a->safe || b->safe;
    int rc = put_escaped(r, &joined, a, safe);
    if (!rc)
        rc = put_escaped(r, &joined, b, safe);
    if (!rc)
        rc = jinja_string(r, out, text_string(&joined), joined.n);
    out->safe = safe;
    text_free(&joined);
    return rc;
}

static int join_lists(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *a, const struct jinja_value *b)
{
    TRY(jinja_list_new(r, out, a->kind, a->list->n + b->list->n));
    for (size_t i = 0; i < a->list->n; i++)
        TRY(jinja_list_add(r, out->list, a->list->item[i]));
    for (size_t i = 0; i < b->list->n; i++)
        TRY(jinja_list_add(r, out->list, b->list->item[i]));
    return 0;
}

static int repeat_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, int64_t times)
{
    struct text all = {0};
    int rc = 0;
    for (int64_t i = 0; !rc && v->text.n && i < times; i++)
        rc = jinja_work(r, 1) || jinja_put(r, &all, v->text.bytes, v->text.n) ? -1 : 0;
    if (!rc)
        rc = jinja_string(r, out, text_string(&all), all.n);
    text_free(&all);
    return rc;
}

int jinja_binary(struct jinja_run *r, struct jinja_value *out, const char *operator, const struct jinja_value *a,
                 const struct jinja_value *b)
{
    const bool plus = !strcmp(operator, "+");
    if (jinja_is_number(a) && jinja_is_number(b)) {
        const bool real = a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT || !strcmp(operator, "/") ||
                          (!strcmp(operator, "**") && jinja_integer(b) < 0);
        return real ? reals(r, out, operator, jinja_real(a), jinja_real(b))
                    : integers(r, out, operator, jinja_integer(a), jinja_integer(b));
    }
    if (plus && a->kind == JINJA_STRING && b->kind == JINJA_STRING)
        return join_strings(r, out, a, b);
    if (plus && a->kind == b->kind && (a->kind == JINJA_LIST || a->kind == JINJA_TUPLE))
        return join_lists(r, out, a, b);
    if (!strcmp(operator, "*") && a->kind == JINJA_STRING && (b->kind == JINJA_INT || b->kind == JINJA_BOOL))
        return repeat_string(r, out, a, jinja_integer(b));
    if (!strcmp(operator, "*") && b->kind == JINJA_STRING && (a->kind == JINJA_INT || a->kind == JINJA_BOOL))
        return repeat_string(r, out, b, jinja_integer(a));
    return no_operator(r, operator, a, b);
}

/* ---- comparisons ---- */

int jinja_contains(struct jinja_run *r, bool *in, const struct jinja_value *v, const struct jinja_value *item)
{
    struct jinja_list *items;
    const struct jinja_value *found;
    *in = false;
    if (v->kind == JINJA_STRING && item->kind != JINJA_STRING)
        return jinja_fail(r, "a %s in a str is not supported", jinja_kind_name(item));
    if (v->kind == JINJA_STRING) {
        TRY(jinja_work(r, v->text.n / 256));
        *in = !item->text.n || (v->text.n && memmem(v->text.bytes, v->text.n, item->text.bytes, item->text.n));
        return 0;
    }
    if (v->kind == JINJA_DICT) {
        TRY(jinja_dict_get(r, &found, v->dict, item));
        *in = found != NULL;
        return 0;
    }
    TRY(jinja_items(r, &items, v));
    TRY(jinja_work(r, items->n));
    for (size_t i = 0; !*in && i < items->n; i++)
        TRY(jinja_equal(r, in, &items->item[i], item));
    return 0;
}

/* ---- fields and indices ---- */

static int loop_field(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const char *name)
{
    const struct jinja_loop *l = v->loop;
    const int64_t i = (int64_t)l->index0, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        struct jinja_value value;
    } fields[] = {
        {"index", jinja_int(i + 1)},
        {"index0", jinja_int(i)},
        {"first", jinja_bool(i == 0)},
        {"last", jinja_bool(i + 1 == n)},
        {"length", jinja_int(n)},
        {"revindex", jinja_int(n - i)},
        {"revindex0", jinja_int(n - i - 1)},
        {"depth", jinja_int(1)},
        {"depth0", jinja_int(0)},
        {"previtem", i > 0 && i <= n ? l->items->item[i - 1] : jinja_undefined("loop.previtem")},
        {"nextitem", i + 1 < n ? l->items->item[i + 1] : jinja_undefined("loop.nextitem")},
    };
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++)
        if (!strcmp(name, fields[k].name)) {
            *out = fields[k].value;
            return 0;
        }
    return jinja_fail(r, "loop.%.40s is not supported", name);
}

static int method_of(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const char *name)
{
    const struct jinja_callable *method = jinja_method_find(v, name);
    if (!method)
        return jinja_method_refused(v, name)
                   ? jinja_fail(r, "the method \"%.40s\" of %s is not supported", name, jinja_kind_name(v))
                   : 0;
    struct jinja_bound *bound;
    TRY(jinja_take(r, &bound, sizeof *bound));
    *bound = (struct jinja_bound){*v, method};
    *out = (struct jinja_value){.kind = JINJA_METHOD, .bound = bound};
    return 0;
}

int jinja_field(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const char *name)
{
    *out = jinja_undefined(name);
    if (v->kind == JINJA_UNDEFINED)
        return jinja_fail(r, "\"%.80s\" is undefined, so it has no \"%.80s\"", v->name ? v->name : "a value", name);
    if (!strncmp(name, "__", 2))
        return jinja_fail(r, "access to \"%.40s\" is not allowed", name);
    TRY(method_of(r, out, v, name));
    if (out->kind != JINJA_UNDEFINED)
        return 0;
    if (v->kind == JINJA_LOOP)
        return loop_field(r, out, v, name);
    if (v->kind == JINJA_DICT || v->kind == JINJA_NAMESPACE) {
        const struct jinja_value *found = jinja_dict_find(v->dict, name);
        TRY(jinja_work(r, v->dict->n / 16));
        if (found)
            *out = *found;
    }
    return 0;
}

int jinja_index(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *key)
{
    const bool number = key->kind == JINJA_INT || key->kind == JINJA_BOOL;
    const struct jinja_value *found = NULL;
    struct jinja_value name;
    if (v->kind == JINJA_UNDEFINED)
        return jinja_fail(r, "\"%.80s\" is undefined, so it has no items", v->name ? v->name : "a value");
    *out = jinja_undefined("an item");
    if (v->kind == JINJA_DICT && key->kind != JINJA_LIST && key->kind != JINJA_DICT)
        TRY(jinja_dict_get(r, &found, v->dict, key));
    if (found)
        *out = *found;
    if (number && (v->kind == JINJA_LIST || v->kind == JINJA_TUPLE || v->kind == JINJA_STRING)) {
        const int64_t n = (int64_t)(v->kind == JINJA_STRING ? jinja_characters(v) : v->list->n);
        int64_t i = jinja_integer(key);
        i += i < 0 ? n : 0;
        if (i >= 0 && i < n && v->kind == JINJA_STRING) {
            const size_t from = jinja_offset(v, (size_t)i), to = jinja_offset(v, (size_t)i + 1);
            *out = jinja_borrow(v->text.bytes + from, to - from);
        } else if (i >= 0 && i < n) {
            *out = v->list->item[i];
        }
    }
    if (found || key->kind != JINJA_STRING)
        return 0;
    TRY(jinja_string(r, &name, key->text.bytes, key->text.n)); /* as a field; a name needs a NUL behind it */
    return jinja_field(r, out, v, name.text.bytes);
}
