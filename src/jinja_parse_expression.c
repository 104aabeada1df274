/* Expressions of a template into a tree: jinja2/parser.py from parse_expression down. */
#include "jinja_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

static bool is_operator(const struct jinja_parser *p, const char *string)
{
    return jinja_at(p, TOKEN_OPERATOR, string);
}

static bool skip_operator(struct jinja_parser *p, const char *string)
{
    return jinja_skip(p, TOKEN_OPERATOR, string);
}

static bool is_word(const struct jinja_parser *p, const char *string)
{
    return jinja_at(p, TOKEN_NAME, string);
}

/* The current token, an operator or word, as the name of n. */
static int take_name(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_value copy;
    TRY(jinja_string(p->r, &copy, p->token->bytes, p->token->n));
    n->name = copy.text.bytes;
    p->token++;
    return 0;
}

/* *out = a new node, with *out as its a. */
static int wrap(struct jinja_parser *p, struct jinja_node **out, enum jinja_node_kind kind)
{
    struct jinja_node *n = jinja_node(p, kind);
    if (!n)
        return -1;
    n->a = *out;
    *out = n;
    return 0;
}

/* ---- literals ---- */

/* Digits without their underscores. */
static int number_text(struct jinja_parser *p, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < p->token->n; i++)
        if (p->token->bytes[i] != '_') {
            if (n + 1 == room)
                return jinja_parse_fail(p, "a number that is too large");
            out[n++] = p->token->bytes[i];
        }
    out[n] = 0;
    return 0;
}

static int parse_number(struct jinja_parser *p, struct jinja_value *out)
{
    char digits[64];
    TRY(number_text(p, digits, sizeof digits));
    errno = 0;
    *out = p->token->kind == TOKEN_INTEGER ? jinja_int(strtoll(digits, NULL, 10))
                                           : (struct jinja_value){.kind = JINJA_FLOAT, .real = strtod(digits, NULL)};
    if (errno == ERANGE)
        return jinja_parse_fail(p, "a number that is too large");
    if (p->token->kind == TOKEN_INTEGER && digits[0] == '0' && strspn(digits, "0") != strlen(digits))
        return jinja_parse_fail(p, "the number %s begins with 0", digits);
    p->token++;
    return 0;
}

/* "a" "b" is one string. */
static int parse_string(struct jinja_parser *p, struct jinja_value *out)
{
    struct text all = {0};
    int rc = 0;
    for (; !rc && p->token->kind == TOKEN_STRING; p->token++)
        rc = jinja_put(p->r, &all, p->token->bytes, p->token->n);
    if (!rc)
        rc = jinja_string(p->r, out, text_string(&all), all.n);
    text_free(&all);
    return rc;
}

/* Items up to the bracket, a comma between. */
static int parse_items(struct jinja_parser *p, struct jinja_node *n, const char *close)
{
    struct jinja_node **next = &n->items;
    p->token++;
    while (!is_operator(p, close)) {
        if (n->items)
            TRY(jinja_expect(p, TOKEN_OPERATOR, ","));
        if (is_operator(p, close))
            break;
        TRY(jinja_parse_expression(p, next));
        if (n->kind == NODE_DICT) {
            TRY(wrap(p, next, NODE_PAIR));
            TRY(jinja_expect(p, TOKEN_OPERATOR, ":"));
            TRY(jinja_parse_expression(p, &(*next)->b));
        }
        next = &(*next)->next;
    }
    return jinja_expect(p, TOKEN_OPERATOR, close);
}

static int parse_word(struct jinja_parser *p, struct jinja_node *n)
{
    const char *word;
    TRY(jinja_name(p, &word));
    n->kind = NODE_CONSTANT;
    if (!strcmp(word, "true") || !strcmp(word, "True"))
        n->value = jinja_bool(true);
    else if (!strcmp(word, "false") || !strcmp(word, "False"))
        n->value = jinja_bool(false);
    else if (!strcmp(word, "none") || !strcmp(word, "None"))
        n->value = jinja_none();
    else
        n->kind = NODE_NAME;
    n->name = word;
    return 0;
}

