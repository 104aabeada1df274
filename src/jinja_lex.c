/* Tokens of a template: jinja2/lexer.py with trim_blocks and lstrip_blocks.
 *
 * A tag {%- takes the whitespace before it, -%} what is behind it. {% and {# without a sign take the blanks between the
 * beginning of their line and themselves; %} and #} without a sign the newline behind them. Within ( [ { the characters
 * of %} and }} are operators.
 */
#include "jinja_tree.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unicode.h"

struct lexer {
    struct jinja_tokens *out;
    struct jinja_run *r;
    const char *source;
    size_t n, at;
    int line;
    bool line_starting; /* what was read last ended in a newline, or nothing was */
};

void jinja_tokens_free(struct jinja_tokens *t)
{
    free(t->token);
    *t = (struct jinja_tokens){0};
}

static void add(struct lexer *l, enum jinja_token_kind kind, const char *bytes, size_t n)
{
    struct jinja_tokens *t = l->out;
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 256;
        t->token = realloc(t->token, t->room * sizeof *t->token);
        CHECK(t->token, "out of memory for a chat template");
    }
    t->token[t->n++] = (struct jinja_token){kind, l->line, bytes, n};
}

static int fail(struct lexer *l, const char *what)
{
    l->r->line = l->line;
    return jinja_fail(l->r, "%s", what);
}

static bool is_next(const struct lexer *l, size_t at, const char *string)
{
    const size_t n = strlen(string);
    return l->n - at >= n && !memcmp(l->source + at, string, n);
}

/* Goes to `to`, counting lines. */
static void go(struct lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->source[l->at] == '\n';
}

/* Length of the whitespace character at i (Python's \s); 0: it is none. */
static size_t space_at(const struct lexer *l, size_t i)
{
    uint32_t c;
    if (i >= l->n)
        return 0;
    const int n = utf8_decode(&c, l->source + i);
    return unicode_is_space(c) || (c >= 0x1c && c <= 0x1f) ? (size_t)n : 0;
}

static size_t skip_space(const struct lexer *l, size_t i)
{
    for (size_t n; (n = space_at(l, i)) > 0;)
        i += n;
    return i;
}

/* Where the whitespace begins that ends at `to`. */
static size_t space_before(const struct lexer *l, size_t from, size_t to)
{
    while (to > from) {
        size_t i = to - 1;
        while (i > from && ((unsigned char)l->source[i] & 0xc0) == 0x80)
            i--;
        if (!space_at(l, i))
            break;
        to = i;
    }
    return to;
}

/* The text from l->at to the tag at `tag`, whose sign is sign. */
static void put_text(struct lexer *l, size_t tag, char sign, bool output)
{
    size_t end = tag;
    if (sign == '-') {
        end = space_before(l, l->at, tag);
    } else if (sign != '+' && !output) {
        size_t line = tag;
        while (line > l->at && l->source[line - 1] != '\n')
            line--;
        if ((line > l->at || l->line_starting) && space_before(l, line, tag) == line)
            end = line;
    }
    if (end > l->at)
        add(l, TOKEN_TEXT, l->source + l->at, end - l->at);
    go(l, tag);
}

/* Behind the end of a tag at l->at, which has `length` characters: what it takes of the text that follows. */
static void end_tag(struct lexer *l, size_t length, char sign, bool trim)
{
    size_t to = l->at + length;
    if (sign == '-')
        to = skip_space(l, to);
    else if (sign != '+' && trim && to < l->n && l->source[to] == '\n')
        to++;
    go(l, to);
    l->line_starting = l->source[l->at - 1] == '\n';
}

/* Is a tag's end at l->at? Its length with the sign; 0: no. */
static size_t tag_end(const struct lexer *l, size_t at, const char *end, bool plus, char *sign)
{
    *sign = is_next(l, at, "-") ? '-' : plus && is_next(l, at, "+") ? '+' : 0;
    return is_next(l, at + (*sign != 0), end) ? 2 + (size_t)(*sign != 0) : 0;
}

/* ---- literals ---- */

