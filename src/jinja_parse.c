/* Statements of a template into a tree: jinja2/parser.py, parse_statement. */
#include "jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "jinja_tree.h"
#include "unicode.h"

enum { SOURCE_BYTES_MAX = 4 << 20 };

struct jinja {
    struct jinja_pool pool;
    char *name;
    struct jinja_node *body;
};

/* ---- tokens ---- */

struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_node_kind kind)
{
    struct jinja_node *n = jinja_alloc(&p->r->pool, sizeof *n);
    if (n)
        *n = (struct jinja_node){.kind = kind, .line = p->token->line};
    else
        jinja_parse_fail(p, "the template is too large");
    return n;
}

int jinja_parse_fail(struct jinja_parser *p, const char *format, ...)
{
    char message[256];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    p->r->line = p->token->line;
    return jinja_fail(p->r, "%s", message);
}

int jinja_unexpected(struct jinja_parser *p, const char *expected)
{
    const struct jinja_token *t = p->token;
    static const char *const tags[] = {"text", "{{", "}}", "{%", "%}"};
    if (t->kind == TOKEN_END)
        return jinja_parse_fail(p, "the template ends where %s was expected", expected);
    if (t->kind <= TOKEN_BLOCK_END)
        return jinja_parse_fail(p, "%s where %s was expected", tags[t->kind], expected);
    return jinja_parse_fail(p, "\"%.*s\" where %s was expected", t->n > 40 ? 40 : (int)t->n, t->bytes, expected);
}

bool jinja_at(const struct jinja_parser *p, enum jinja_token_kind kind, const char *string)
{
    const struct jinja_token *t = p->token;
    return t->kind == kind && (!string || (t->n == strlen(string) && !memcmp(t->bytes, string, t->n)));
}

bool jinja_skip(struct jinja_parser *p, enum jinja_token_kind kind, const char *string)
{
    if (!jinja_at(p, kind, string))
        return false;
    p->token++;
    return true;
}

int jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *string)
{
    char expected[32];
    if (jinja_skip(p, kind, string))
        return 0;
    snprintf(expected, sizeof expected, "\"%s\"", string ? string : kind == TOKEN_OUTPUT_END ? "}}" : "%}");
    return jinja_unexpected(p, expected);
}

int jinja_name(struct jinja_parser *p, const char **out)
{
    struct jinja_value copy;
    if (p->token->kind != TOKEN_NAME)
        return jinja_unexpected(p, "a name");
    TRY(jinja_string(p->r, &copy, p->token->bytes, p->token->n));
    *out = copy.text.bytes;
    p->token++;
    return 0;
}

/* ---- tags ---- */

/* {% word .. %}: what follows the word. */
struct tag {
    const char *word;
    int (*parse)(struct jinja_parser *p, struct jinja_node **out);
};

static int end_block(struct jinja_parser *p)
{
    return jinja_expect(p, TOKEN_BLOCK_END, NULL);
}

/* Up to {% end %}, which it goes behind but for its %}. */
static int parse_block(struct jinja_parser *p, struct jinja_node **body, const char *end)
{
    const char *const ends[] = {end, NULL};
    TRY(end_block(p));
    TRY(jinja_parse_body(p, body, ends));
    p->token++;
    return 0;
}

static int parse_if(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jinja_node *n = *out = jinja_node(p, NODE_IF);
    if (!n)
        return -1;
    for (;;) {
        TRY(jinja_parse_or(p, &n->a));
        TRY(end_block(p));
        TRY(jinja_parse_body(p, &n->body, ends));
        if (!jinja_skip(p, TOKEN_NAME, "elif"))
            break;
        n = n->other = jinja_node(p, NODE_IF);
        if (!n)
            return -1;
    }
    if (jinja_skip(p, TOKEN_NAME, "else"))
        return parse_block(p, &n->other, "endif");
    p->token++;
    return 0;
}

static int parse_for(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    struct jinja_node *n = *out = jinja_node(p, NODE_FOR);
    if (!n)
        return -1;
    TRY(jinja_parse_target(p, &n->items, false));
    if (!jinja_skip(p, TOKEN_NAME, "in"))
        return jinja_unexpected(p, "\"in\"");
    TRY(jinja_parse_or(p, &n->a));
    if (jinja_skip(p, TOKEN_NAME, "if"))
        TRY(jinja_parse_expression(p, &n->b));
    if (jinja_at(p, TOKEN_NAME, "recursive"))
        return jinja_parse_fail(p, "\"recursive\" loops are not supported");
    TRY(end_block(p));
    p->loops++;
    TRY(jinja_parse_body(p, &n->body, ends));
    p->loops--;
    if (jinja_skip(p, TOKEN_NAME, "else"))
        return parse_block(p, &n->other, "endfor");
    p->token++;
    return 0;
}

