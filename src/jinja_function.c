/* Functions: Jinja's range, namespace and dict, transformers' raise_exception and strftime_now. */
#include "jinja_tree.h"

#include <string.h>
#include <time.h>

#include "error.h"

static int call_range(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *a)
{
    int64_t bound[3] = {0, 0, 1};
    size_t n = 0;
    (void)self;
    for (; n < 3 && (n == 0 || a->value[n].kind != JINJA_UNDEFINED); n++) {
        if (a->value[n].kind != JINJA_INT && a->value[n].kind != JINJA_BOOL)
            return jinja_fail(r, "range of a %s", jinja_kind_name(&a->value[n]));
        bound[n] = jinja_integer(&a->value[n]);
    }
    const int64_t from = n > 1 ? bound[0] : 0, to = n > 1 ? bound[1] : bound[0], step = bound[2];
    if (step == 0 || step > INT32_MAX || step < -INT32_MAX || from > INT32_MAX || from < -INT32_MAX || to > INT32_MAX ||
        to < -INT32_MAX)
        return jinja_fail(r, "range with a step of 0 or bounds that are too large");
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step)
        TRY(jinja_list_add(r, out->list, jinja_int(i)));
    return 0;
}

static int new_dict(struct jinja_run *r, struct jinja_value *out, const struct jinja_args *a, enum jinja_kind kind)
{
    TRY(jinja_dict_new(r, out, kind, a->n));
    for (size_t i = 0; i < a->n; i++) {
        const struct jinja_value *v = &a->value[i];
        if (!a->keyword[i] && v->kind != JINJA_DICT)
            return jinja_fail(r, "%s of a %s", kind == JINJA_DICT ? "dict" : "namespace", jinja_kind_name(v));
        if (a->keyword[i])
            TRY(jinja_dict_set(r, out->dict, jinja_borrow(a->keyword[i], strlen(a->keyword[i])), *v));
        for (size_t k = 0; !a->keyword[i] && k < v->dict->n; k++)
            TRY(jinja_dict_set(r, out->dict, v->dict->key[k], v->dict->value[k]));
    }
    return 0;
}

static int call_dict(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *a)
{
    (void)self;
    return new_dict(r, out, a, JINJA_DICT);
}

static int call_namespace(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *a)
{
    (void)self;
    return new_dict(r, out, a, JINJA_NAMESPACE);
}

static int call_raise_exception(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self,
                                const struct jinja_args *a)
{
    struct text message = {0};
    (void)out, (void)self;
    if (jinja_str(r, &message, &a->value[0]) == 0)
        jinja_fail(r, "the template refuses: %s", text_string(&message));
    text_free(&message);
    return -1;
}

static int call_strftime_now(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self,
                             const struct jinja_args *a)
{
    struct jinja_value format;
    struct tm now;
    char text[512];
    (void)self;
    if (a->value[0].kind != JINJA_STRING)
        return jinja_fail(r, "strftime_now of a %s", jinja_kind_name(&a->value[0]));
    TRY(jinja_string(r, &format, a->value[0].text.bytes, a->value[0].text.n));
    CHECK(localtime_r(&r->now, &now), "the time of day");
    const size_t n = strftime(text, sizeof text, format.text.bytes, &now);
    if (n == 0 && format.text.n > 0)
        return jinja_fail(r, "strftime_now: a text that is too long");
    return jinja_string(r, out, text, n);
}

const struct jinja_callable *jinja_function_find(const char *name)
{
    static const struct jinja_callable functions[] = {
        {"dict", call_dict, 0, -1, {0}},
        {"namespace", call_namespace, 0, -1, {0}},
        {"raise_exception", call_raise_exception, 1, 1, {"message"}},
        {"range", call_range, 1, 3, {0}},
        {"strftime_now", call_strftime_now, 1, 1, {"format"}},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i].name, name))
            return &functions[i];
    return NULL;
}
