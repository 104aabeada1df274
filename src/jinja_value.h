/* Values of a template's run, and the memory they lie in. Values do not change once made (but for namespaces), so they share
 * their parts freely; all of a run's memory is given back at its end. */
#ifndef RLHF_SRC_JINJA_VALUE_H
#define RLHF_SRC_JINJA_VALUE_H

#include "text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    JINJA_DEPTH_MAX = 400,          /* nested expressions, blocks, macro calls and values */
    JINJA_STEPS_MAX = 20 * 1000000, /* of jinja_work in a run */
    JINJA_BYTES_MAX = 256 << 20     /* memory of a run; of a text */
};

/* ---- memory ---- */

struct jinja_pool {
    struct jinja_chunk *last;
    size_t used;
};
void *jinja_alloc(struct jinja_pool *p, size_t n); /* zeroed; NULL above JINJA_BYTES_MAX */
void jinja_pool_free(struct jinja_pool *p);

/* ---- values ---- */

enum jinja_kind {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_FUNCTION,
    JINJA_METHOD,
    JINJA_MACRO
};

struct jinja_run;
struct jinja_value;
struct jinja_args;
typedef int (*jinja_call)(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *a);

/* A named filter, test, method or function. */
struct jinja_callable {
    const char *name;
    jinja_call call;
    int min, max;            /* positional and keyword arguments together, without what it is applied to */
    const char *keywords[5]; /* names of the arguments, in order */
};

struct jinja_value {
    enum jinja_kind kind;
    bool safe; /* JINJA_STRING: marked by the filter safe */
    union {
        bool truth;
        int64_t integer;
        double real;
        struct {
            const char *bytes; /* [n], UTF-8, may hold NUL; borrowed from template, variables or pool */
            size_t n;
        } text;
        struct jinja_list *list;   /* JINJA_LIST, JINJA_TUPLE */
        struct jinja_dict *dict;   /* JINJA_DICT, JINJA_NAMESPACE */
        struct jinja_loop *loop;
        struct jinja_bound *bound; /* JINJA_METHOD */
        const struct jinja_callable *function;
        const struct jinja_macro *macro;
        const char *name; /* JINJA_UNDEFINED: why; NULL: not known */
    };
};

struct jinja_list {
    struct jinja_value *item; /* [n] */
    size_t n, room;
};

struct jinja_dict {
    struct jinja_value *key, *value; /* [n], in the order of insertion */
    size_t n, room;
};

struct jinja_loop {
    const struct jinja_list *items;
    size_t index0;
    struct jinja_value changed; /* a tuple, once loop.changed was called */
};

struct jinja_bound {
    struct jinja_value self;
    const struct jinja_callable *method;
};

/* Arguments of a call: positional ones first. */
struct jinja_args {
    struct jinja_value *value; /* [n] */
    const char **keyword;      /* [n] NULL: positional */
    size_t n;
};

/* A run. */
struct jinja_run {
    struct jinja_pool pool;
    const char *name; /* of the template, for messages */
    int line, depth;
    int64_t steps;
    time_t now;
};

/* Sets "name:line: message" (ERR_FILE). Returns -1. */
int jinja_fail(const struct jinja_run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Counts work: expressions, items gone over, and bytes in units of 256. Errors: more than JINJA_STEPS_MAX. */
int jinja_work(struct jinja_run *r, size_t n);

/* One more level of whatever recurses. Errors: deeper than JINJA_DEPTH_MAX. */
int jinja_enter(struct jinja_run *r);
static inline void jinja_leave(struct jinja_run *r)
{
    r->depth--;
}

/* jinja_alloc into *out, a pointer. Errors: the limit. */
int jinja_take(struct jinja_run *r, void *out, size_t n);

/* ---- making values; those that allocate return -1 above the limit ---- */

struct jinja_value jinja_bool(bool truth);
struct jinja_value jinja_int(int64_t integer);
struct jinja_value jinja_none(void);
struct jinja_value jinja_undefined(const char *name);
struct jinja_value jinja_borrow(const char *bytes, size_t n);
int jinja_string(struct jinja_run *r, struct jinja_value *out, const char *bytes, size_t n); /* copies */
int jinja_list_new(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t room);
int jinja_list_add(struct jinja_run *r, struct jinja_list *list, struct jinja_value v);
int jinja_dict_new(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t room);
int jinja_dict_set(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key, struct jinja_value v);
int jinja_from_json(struct jinja_run *r, struct jinja_value *out, const json_t *json);

/* Appends; above JINJA_BYTES_MAX -1. */
int jinja_put(struct jinja_run *r, struct text *out, const char *bytes, size_t n);

/* ---- using values ---- */

const char *jinja_kind_name(const struct jinja_value *v); /* Python's: "str", "dict", .. */
bool jinja_is(const struct jinja_value *v, const char *string);
bool jinja_is_number(const struct jinja_value *v); /* bool, int or float */
double jinja_real(const struct jinja_value *v);    /* of a number */
int64_t jinja_integer(const struct jinja_value *v); /* of a bool or int */
bool jinja_truth(const struct jinja_value *v);
int jinja_equal(struct jinja_run *r, bool *equal, const struct jinja_value *a, const struct jinja_value *b);

/* *order < 0, 0, > 0. Errors: values that have no order. */
int jinja_compare(struct jinja_run *r, int *order, const struct jinja_value *a, const struct jinja_value *b);

int jinja_dict_get(struct jinja_run *r, const struct jinja_value **out, const struct jinja_dict *d,
                   const struct jinja_value *key);                                         /* *out NULL: not there */
const struct jinja_value *jinja_dict_find(const struct jinja_dict *d, const char *string); /* NULL: not there */

/* The items of what a loop may go over, as a list that may be shared: lists, keys of dicts, characters of strings. */
int jinja_items(struct jinja_run *r, struct jinja_list **out, const struct jinja_value *v);

/* Characters of a string, and where the i-th begins (n where it has no more). */
size_t jinja_characters(const struct jinja_value *v);
size_t jinja_offset(const struct jinja_value *v, size_t i);

/* Appends str(v), repr(v), json.dumps(v). */
struct jinja_json {
    bool ascii, sort_keys;
    const char *indent; /* NULL: on one line */
    size_t n_indent;
    const char *item, *key; /* separators; NULL: json.dumps' own */
};
int jinja_str(struct jinja_run *r, struct text *out, const struct jinja_value *v);
int jinja_repr(struct jinja_run *r, struct text *out, const struct jinja_value *v);
int jinja_to_json(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how);

/* Appends with & < > ' " escaped, as markupsafe does. */
int jinja_escape(struct jinja_run *r, struct text *out, const char *bytes, size_t n);

#endif