/* Parentheses: an expression, or a tuple, which may be empty. */
static int parse_parentheses(struct jinja_parser *p, struct jinja_node **out)
{
    p->token++;
    if (skip_operator(p, ")"))
        return (*out = jinja_node(p, NODE_TUPLE)) ? 0 : -1;
    TRY(jinja_parse_tuple(p, out));
    return jinja_expect(p, TOKEN_OPERATOR, ")");
}

static int parse_primary(struct jinja_parser *p, struct jinja_node **out)
{
    if (is_operator(p, "("))
        return parse_parentheses(p, out);
    struct jinja_node *n = *out = jinja_node(p, NODE_CONSTANT);
    if (!n)
        return -1;
    switch (p->token->kind) {
    case TOKEN_NAME:
        return parse_word(p, n);
    case TOKEN_STRING:
        return parse_string(p, &n->value);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        return parse_number(p, &n->value);
    default:
        break;
    }
    n->kind = is_operator(p, "[") ? NODE_LIST : NODE_DICT;
    if (!is_operator(p, "[") && !is_operator(p, "{"))
        return jinja_unexpected(p, "an expression");
    return parse_items(p, n, n->kind == NODE_LIST ? "]" : "}");
}

/* ---- behind a primary ---- */

static int parse_arguments(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node **next = &n->items;
    bool keywords = false;
    p->token++;
    while (!is_operator(p, ")")) {
        if (n->items)
            TRY(jinja_expect(p, TOKEN_OPERATOR, ","));
        if (is_operator(p, ")"))
            break;
        if (is_operator(p, "*") || is_operator(p, "**"))
            return jinja_parse_fail(p, "* and ** in a call are not supported");
        struct jinja_node *argument = *next = jinja_node(p, NODE_ARGUMENT);
        if (!argument)
            return -1;
        if (p->token->kind == TOKEN_NAME && p->token[1].kind == TOKEN_OPERATOR && p->token[1].n == 1 &&
            p->token[1].bytes[0] == '=') {
            TRY(jinja_name(p, &argument->name));
            p->token++;
            keywords = true;
        } else if (keywords) {
            return jinja_parse_fail(p, "an argument without a name behind one with a name");
        }
        TRY(jinja_parse_expression(p, &argument->a));
        next = &argument->next;
    }
    return jinja_expect(p, TOKEN_OPERATOR, ")");
}

/* A part of a slice, which may be missing. */
static int parse_bound(struct jinja_parser *p, struct jinja_node **out)
{
    return is_operator(p, ":") || is_operator(p, "]") ? 0 : jinja_parse_expression(p, out);
}

static int parse_index(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node *first = NULL;
    p->token++;
    TRY(parse_bound(p, &first));
    n->b = first;
    if (is_operator(p, ":")) {
        struct jinja_node *slice = n->b = jinja_node(p, NODE_SLICE);
        if (!slice)
            return -1;
        slice->a = first;
        p->token++;
        TRY(parse_bound(p, &slice->b));
        if (skip_operator(p, ":"))
            TRY(parse_bound(p, &slice->c));
    }
    return n->b ? jinja_expect(p, TOKEN_OPERATOR, "]") : jinja_unexpected(p, "an index");
}

static int parse_field(struct jinja_parser *p, struct jinja_node *n)
{
    p->token++;
    if (p->token->kind != TOKEN_INTEGER)
        return jinja_name(p, &n->name);
    n->kind = NODE_INDEX;
    n->b = jinja_node(p, NODE_CONSTANT);
    return n->b ? parse_number(p, &n->b->value) : -1;
}

static int parse_postfix(struct jinja_parser *p, struct jinja_node **out)
{
    for (;;) {
        if (is_operator(p, ".")) {
            TRY(wrap(p, out, NODE_FIELD));
            TRY(parse_field(p, *out));
        } else if (is_operator(p, "[")) {
            TRY(wrap(p, out, NODE_INDEX));
            TRY(parse_index(p, *out));
        } else if (is_operator(p, "(")) {
            TRY(wrap(p, out, NODE_CALL));
            TRY(parse_arguments(p, *out));
        } else {
            return 0;
        }
    }
}

static int parse_filter(struct jinja_parser *p, struct jinja_node **out)
{
    p->token++;
    TRY(wrap(p, out, NODE_FILTER));
    struct jinja_node *n = *out;
    TRY(jinja_name(p, &n->name));
    n->callable = jinja_filter_find(n->name);
    if (!n->callable) {
        p->token--;
        return jinja_parse_fail(p, "the filter \"%.40s\" is not supported", n->name);
    }
    return is_operator(p, "(") ? parse_arguments(p, n) : 0;
}

