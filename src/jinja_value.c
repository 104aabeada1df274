/* Values: making, comparing, going over them. Their text is in jinja_text.c. */
#include "jinja_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unicode.h"

struct jinja_chunk {
    struct jinja_chunk *before;
    size_t n, room;
    max_align_t bytes[];
};

enum { CHUNK_BYTES = 16 << 10 };

void *jinja_alloc(struct jinja_pool *p, size_t n)
{
    const size_t align = sizeof(max_align_t);
    struct jinja_chunk *c = p->last;
    if (n > JINJA_BYTES_MAX || p->used + n > JINJA_BYTES_MAX)
        return NULL;
    n = (n + align - 1) / align * align;
    if (!c || c->room - c->n < n) {
        const size_t room = n > CHUNK_BYTES ? n : CHUNK_BYTES;
        c = calloc(1, sizeof *c + room);
        CHECK(c, "out of memory for a chat template");
        *c = (struct jinja_chunk){.before = p->last, .room = room};
        p->last = c;
    }
    void *at = (char *)c->bytes + c->n;
    c->n += n;
    p->used += n;
    return at;
}

void jinja_pool_free(struct jinja_pool *p)
{
    while (p->last) {
        struct jinja_chunk *before = p->last->before;
        free(p->last);
        p->last = before;
    }
    *p = (struct jinja_pool){0};
}

int jinja_fail(const struct jinja_run *r, const char *format, ...)
{
    char message[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    return error_set(ERR_FILE, "%s:%d: %s", r->name, r->line, message);
}

int jinja_work(struct jinja_run *r, size_t n)
{
    r->steps += (int64_t)n;
    return r->steps <= JINJA_STEPS_MAX ? 0 : jinja_fail(r, "the rendering does not end within %d steps", JINJA_STEPS_MAX);
}

int jinja_enter(struct jinja_run *r)
{
    if (++r->depth <= JINJA_DEPTH_MAX)
        return 0;
    return jinja_fail(r, "nested deeper than %d", JINJA_DEPTH_MAX);
}

int jinja_take(struct jinja_run *r, void *out, size_t n)
{
    void *at = jinja_alloc(&r->pool, n);
    memcpy(out, &at, sizeof at);
    return at ? 0 : jinja_fail(r, "the rendering needs more than %d MiB", JINJA_BYTES_MAX >> 20);
}

/* ---- making ---- */

struct jinja_value jinja_bool(bool truth)
{
    return (struct jinja_value){.kind = JINJA_BOOL, .truth = truth};
}

struct jinja_value jinja_int(int64_t integer)
{
    return (struct jinja_value){.kind = JINJA_INT, .integer = integer};
}

struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.kind = JINJA_NONE};
}

struct jinja_value jinja_undefined(const char *name)
{
    return (struct jinja_value){.kind = JINJA_UNDEFINED, .name = name};
}

struct jinja_value jinja_borrow(const char *bytes, size_t n)
{
    return (struct jinja_value){.kind = JINJA_STRING, .text = {bytes, n}};
}

int jinja_string(struct jinja_run *r, struct jinja_value *out, const char *bytes, size_t n)
{
    char *copy;
    TRY(jinja_take(r, &copy, n + 1));
    if (n)
        memcpy(copy, bytes, n);
    *out = jinja_borrow(copy, n);
    return 0;
}

int jinja_list_new(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t room)
{
    struct jinja_list *list;
    TRY(jinja_take(r, &list, sizeof *list));
    if (room)
        TRY(jinja_take(r, &list->item, room * sizeof *list->item));
    list->room = room;
    *out = (struct jinja_value){.kind = kind, .list = list};
    return 0;
}

int jinja_list_add(struct jinja_run *r, struct jinja_list *list, struct jinja_value v)
{
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 8;
        struct jinja_value *item;
        TRY(jinja_take(r, &item, room * sizeof *item));
        if (list->n)
            memcpy(item, list->item, list->n * sizeof *item);
        list->item = item;
        list->room = room;
    }
    list->item[list->n++] = v;
    return 0;
}

int jinja_dict_new(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t room)
{
    struct jinja_dict *d;
    TRY(jinja_take(r, &d, sizeof *d));
    if (room) {
        TRY(jinja_take(r, &d->key, room * sizeof *d->key));
        TRY(jinja_take(r, &d->value, room * sizeof *d->value));
    }
    d->room = room;
    *out = (struct jinja_value){.kind = kind, .dict = d};
    return 0;
}

