/* Methods of dicts, lists and loops, as Python has them; which methods there are. */
#include "jinja_tree.h"

#include <string.h>

#include "error.h"

int jinja_pairs(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v)
{
    struct jinja_value pair;
    TRY(jinja_list_new(r, out, JINJA_LIST, v->dict->n));
    for (size_t i = 0; i < v->dict->n; i++) {
        TRY(jinja_list_new(r, &pair, JINJA_TUPLE, 2));
        TRY(jinja_list_add(r, pair.list, v->dict->key[i]));
        TRY(jinja_list_add(r, pair.list, v->dict->value[i]));
        TRY(jinja_list_add(r, out->list, pair));
    }
    return 0;
}

static int dict_items(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return jinja_pairs(r, out, v);
}

static int dict_keys(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    *out = (struct jinja_value){.kind = JINJA_LIST};
    return jinja_items(r, &out->list, v);
}

static int dict_values(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    TRY(jinja_list_new(r, out, JINJA_LIST, v->dict->n));
    for (size_t i = 0; i < v->dict->n; i++)
        TRY(jinja_list_add(r, out->list, v->dict->value[i]));
    return 0;
}

static int dict_get(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *found;
    TRY(jinja_dict_get(r, &found, v->dict, &a->value[0]));
    *out = found ? *found : a->value[1].kind == JINJA_UNDEFINED && !a->value[1].name ? jinja_none() : a->value[1];
    return 0;
}

static int dict_copy(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)r, (void)a;
    *out = *v;
    return 0;
}

static int list_index(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    bool equal = false;
    for (size_t i = 0; i < v->list->n; i++) {
        TRY(jinja_equal(r, &equal, &v->list->item[i], &a->value[0]));
        if (equal) {
            *out = jinja_int((int64_t)i);
            return 0;
        }
    }
    return jinja_fail(r, "index of an item that is not in the list");
}

static int list_count(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    int64_t n = 0;
    bool equal;
    for (size_t i = 0; i < v->list->n; i++) {
        TRY(jinja_equal(r, &equal, &v->list->item[i], &a->value[0]));
        n += equal;
    }
    *out = jinja_int(n);
    return 0;
}

static int loop_cycle(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    if (!a->n)
        return jinja_fail(r, "loop.cycle without items");
    *out = a->value[v->loop->index0 % a->n];
    return 0;
}

static int loop_changed(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_value now;
    bool same = false;
    TRY(jinja_list_new(r, &now, JINJA_TUPLE, a->n));
    for (size_t i = 0; i < a->n; i++)
        TRY(jinja_list_add(r, now.list, a->value[i]));
    if (v->loop->changed.kind == JINJA_TUPLE)
        TRY(jinja_equal(r, &same, &now, &v->loop->changed));
    v->loop->changed = now;
    *out = jinja_bool(!same);
    return 0;
}

/* ---- tables ---- */

static const struct jinja_callable of_dicts[] = {
    {"items", dict_items, 0, 0, {0}},       {"keys", dict_keys, 0, 0, {0}}, {"values", dict_values, 0, 0, {0}},
    {"get", dict_get, 1, 2, {0}}, {"copy", dict_copy, 0, 0, {0}}, {0},
};

static const struct jinja_callable of_lists[] = {
    {"index", list_index, 1, 1, {0}},
    {"count", list_count, 1, 1, {0}},
    {0},
};

static const struct jinja_callable of_loops[] = {
    {"cycle", loop_cycle, 0, -1, {0}},
    {"changed", loop_changed, 0, -1, {0}},
    {0},
};

/* Python's other methods. */
static const char *const refused_of_strings[] = {
    "casefold", "center",    "encode",      "expandtabs", "format",    "format_map", "index",    "isalnum", "isascii",
    "isdecimal", "isidentifier", "islower", "isnumeric",  "isprintable", "istitle",  "isupper",  "ljust",   "maketrans",
    "partition", "rfind",    "rindex",      "rjust",      "rpartition", "swapcase",  "translate", "zfill",   NULL};
static const char *const refused_of_dicts[] = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update", NULL};
static const char *const refused_of_lists[] = {"append", "clear",   "copy",    "extend", "insert",
                                               "pop",    "remove", "reverse", "sort",   NULL};
static const char *const refused_of_none[] = {NULL};

const struct jinja_callable *jinja_method_find(const struct jinja_value *v, const char *name)
{
    const struct jinja_callable *table = v->kind == JINJA_STRING                           ? jinja_string_methods
                                         : v->kind == JINJA_DICT                           ? of_dicts
                                         : v->kind == JINJA_LIST || v->kind == JINJA_TUPLE ? of_lists
                                         : v->kind == JINJA_LOOP                           ? of_loops
                                                                                           : NULL;
    for (; table && table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

bool jinja_method_refused(const struct jinja_value *v, const char *name)
{
    const char *const *names = v->kind == JINJA_STRING ? refused_of_strings
                               : v->kind == JINJA_DICT ? refused_of_dicts
                               : v->kind == JINJA_LIST ? refused_of_lists
                                                       : refused_of_none;
    for (; *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}