/* Does an argument without parentheses follow, as in "x is divisibleby 3"? */
static bool argument_follows(const struct jinja_parser *p)
{
    const enum jinja_token_kind kind = p->token->kind;
    if (kind == TOKEN_NAME)
        return !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and");
    return kind == TOKEN_STRING || kind == TOKEN_INTEGER || kind == TOKEN_FLOAT || is_operator(p, "[") || is_operator(p, "{");
}

static int parse_test(struct jinja_parser *p, struct jinja_node **out)
{
    p->token++;
    const bool negated = jinja_skip(p, TOKEN_NAME, "not");
    TRY(wrap(p, out, NODE_TEST));
    struct jinja_node *n = *out;
    TRY(jinja_name(p, &n->name));
    n->callable = jinja_test_find(n->name);
    if (!n->callable) {
        p->token--;
        return jinja_parse_fail(p, "the test \"%.40s\" is not supported", n->name);
    }
    if (is_operator(p, "(")) {
        TRY(parse_arguments(p, n));
    } else if (n->callable->max > 0 && argument_follows(p)) {
        if (is_word(p, "is"))
            return jinja_parse_fail(p, "tests cannot be chained with \"is\"");
        n->items = jinja_node(p, NODE_ARGUMENT);
        if (!n->items)
            return -1;
        TRY(parse_primary(p, &n->items->a));
        TRY(parse_postfix(p, &n->items->a));
    }
    return negated ? wrap(p, out, NODE_NOT) : 0;
}

static int parse_filters(struct jinja_parser *p, struct jinja_node **out)
{
    for (;;) {
        if (is_operator(p, "|")) {
            TRY(parse_filter(p, out));
        } else if (is_word(p, "is")) {
            TRY(parse_test(p, out));
        } else if (is_operator(p, "(")) {
            TRY(wrap(p, out, NODE_CALL));
            TRY(parse_arguments(p, *out));
        } else {
            return 0;
        }
    }
}

/* ---- operators, the tightest first ---- */

static int parse_unary(struct jinja_parser *p, struct jinja_node **out, bool with_filters)
{
    TRY(jinja_enter(p->r));
    if (is_operator(p, "-") || is_operator(p, "+")) {
        struct jinja_node *n = *out = jinja_node(p, NODE_UNARY);
        if (!n)
            return -1;
        TRY(take_name(p, n));
        TRY(parse_unary(p, &n->a, false));
    } else {
        TRY(parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    jinja_leave(p->r);
    return with_filters ? parse_filters(p, out) : 0;
}

typedef int (*parse)(struct jinja_parser *p, struct jinja_node **out);

static int parse_operand(struct jinja_parser *p, struct jinja_node **out)
{
    return parse_unary(p, out, true);
}

/* next (operator next)*, grouped from the left. */
static int parse_binary(struct jinja_parser *p, struct jinja_node **out, const char *const *operators, parse next)
{
    TRY(next(p, out));
    for (int i = 0; operators[i]; i++)
        if (is_operator(p, operators[i])) {
            TRY(wrap(p, out, NODE_BINARY));
            TRY(take_name(p, *out));
            TRY(next(p, &(*out)->b));
            i = -1;
        }
    return 0;
}

static int parse_power(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const operators[] = {"**", NULL};
    return parse_binary(p, out, operators, parse_operand);
}

static int parse_product(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const operators[] = {"*", "/", "//", "%", NULL};
    return parse_binary(p, out, operators, parse_power);
}

static int parse_concat(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(parse_product(p, out));
    if (!is_operator(p, "~"))
        return 0;
    struct jinja_node *n = jinja_node(p, NODE_CONCAT), *last = *out;
    if (!n)
        return -1;
    n->items = *out;
    *out = n;
    while (skip_operator(p, "~")) {
        TRY(parse_product(p, &last->next));
        last = last->next;
    }
    return 0;
}

static int parse_sum(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const operators[] = {"+", "-", NULL};
    return parse_binary(p, out, operators, parse_concat);
}

/* The operator of a comparison at the current token, which it goes behind; NULL: none. */
static const char *compare_operator(struct jinja_parser *p)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">", NULL};
    for (int i = 0; operators[i]; i++)
        if (skip_operator(p, operators[i]))
            return operators[i];
    if (jinja_skip(p, TOKEN_NAME, "in"))
        return "in";
    if (is_word(p, "not") && p->token[1].kind == TOKEN_NAME && p->token[1].n == 2 && !memcmp(p->token[1].bytes, "in", 2)) {
        p->token += 2;
        return "not in";
    }
    return NULL;
}