static int hex_digits(struct lexer *l, uint32_t *c, size_t at, int n)
{
    *c = 0;
    for (int i = 0; i < n; i++) {
        const char d = at + (size_t)i < l->n ? l->source[at + (size_t)i] : 0;
        if (!isxdigit((unsigned char)d))
            return fail(l, "a string with an unfinished \\x or \\u escape");
        *c = *c * 16 + (uint32_t)(isdigit((unsigned char)d) ? d - '0' : tolower(d) - 'a' + 10);
    }
    if (*c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
        return fail(l, "a string with an escape that is no character");
    return 0;
}

/* The escape behind the backslash at *at, as Python reads it; moves *at behind it. */
static int unescape(struct lexer *l, struct text *out, size_t *at)
{
    static const char names[] = "abfnrtv'\"\\", bytes[] = "\a\b\f\n\r\t\v'\"\\";
    const char c = l->source[*at + 1];
    const char *named = strchr(names, c);
    uint32_t code = 0;
    char encoded[4];
    *at += 2;
    if (c == '\n')
        return 0;
    if (c && named)
        return jinja_put(l->r, out, bytes + (named - names), 1);
    if (c == 'x' || c == 'u' || c == 'U') {
        const int n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        TRY(hex_digits(l, &code, *at, n));
        *at += (size_t)n;
    } else if (c >= '0' && c <= '7') {
        --*at;
        for (int i = 0; i < 3 && l->source[*at] >= '0' && l->source[*at] <= '7'; i++)
            code = code * 8 + (uint32_t)(l->source[(*at)++] - '0');
    } else if (c == 'N') {
        return fail(l, "a string with the escape \\N, which is not supported");
    } else {
        --*at;
        return jinja_put(l->r, out, "\\", 1);
    }
    return jinja_put(l->r, out, encoded, (size_t)utf8_encode(encoded, code));
}

static int put_string(struct lexer *l)
{
    const char quote = l->source[l->at];
    size_t end = l->at + 1;
    while (end < l->n && l->source[end] != quote)
        end += l->source[end] == '\\' && end + 1 < l->n ? 2 : 1;
    if (end >= l->n)
        return fail(l, "a string without its closing quote");
    struct text bytes = {0};
    int rc = 0;
    for (size_t at = l->at + 1; !rc && at < end;) {
        if (l->source[at] == '\\')
            rc = unescape(l, &bytes, &at);
        else
            rc = jinja_put(l->r, &bytes, l->source + at++, 1);
    }
    struct jinja_value copy = jinja_none();
    if (!rc)
        rc = jinja_string(l->r, &copy, text_string(&bytes), bytes.n);
    text_free(&bytes);
    TRY(rc);
    add(l, TOKEN_STRING, copy.text.bytes, copy.text.n);
    go(l, end + 1);
    return 0;
}

static size_t skip_digits(const struct lexer *l, size_t i)
{
    while (i < l->n && (isdigit((unsigned char)l->source[i]) ||
                        (l->source[i] == '_' && i + 1 < l->n && isdigit((unsigned char)l->source[i + 1]))))
        i++;
    return i;
}

static void put_number(struct lexer *l)
{
    size_t end = skip_digits(l, l->at);
    enum jinja_token_kind kind = TOKEN_INTEGER;
    const bool field = l->at > 0 && l->source[l->at - 1] == '.'; /* a.0 */
    if (!field && end + 1 < l->n && l->source[end] == '.' && isdigit((unsigned char)l->source[end + 1])) {
        kind = TOKEN_FLOAT;
        end = skip_digits(l, end + 1);
    }
    size_t exponent = end + 1;
    if (!field && end < l->n && (l->source[end] == 'e' || l->source[end] == 'E')) {
        exponent += exponent < l->n && (l->source[exponent] == '+' || l->source[exponent] == '-');
        if (exponent < l->n && isdigit((unsigned char)l->source[exponent])) {
            kind = TOKEN_FLOAT;
            end = skip_digits(l, exponent);
        }
    }
    add(l, kind, l->source + l->at, end - l->at);
    go(l, end);
}

/* ---- tags ---- */

enum { NESTING_MAX = 512 };

static int put_operator(struct lexer *l, char *open, int *depth)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", NULL};
    const char c = l->source[l->at];
    size_t n = 1;
    for (int i = 0; operators[i]; i++)
        if (is_next(l, l->at, operators[i]))
            n = 2;
    if (n == 1 && !(c && strchr("+-/*%~[](){}<>=.:|,;", c)))
        return fail(l, "a character that means nothing in a tag");
    if (c == '(' || c == '[' || c == '{') {
        if (*depth == NESTING_MAX)
            return fail(l, "brackets nested too deep");
        open[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if ((c == ')' || c == ']' || c == '}') && (*depth == 0 || open[--*depth] != c)) {
        return fail(l, "a closing bracket that none opened");
    }
    add(l, TOKEN_OPERATOR, l->source + l->at, n);
    go(l, l->at + n);
    return 0;
}

static bool is_name(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* The inside of {{ or {%, and its end. */
static int lex_tag(struct lexer *l, bool output)
{
    char open[NESTING_MAX], sign;
    int depth = 0;
    for (;;) {
        go(l, skip_space(l, l->at));
        if (l->at == l->n)
            return fail(l, output ? "{{ without its }}" : "{% without its %}");
        const size_t end = depth ? 0 : tag_end(l, l->at, output ? "}}" : "%}", !output, &sign);
        const char c = l->source[l->at];
        if (end) {
            add(l, output ? TOKEN_OUTPUT_END : TOKEN_BLOCK_END, l->source + l->at, end);
            end_tag(l, end, sign, !output);
            return 0;
        }
        if (isdigit((unsigned char)c)) {
            put_number(l);
        } else if (is_name(c)) {
            size_t to = l->at;
            while (to < l->n && is_name(l->source[to]))
                to++;
            add(l, TOKEN_NAME, l->source + l->at, to - l->at);
            go(l, to);
        } else if (c == '\'' || c == '"') {
            TRY(put_string(l));
        } else {
            TRY(put_operator(l, open, &depth));
        }
    }
}

static int lex_comment(struct lexer *l)
{
    char sign;
    for (size_t at = l->at; at < l->n; at++) {
        const size_t end = tag_end(l, at, "#}", true, &sign);
        if (end) {
            go(l, at);
            end_tag(l, end, sign, true);
            return 0;
        }
    }
    return fail(l, "{# without its #}");
}

/* Is {% word %} at `at`, with any signs? *close: where its end begins. */
static bool is_block(const struct lexer *l, size_t at, const char *word, char *sign, size_t *close, size_t *end)
{
    char ending;
    if (!is_next(l, at, "{%"))
        return false;
    *sign = is_next(l, at + 2, "-") ? '-' : is_next(l, at + 2, "+") ? '+' : 0;
    at = skip_space(l, at + 2 + (*sign != 0));
    if (!is_next(l, at, word))
        return false;
    *close = skip_space(l, at + strlen(word));
    *end = tag_end(l, *close, "%}", true, &ending);
    return *end > 0;
}

/* Behind {% raw %}: text up to {% endraw %}. */
static int lex_raw(struct lexer *l)
{
    char sign, ending;
    size_t close, end;
    for (size_t at = l->at; at < l->n; at++)
        if (is_block(l, at, "endraw", &sign, &close, &end)) {
            put_text(l, at, sign, false);
            go(l, close);
            tag_end(l, l->at, "%}", true, &ending);
            end_tag(l, end, ending, true);
            return 0;
        }
    return fail(l, "{% raw %} without its {% endraw %}");
}

static size_t find_tag(const struct lexer *l)
{
    for (size_t i = l->at; i + 1 < l->n; i++)
        if (l->source[i] == '{' && (l->source[i + 1] == '{' || l->source[i + 1] == '%' || l->source[i + 1] == '#'))
            return i;
    return l->n;
}

static int lex_next(struct lexer *l, size_t tag)
{
    char sign, ending;
    size_t close, end;
    const char kind = l->source[tag + 1];
    const bool raw = is_block(l, tag, "raw", &sign, &close, &end);
    sign = is_next(l, tag + 2, "-") ? '-' : is_next(l, tag + 2, "+") ? '+' : 0;
    put_text(l, tag, sign, kind == '{');
    l->line_starting = false;
    if (raw) { /* {% raw %} takes no newline */
        go(l, close);
        tag_end(l, l->at, "%}", true, &ending);
        end_tag(l, end, ending, false);
        return lex_raw(l);
    }
    if (kind != '#')
        add(l, kind == '{' ? TOKEN_OUTPUT_BEGIN : TOKEN_BLOCK_BEGIN, l->source + tag, 2);
    go(l, tag + 2 + (sign != 0));
    return kind == '#' ? lex_comment(l) : lex_tag(l, kind == '{');
}

int jinja_lex(struct jinja_tokens *out, struct jinja_run *r, const char *source, size_t n)
{
    struct lexer l = {.out = out, .r = r, .source = source, .n = n, .line = 1, .line_starting = true};
    while (l.at < n) {
        const size_t tag = find_tag(&l);
        if (tag == n) {
            add(&l, TOKEN_TEXT, source + l.at, n - l.at);
            go(&l, n);
        } else {
            TRY(lex_next(&l, tag));
        }
    }
    add(&l, TOKEN_END, source + n, 0);
    return 0;
}