static int parse_set(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *n = *out = jinja_node(p, NODE_SET);
    if (!n)
        return -1;
    TRY(jinja_parse_target(p, &n->items, true));
    if (jinja_skip(p, TOKEN_OPERATOR, "="))
        return jinja_parse_tuple(p, &n->a);
    n->kind = NODE_SET_BLOCK;
    if (jinja_at(p, TOKEN_OPERATOR, "|"))
        return jinja_parse_fail(p, "a filter of a {%% set %%} block is not supported");
    return parse_block(p, &n->body, "endset");
}

static int parse_parameters(struct jinja_parser *p, struct jinja_node **next)
{
    TRY(jinja_expect(p, TOKEN_OPERATOR, "("));
    for (bool first = true; !jinja_skip(p, TOKEN_OPERATOR, ")"); first = false) {
        if (!first)
            TRY(jinja_expect(p, TOKEN_OPERATOR, ","));
        struct jinja_node *n = *next = jinja_node(p, NODE_ARGUMENT);
        if (!n)
            return -1;
        TRY(jinja_name(p, &n->name));
        if (jinja_skip(p, TOKEN_OPERATOR, "="))
            TRY(jinja_parse_expression(p, &n->a));
        next = &n->next;
    }
    return 0;
}

static int parse_macro(struct jinja_parser *p, struct jinja_node **out)
{
    const int loops = p->loops;
    struct jinja_node *n = *out = jinja_node(p, NODE_MACRO);
    if (!n)
        return -1;
    TRY(jinja_name(p, &n->name));
    TRY(parse_parameters(p, &n->items));
    p->loops = 0;
    TRY(parse_block(p, &n->body, "endmacro"));
    p->loops = loops;
    return 0;
}

/* Marks what the assistant said for transformers' masks: its text stands as it is, in a scope of its own. */
static int parse_generation(struct jinja_parser *p, struct jinja_node **out)
{
    const int loops = p->loops;
    struct jinja_node *n = *out = jinja_node(p, NODE_SCOPE);
    if (!n)
        return -1;
    p->loops = 0;
    TRY(parse_block(p, &n->body, "endgeneration"));
    p->loops = loops;
    return 0;
}

static int parse_jump(struct jinja_parser *p, struct jinja_node **out, enum jinja_node_kind kind, const char *word)
{
    if (!p->loops)
        return jinja_parse_fail(p, "{%% %s %%} outside of a loop", word);
    *out = jinja_node(p, kind);
    return *out ? 0 : -1;
}

static int parse_break(struct jinja_parser *p, struct jinja_node **out)
{
    return parse_jump(p, out, NODE_BREAK, "break");
}

static int parse_continue(struct jinja_parser *p, struct jinja_node **out)
{
    return parse_jump(p, out, NODE_CONTINUE, "continue");
}

static const struct tag tags[] = {
    {"if", parse_if},       {"for", parse_for},     {"set", parse_set},           {"macro", parse_macro},
    {"break", parse_break}, {"continue", parse_continue}, {"generation", parse_generation},
};

static int parse_tag(struct jinja_parser *p, struct jinja_node **out)
{
    if (p->token->kind != TOKEN_NAME)
        return jinja_unexpected(p, "the name of a tag");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (jinja_skip(p, TOKEN_NAME, tags[i].word)) {
            TRY(tags[i].parse(p, out));
            return end_block(p);
        }
    if (p->token->n > 3 && !memcmp(p->token->bytes, "end", 3))
        return jinja_parse_fail(p, "{%% %.*s %%} ends nothing that is open", p->token->n > 40 ? 40 : (int)p->token->n,
                                p->token->bytes);
    return jinja_parse_fail(p, "the tag {%% %.*s %%} is not supported", p->token->n > 40 ? 40 : (int)p->token->n,
                            p->token->bytes);
}

static bool at_end(const struct jinja_parser *p, const char *const *ends)
{
    for (int i = 0; ends && ends[i]; i++)
        if (jinja_at(p, TOKEN_NAME, ends[i]))
            return true;
    return false;
}