static int dict_place(struct jinja_run *r, size_t *at, const struct jinja_dict *d, const struct jinja_value *key)
{
    bool equal = false;
    if (key->kind == JINJA_LIST || key->kind == JINJA_DICT)
        return jinja_fail(r, "a %s cannot be a key of a dict", jinja_kind_name(key));
    TRY(jinja_work(r, d->n / 16));
    for (*at = 0; *at < d->n; ++*at) {
        TRY(jinja_equal(r, &equal, &d->key[*at], key));
        if (equal)
            return 0;
    }
    return 0;
}

int jinja_dict_set(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key, struct jinja_value v)
{
    size_t at;
    TRY(dict_place(r, &at, d, &key));
    if (at == d->room) {
        const size_t room = d->room ? 2 * d->room : 8;
        struct jinja_value *keys, *values;
        TRY(jinja_take(r, &keys, room * sizeof *keys));
        TRY(jinja_take(r, &values, room * sizeof *values));
        if (d->n) {
            memcpy(keys, d->key, d->n * sizeof *keys);
            memcpy(values, d->value, d->n * sizeof *values);
        }
        d->key = keys;
        d->value = values;
        d->room = room;
    }
    if (at == d->n) {
        d->key[at] = key;
        d->n++;
    }
    d->value[at] = v;
    return 0;
}

int jinja_dict_get(struct jinja_run *r, const struct jinja_value **out, const struct jinja_dict *d, const struct jinja_value *key)
{
    size_t at;
    TRY(dict_place(r, &at, d, key));
    *out = at < d->n ? &d->value[at] : NULL;
    return 0;
}

const struct jinja_value *jinja_dict_find(const struct jinja_dict *d, const char *string)
{
    for (size_t i = 0; i < d->n; i++)
        if (jinja_is(&d->key[i], string))
            return &d->value[i];
    return NULL;
}

static int from_object(struct jinja_run *r, struct jinja_value *out, const json_t *json)
{
    TRY(jinja_dict_new(r, out, JINJA_DICT, json_object_size(json)));
    json_t *object = (json_t *)(uintptr_t)json; /* Jansson's iterators take no const */
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        struct jinja_value *key = &out->dict->key[out->dict->n], *value = &out->dict->value[out->dict->n];
        *key = jinja_borrow(json_object_iter_key(at), json_object_iter_key_len(at));
        TRY(jinja_from_json(r, value, json_object_iter_value(at)));
        out->dict->n++;
    }
    return 0;
}

int jinja_from_json(struct jinja_run *r, struct jinja_value *out, const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return from_object(r, out, json);
    case JSON_ARRAY:
        TRY(jinja_list_new(r, out, JINJA_LIST, json_array_size(json)));
        for (size_t i = 0; i < json_array_size(json); i++, out->list->n++)
            TRY(jinja_from_json(r, &out->list->item[i], json_array_get(json, i)));
        return 0;
    case JSON_STRING:
        *out = jinja_borrow(json_string_value(json), json_string_length(json));
        return 0;
    case JSON_INTEGER:
        *out = jinja_int(json_integer_value(json));
        return 0;
    case JSON_REAL:
        *out = (struct jinja_value){.kind = JINJA_FLOAT, .real = json_real_value(json)};
        return 0;
    case JSON_NULL:
        *out = jinja_none();
        return 0;
    default:
        *out = jinja_bool(json_is_true(json));
        return 0;
    }
}

int jinja_put(struct jinja_run *r, struct text *out, const char *bytes, size_t n)
{
    TRY(jinja_work(r, n / 256));
    if (n > JINJA_BYTES_MAX || out->n + n > JINJA_BYTES_MAX)
        return jinja_fail(r, "a text of more than %d MiB", JINJA_BYTES_MAX >> 20);
    text_add(out, bytes, n);
    return 0;
}

/* ---- using ---- */

const char *jinja_kind_name(const struct jinja_value *v)
{
    static const char *const names[] = {"undefined", "NoneType", "bool", "int",       "float", "str",      "list",
                                        "tuple",     "dict",     "Namespace", "loop", "function", "method", "macro"};
    return names[v->kind];
}

bool jinja_is(const struct jinja_value *v, const char *string)
{
    return v->kind == JINJA_STRING && v->text.n == strlen(string) && !memcmp(v->text.bytes, string, v->text.n);
}

bool jinja_is_number(const struct jinja_value *v)
{
    return v->kind == JINJA_BOOL || v->kind == JINJA_INT || v->kind == JINJA_FLOAT;
}

int64_t jinja_integer(const struct jinja_value *v)
{
    return v->kind == JINJA_BOOL ? v->truth : v->integer;
}

double jinja_real(const struct jinja_value *v)
{
    return v->kind == JINJA_FLOAT ? v->real : (double)jinja_integer(v);
}

