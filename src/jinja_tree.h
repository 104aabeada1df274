/* A template as tokens, and as the tree that is rendered. */
#ifndef RLHF_SRC_JINJA_TREE_H
#define RLHF_SRC_JINJA_TREE_H

#include "jinja_value.h"

/* ---- tokens ---- */

enum jinja_token_kind {
    TOKEN_TEXT,           /* between tags, whitespace control applied */
    TOKEN_OUTPUT_BEGIN,   /* {{ */
    TOKEN_OUTPUT_END,     /* }} */
    TOKEN_BLOCK_BEGIN,    /* {% */
    TOKEN_BLOCK_END,      /* %} */
    TOKEN_NAME,
    TOKEN_STRING,         /* unescaped */
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_OPERATOR,       /* its characters */
    TOKEN_END
};

struct jinja_token {
    enum jinja_token_kind kind;
    int line;
    const char *bytes; /* [n] in the source or the pool */
    size_t n;
};

struct jinja_tokens {
    struct jinja_token *token; /* [n], the last is TOKEN_END; owned */
    size_t n, room;
};

/* Cuts source[n] (valid UTF-8, newlines normalised, alive as long as the tokens) into tokens. Free them in either case. */
int jinja_lex(struct jinja_tokens *out, struct jinja_run *r, const char *source, size_t n);
void jinja_tokens_free(struct jinja_tokens *t);

/* ---- the tree ---- */

enum jinja_node_kind {
    /* statements */
    NODE_TEXT,     /* value */
    NODE_OUTPUT,   /* a */
    NODE_IF,       /* a, body, other: an else part, or a list with one NODE_IF for elif */
    NODE_FOR,      /* name.. in items; a: over what, b: the condition or NULL; body, other */
    NODE_SET,      /* names in items, a: the value */
    NODE_SET_BLOCK,/* names in items, body */
    NODE_MACRO,    /* name, items: parameters with default a or NULL, body */
    NODE_SCOPE,    /* body */
    NODE_BREAK,
    NODE_CONTINUE,
    /* targets and parts */
    NODE_TARGET,   /* name, and attribute where it is a namespace's field; items: of a tuple */
    NODE_PAIR,     /* a: b */
    NODE_ARGUMENT, /* a, name: keyword or NULL */
    NODE_SLICE,    /* a:b:c, each may be NULL */
    /* expressions */
    NODE_CONSTANT, /* value */
    NODE_NAME,     /* name */
    NODE_LIST,     /* items */
    NODE_TUPLE,    /* items */
    NODE_DICT,     /* items: pairs */
    NODE_FIELD,    /* a.name */
    NODE_INDEX,    /* a[b], b may be a slice */
    NODE_CALL,     /* a(items) */
    NODE_FILTER,   /* a | name(items) */
    NODE_TEST,     /* a is name(items) */
    NODE_CHOICE,   /* a if b else c; c may be NULL */
    NODE_AND,
    NODE_OR,
    NODE_NOT,      /* a */
    NODE_COMPARE,  /* a, items: right sides b with name, the operator */
    NODE_BINARY,   /* a name b */
    NODE_CONCAT,   /* items */
    NODE_UNARY     /* name a */
};

struct jinja_node {
    enum jinja_node_kind kind;
    int line;
    const char *name, *attribute;
    struct jinja_value value;
    const struct jinja_callable *callable; /* of a filter or test */
    struct jinja_node *a, *b, *c;
    struct jinja_node *items, *body, *other, *next; /* lists, linked by next */
};

/* Expressions and statements of t, from *at on. Nodes lie in r's pool. */
struct jinja_parser {
    struct jinja_run *r;
    const struct jinja_token *token; /* the current one */
    int loops;                       /* around the current statement, in the same macro */
};

int jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out);
int jinja_parse_or(struct jinja_parser *p, struct jinja_node **out);    /* without "a if b else c" */
int jinja_parse_tuple(struct jinja_parser *p, struct jinja_node **out); /* a, b, .. is a tuple */
int jinja_parse_target(struct jinja_parser *p, struct jinja_node **out, bool with_fields);
int jinja_parse_body(struct jinja_parser *p, struct jinja_node **out, const char *const *ends); /* up to {% and one of ends */

struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_node_kind kind); /* NULL: out of memory, message set */
bool jinja_at(const struct jinja_parser *p, enum jinja_token_kind kind, const char *string);
bool jinja_skip(struct jinja_parser *p, enum jinja_token_kind kind, const char *string);
int jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *string);
int jinja_unexpected(struct jinja_parser *p, const char *expected);
int jinja_parse_fail(struct jinja_parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
int jinja_name(struct jinja_parser *p, const char **out); /* the current token, a name, as a string */

/* ---- rendering ---- */

struct jinja_variable {
    const char *name;
    struct jinja_value value;
    struct jinja_variable *next;
};

struct jinja_scope {
    const struct jinja_scope *outer;
    struct jinja_variable *first;
};

struct jinja_macro {
    const struct jinja_node *node;
    const struct jinja_scope *scope; /* where it stands */
};

/* What a body ended with. */
enum jinja_flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

int jinja_eval(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *n, const struct jinja_scope *s);
int jinja_call_macro(struct jinja_run *r, struct jinja_value *out, const struct jinja_macro *m, const struct jinja_args *a);
int jinja_run_body(struct jinja_run *r, struct text *out, const struct jinja_node *body, struct jinja_scope *s,
                   enum jinja_flow *flow);
int jinja_scope_set(struct jinja_run *r, struct jinja_scope *s, const char *name, struct jinja_value v);
const struct jinja_value *jinja_scope_find(const struct jinja_scope *s, const char *name);

/* v.name, v[key]; undefined where there is none. */
int jinja_field(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const char *name);
int jinja_index(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *key);
int jinja_binary(struct jinja_run *r, struct jinja_value *out, const char *operator, const struct jinja_value *a,
                 const struct jinja_value *b);
int jinja_contains(struct jinja_run *r, bool *in, const struct jinja_value *v, const struct jinja_value *item);

/* Calls c with arguments in the order of its keywords, absent ones undefined. Errors: too many, unknown, twice. */
int jinja_apply(struct jinja_run *r, struct jinja_value *out, const struct jinja_callable *c, const struct jinja_value *self,
                const struct jinja_args *a);

/* The tables; NULL: no such name. */
const struct jinja_callable *jinja_filter_find(const char *name);
const struct jinja_callable *jinja_list_filter_find(const char *name); /* of jinja_filter_find */
const struct jinja_callable *jinja_test_find(const char *name);
const struct jinja_callable *jinja_function_find(const char *name);
const struct jinja_callable *jinja_method_find(const struct jinja_value *v, const char *name);

extern const struct jinja_callable jinja_string_methods[]; /* up to a row without a name */

/* What filters and methods share; v is a string, for pairs a dict. chars: NULL-like (none, undefined): whitespace. */
enum jinja_case { CASE_LOWER, CASE_UPPER, CASE_CAPITALIZE, CASE_TITLE };
int jinja_change_case(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, enum jinja_case how);
int jinja_strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *chars,
                bool left, bool right);
int jinja_replace(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a);
int jinja_pairs(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v);

/* Is it a method of Python's that the sandbox or this program has not? */
bool jinja_method_refused(const struct jinja_value *v, const char *name);

#endif