static int parse_statement(struct jinja_parser *p, struct jinja_node **out)
{
    if (p->token->kind == TOKEN_TEXT) {
        if (!(*out = jinja_node(p, NODE_TEXT)))
            return -1;
        (*out)->value = jinja_borrow(p->token->bytes, p->token->n);
        p->token++;
        return 0;
    }
    if (!jinja_skip(p, TOKEN_OUTPUT_BEGIN, NULL))
        return parse_tag(p, out);
    if (!(*out = jinja_node(p, NODE_OUTPUT)))
        return -1;
    TRY(jinja_parse_tuple(p, &(*out)->a));
    return jinja_expect(p, TOKEN_OUTPUT_END, NULL);
}

int jinja_parse_body(struct jinja_parser *p, struct jinja_node **out, const char *const *ends)
{
    const int line = p->token->line;
    TRY(jinja_enter(p->r));
    while (p->token->kind != TOKEN_END) {
        if (jinja_skip(p, TOKEN_BLOCK_BEGIN, NULL) && at_end(p, ends)) {
            jinja_leave(p->r);
            return 0;
        }
        TRY(parse_statement(p, out));
        out = &(*out)->next;
    }
    jinja_leave(p->r);
    return ends ? jinja_parse_fail(p, "the template ends without the {%% %s %%} for line %d", ends[ends[1] ? (ends[2] ? 2 : 1) : 0],
                                   line)
                : 0;
}

/* ---- the template ---- */

/* Newlines as \n; one at the end is dropped. */
static int copy_source(struct jinja_run *r, struct jinja_value *out, const char *source, size_t n)
{
    struct text copy = {0};
    text_reserve(&copy, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
            i++;
        text_add(&copy, source[i] == '\r' ? "\n" : source + i, 1);
    }
    if (copy.n && copy.bytes[copy.n - 1] == '\n')
        copy.n--;
    int rc = jinja_string(r, out, text_string(&copy), copy.n);
    text_free(&copy);
    return rc;
}

static int parse(struct jinja *j, struct jinja_run *r, const char *source, size_t n)
{
    struct jinja_tokens tokens = {0};
    struct jinja_value copy;
    if (n > SOURCE_BYTES_MAX)
        return error_set(ERR_FILE, "%s: a chat template of %zu bytes: more than %d MiB", j->name, n, SOURCE_BYTES_MAX >> 20);
    if (utf8_check(source, n) < n)
        return error_set(ERR_FILE, "%s: not UTF-8 at byte %zu", j->name, utf8_check(source, n));
    TRY(copy_source(r, &copy, source, n));
    int rc = jinja_lex(&tokens, r, copy.text.bytes, copy.text.n);
    struct jinja_parser p = {.r = r, .token = tokens.token};
    if (!rc)
        rc = jinja_parse_body(&p, &j->body, NULL);
    jinja_tokens_free(&tokens);
    return rc;
}

struct jinja *jinja_parse(const char *name, const char *source, size_t n)
{
    struct jinja *j = calloc(1, sizeof *j);
    CHECK(j, "out of memory");
    j->name = strdup(name);
    CHECK(j->name, "out of memory");
    struct jinja_run r = {.name = j->name, .line = 1};
    const int rc = parse(j, &r, source, n);
    j->pool = r.pool;
    if (!rc)
        return j;
    jinja_free(j);
    return NULL;
}

void jinja_free(struct jinja *j)
{
    if (!j)
        return;
    jinja_pool_free(&j->pool);
    free(j->name);
    free(j);
}

/* ---- rendering ---- */

static int render(const struct jinja *j, struct jinja_run *r, struct text *out, const json_t *variables)
{
    struct jinja_value values;
    struct jinja_scope scope = {0};
    enum jinja_flow flow;
    TRY(jinja_from_json(r, &values, variables));
    for (size_t i = 0; i < values.dict->n; i++)
        TRY(jinja_scope_set(r, &scope, values.dict->key[i].text.bytes, values.dict->value[i]));
    return jinja_run_body(r, out, j->body, &scope, &flow);
}

int jinja_render(const struct jinja *j, struct text *out, const json_t *variables, time_t now)
{
    struct jinja_run r = {.name = j->name, .line = 1, .now = now};
    CHECK(json_is_object(variables), "variables of a template");
    const int rc = render(j, &r, out, variables);
    jinja_pool_free(&r.pool);
    return rc;
}