bool jinja_truth(const struct jinja_value *v)
{
    switch (v->kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v->truth;
    case JINJA_INT:
        return v->integer != 0;
    case JINJA_FLOAT:
        return v->real != 0;
    case JINJA_STRING:
        return v->text.n != 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return v->list->n != 0;
    case JINJA_DICT:
        return v->dict->n != 0;
    default:
        return true;
    }
}

static int lists_equal(struct jinja_run *r, bool *equal, const struct jinja_list *a, const struct jinja_list *b)
{
    *equal = a->n == b->n;
    TRY(jinja_work(r, a->n));
    for (size_t i = 0; *equal && i < a->n; i++)
        TRY(jinja_equal(r, equal, &a->item[i], &b->item[i]));
    return 0;
}

static int dicts_equal(struct jinja_run *r, bool *equal, const struct jinja_dict *a, const struct jinja_dict *b)
{
    *equal = a->n == b->n;
    for (size_t i = 0; *equal && i < a->n; i++) {
        const struct jinja_value *other;
        TRY(jinja_dict_get(r, &other, b, &a->key[i]));
        *equal = other != NULL;
        if (other)
            TRY(jinja_equal(r, equal, &a->value[i], other));
    }
    return 0;
}

int jinja_equal(struct jinja_run *r, bool *equal, const struct jinja_value *a, const struct jinja_value *b)
{
    int rc = 0;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *equal = a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT ? jinja_real(a) == jinja_real(b)
                                                                  : jinja_integer(a) == jinja_integer(b);
        return 0;
    }
    *equal = false;
    if (a->kind != b->kind)
        return 0;
    switch (a->kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        *equal = true;
        return 0;
    case JINJA_STRING:
        TRY(jinja_work(r, a->text.n / 256));
        *equal = a->text.n == b->text.n && !memcmp(a->text.bytes, b->text.bytes, a->text.n);
        return 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        TRY(jinja_enter(r));
        rc = a->kind == JINJA_DICT ? dicts_equal(r, equal, a->dict, b->dict) : lists_equal(r, equal, a->list, b->list);
        jinja_leave(r);
        return rc;
    default:
        *equal = a->macro == b->macro; /* the same object */
        return 0;
    }
}

int jinja_compare(struct jinja_run *r, int *order, const struct jinja_value *a, const struct jinja_value *b)
{
    if (jinja_is_number(a) && jinja_is_number(b)) {
        const double x = jinja_real(a), y = jinja_real(b);
        *order = (x > y) - (x < y);
        if (a->kind != JINJA_FLOAT && b->kind != JINJA_FLOAT)
            *order = (jinja_integer(a) > jinja_integer(b)) - (jinja_integer(a) < jinja_integer(b));
        return 0;
    }
    if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
        const size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
        *order = memcmp(a->text.bytes, b->text.bytes, n);
        if (!*order)
            *order = (a->text.n > b->text.n) - (a->text.n < b->text.n);
        return 0;
    }
    return jinja_fail(r, "%s and %s have no order", jinja_kind_name(a), jinja_kind_name(b));
}

size_t jinja_characters(const struct jinja_value *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->text.n; i++)
        n += ((unsigned char)v->text.bytes[i] & 0xc0) != 0x80;
    return n;
}

size_t jinja_offset(const struct jinja_value *v, size_t i)
{
    size_t at = 0;
    for (; i && at < v->text.n; i--)
        at += (size_t)utf8_length(v->text.bytes[at]);
    return at < v->text.n ? at : v->text.n;
}

int jinja_items(struct jinja_run *r, struct jinja_list **out, const struct jinja_value *v)
{
    struct jinja_value made;
    switch (v->kind) {
    case JINJA_LIST:
    case JINJA_TUPLE:
        *out = v->list;
        return 0;
    case JINJA_UNDEFINED:
        TRY(jinja_list_new(r, &made, JINJA_LIST, 0));
        *out = made.list;
        return 0;
    case JINJA_DICT:
        TRY(jinja_list_new(r, &made, JINJA_LIST, 0));
        made.list->item = v->dict->key;
        made.list->n = made.list->room = v->dict->n;
        *out = made.list;
        return 0;
    case JINJA_STRING:
        TRY(jinja_list_new(r, &made, JINJA_LIST, jinja_characters(v)));
        for (size_t at = 0, n; at < v->text.n; at += n) {
            n = (size_t)utf8_length(v->text.bytes[at]);
            TRY(jinja_list_add(r, made.list, jinja_borrow(v->text.bytes + at, n)));
        }
        *out = made.list;
        return 0;
    default:
        return jinja_fail(r, "a %s cannot be iterated over", jinja_kind_name(v));
    }
}