static int parse_compare(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(parse_sum(p, out));
    struct jinja_node **next = NULL;
    for (const char *operator; (operator = compare_operator(p));) {
        if (!next) {
            TRY(wrap(p, out, NODE_COMPARE));
            next = &(*out)->items;
        }
        struct jinja_node *side = *next = jinja_node(p, NODE_PAIR);
        if (!side)
            return -1;
        side->name = operator;
        TRY(parse_sum(p, &side->b));
        next = &side->next;
    }
    return 0;
}

static int parse_not(struct jinja_parser *p, struct jinja_node **out)
{
    if (!is_word(p, "not"))
        return parse_compare(p, out);
    TRY(jinja_enter(p->r));
    struct jinja_node *n = *out = jinja_node(p, NODE_NOT);
    if (!n)
        return -1;
    p->token++;
    TRY(parse_not(p, &n->a));
    jinja_leave(p->r);
    return 0;
}

static int parse_and(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(parse_not(p, out));
    while (jinja_skip(p, TOKEN_NAME, "and")) {
        TRY(wrap(p, out, NODE_AND));
        TRY(parse_not(p, &(*out)->b));
    }
    return 0;
}

int jinja_parse_or(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(parse_and(p, out));
    while (jinja_skip(p, TOKEN_NAME, "or")) {
        TRY(wrap(p, out, NODE_OR));
        TRY(parse_and(p, &(*out)->b));
    }
    return 0;
}

int jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(jinja_enter(p->r));
    TRY(jinja_parse_or(p, out));
    while (jinja_skip(p, TOKEN_NAME, "if")) {
        TRY(wrap(p, out, NODE_CHOICE));
        TRY(jinja_parse_or(p, &(*out)->b));
        if (jinja_skip(p, TOKEN_NAME, "else"))
            TRY(jinja_parse_expression(p, &(*out)->c));
    }
    jinja_leave(p->r);
    return 0;
}

static bool at_tuple_end(const struct jinja_parser *p)
{
    return p->token->kind == TOKEN_OUTPUT_END || p->token->kind == TOKEN_BLOCK_END || is_operator(p, ")");
}

int jinja_parse_tuple(struct jinja_parser *p, struct jinja_node **out)
{
    TRY(jinja_parse_expression(p, out));
    if (!is_operator(p, ","))
        return 0;
    struct jinja_node *n = jinja_node(p, NODE_TUPLE), *last = *out;
    if (!n)
        return -1;
    n->items = *out;
    *out = n;
    while (skip_operator(p, ",") && !at_tuple_end(p)) {
        TRY(jinja_parse_expression(p, &last->next));
        last = last->next;
    }
    return 0;
}

static int parse_one_target(struct jinja_parser *p, struct jinja_node **out, bool with_fields)
{
    struct jinja_node *n = *out = jinja_node(p, NODE_TARGET);
    if (!n)
        return -1;
    TRY(jinja_name(p, &n->name));
    if (with_fields && skip_operator(p, "."))
        TRY(jinja_name(p, &n->attribute));
    return 0;
}

int jinja_parse_target(struct jinja_parser *p, struct jinja_node **out, bool with_fields)
{
    const bool parentheses = skip_operator(p, "(");
    struct jinja_node *first;
    TRY(parse_one_target(p, &first, with_fields));
    *out = first;
    if (is_operator(p, ",")) {
        struct jinja_node *n = *out = jinja_node(p, NODE_TARGET);
        if (!n)
            return -1;
        n->items = first;
        while (skip_operator(p, ",") && p->token->kind == TOKEN_NAME && !is_word(p, "in")) {
            TRY(parse_one_target(p, &first->next, with_fields));
            first = first->next;
        }
    }
    return parentheses ? jinja_expect(p, TOKEN_OPERATOR, ")") : 0;
}
