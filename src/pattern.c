/* PCRE2 behind three functions. Depth and heap limits are lifted, and a search may take more steps in a longer text: length
 * is no error, a regex that backtracks without end is one. Where the JIT's stack is too small for a text (patterns that
 * remember a position for each character), the interpreter takes over. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pattern.h"

#include "error.h"
#include "unicode.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { REGEX_MAX_BYTES = 65536, JIT_STACK_BYTES = 8 << 20 };
enum { SEARCH_STEPS = 10000000, STEPS_A_BYTE = 7 }; /* PCRE2's own limit; 32 bits hold that of the longest text, 512 MiB */

/* White_Space as members of a set; PCRE2's \s has U+180E too. Alphabetic, marks, Nd and Pc are what Oniguruma's \w is. */
#define SPACE_SET                                                                                  \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"   \
    "\\x{3000}"
#define WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX_SET  "0-9a-fA-F"

static void add_class(struct text *out, const char *set, bool in_set)
{
    if (in_set)
        text_add_string(out, set);
    else
        text_format(out, "[%s]", set);
}

/* Writes the escape at s[0] = '\\' and returns its length. */
static int rewrite_escape(struct text *out, const char *s, size_t n, bool in_set, int *length)
{
    if (n < 2)
        return error_set(ERR_FILE, "the regex ends in a backslash");
    *length = 2;
    const char *set = s[1] == 's'   ? SPACE_SET
                      : s[1] == 'w' ? WORD_SET
                      : s[1] == 'h' ? HEX_SET
                                    : NULL;
    const char *complement = s[1] == 'S'   ? SPACE_SET
                             : s[1] == 'W' ? WORD_SET
                             : s[1] == 'H' ? HEX_SET
                                           : NULL;
    if (set) {
        add_class(out, set, in_set);
    } else if (complement && !in_set) {
        text_format(out, "[^%s]", complement);
    } else if (s[1] == 'S') {
        text_add_string(out, "\\S\\x{180e}");
    } else if (complement) {
        return error_set(ERR_FILE, "\\%c inside [..] of a regex is not supported", s[1]);
    } else {
        text_add(out, s, 2);
    }
    return 0;
}

static int rewrite_regex(struct text *out, const char *s, size_t n)
{
    bool in_set = false;
    for (size_t i = 0; i < n;) {
        if (s[i] == '\\') {
            int length;
            TRY(rewrite_escape(out, s + i, n - i, in_set, &length));
            i += (size_t)length;
            continue;
        }
        if (in_set && s[i] == '[') {
            const char *close = i + 1 < n && s[i + 1] == ':' ? memchr(s + i, ']', n - i) : NULL;
            if (!close)
                return error_set(ERR_FILE, "a set inside a set of a regex is not supported");
            size_t length = (size_t)(close - (s + i)) + 1;
            text_add(out, s + i, length);
            i += length;
            continue;
        }
        if (in_set && s[i] == '&' && i + 1 < n && s[i + 1] == '&')
            return error_set(ERR_FILE, "&& inside a set of a regex is not supported");
        if (!in_set && s[i] == '[') {
            in_set = true;
            size_t head = i + 1 < n && s[i + 1] == '^' ? 2 : 1;
            text_add(out, s + i, head);
            i += head;
            if (i < n && s[i] == ']') /* a ] that comes first is a member */
                text_add_string(out, "\\]"), i++;
            continue;
        }
        if (in_set && s[i] == ']')
            in_set = false;
        text_add(out, s + i, 1);
        i++;
    }
    return 0;
}

int pattern_open_regex(struct pattern *p, const char *regex, size_t n)
{
    *p = (struct pattern){0};
    if (n == 0 || n > REGEX_MAX_BYTES)
        return error_set(ERR_FILE, "a regex of %zu bytes (1 to %d are accepted)", n,
                         REGEX_MAX_BYTES);
    struct text rewritten = {0};
    if (rewrite_regex(&rewritten, regex, n)) {
        text_free(&rewritten);
        return -1;
    }
    int code;
    PCRE2_SIZE offset;
    p->code = pcre2_compile((PCRE2_SPTR)rewritten.bytes, rewritten.n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
    text_free(&rewritten);
    if (!p->code) {
        char reason[256];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        return error_set(ERR_FILE, "regex \"%.200s\": %s", regex, reason);
    }
    pcre2_jit_compile(p->code,
                      PCRE2_JIT_COMPLETE); /* without it the interpreter gives the same matches */
    return 0;
}

int pattern_open_literal(struct pattern *p, const char *literal, size_t n)
{
    *p = (struct pattern){.literal = malloc(n + 1), .n = n};
    CHECK(p->literal, "out of memory for a pattern");
    memcpy(p->literal, literal, n);
    p->literal[n] = 0;
    return n ? 0 : error_set(ERR_FILE, "an empty pattern");
}

int pattern_open(struct pattern *p, const json_t *spec)
{
    *p = (struct pattern){0};
    const json_t *string = json_object_get(spec, "String"), *regex = json_object_get(spec, "Regex");
    if (json_is_string(string))
        return pattern_open_literal(p, json_string_value(string), json_string_length(string));
    if (json_is_string(regex))
        return pattern_open_regex(p, json_string_value(regex), json_string_length(regex));
    return error_set(ERR_FILE, "\"pattern\" is neither {\"String\": ..} nor {\"Regex\": ..}");
}

void pattern_close(struct pattern *p)
{
    pcre2_code_free(p->code);
    free(p->literal);
    *p = (struct pattern){0};
}

static void work_open(struct pattern_work *w)
{
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    w->context = context;
    w->data = pcre2_match_data_create(64, NULL);
    w->stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES, NULL);
    CHECK(w->context && w->data, "out of memory for a regex");
    pcre2_set_depth_limit(context, UINT32_MAX);
    pcre2_set_heap_limit(context, UINT32_MAX);
    if (w->stack)
        pcre2_jit_stack_assign(context, NULL, w->stack);
}

void pattern_work_free(struct pattern_work *w)
{
    pcre2_match_data_free(w->data);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    *w = (struct pattern_work){0};
}

/* The next match at or after m->next, empty or not: 1, 0 or -1. */
static int search(const struct pattern *p, struct pattern_work *w, struct match *m)
{
    if (!p->code) {
        const char *found = m->n - m->next >= p->n
                                ? memmem(m->text + m->next, m->n - m->next, p->literal, p->n)
                                : NULL;
        if (!found)
            return 0;
        m->start = (size_t)(found - m->text);
        m->end = m->start + p->n;
        return 1;
    }
    if (!w->data)
        work_open(w);
    pcre2_set_match_limit(w->context, (uint32_t)(SEARCH_STEPS + STEPS_A_BYTE * (m->n - m->next)));
    int rc = pcre2_match(p->code, (PCRE2_SPTR)m->text, m->n, m->next, PCRE2_NO_UTF_CHECK, w->data,
                         w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)m->text, m->n, m->next,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->data, w->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        char reason[256];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)reason, sizeof reason);
        return error_set(ERR_RUN, "a regex of the tokenizer failed on a text of %zu bytes: %s",
                         m->n, reason);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->data);
    m->end = at[1] < m->next ? m->next : at[1]; /* \K may move either */
    m->start = at[0] < m->next ? m->next : at[0] > m->end ? m->end : at[0];
    return 1;
}

int pattern_next(const struct pattern *p, struct pattern_work *w, struct match *m)
{
    while (m->next <= m->n) {
        size_t last = m->end;
        int rc = search(p, w, m);
        if (rc != 1)
            return rc;
        if (m->start == m->end && m->any && m->end == last) {
            if (m->next >= m->n)
                return 0;
            m->next += (size_t)utf8_length(m->text[m->next]);
            continue;
        }
        m->next = m->end;
        m->any = 1;
        return 1;
    }
    return 0;
}

int pattern_replace(const struct pattern *p, struct pattern_work *w, struct text *out,
                    const char *text, size_t n, const char *by, size_t by_n)
{
    struct match m = {.text = text, .n = n};
    size_t done = 0;
    for (;;) {
        int rc = n ? pattern_next(p, w, &m) : 0;
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        text_add(out, text + done, m.start - done);
        text_add(out, by, by_n);
        done = m.end;
    }
    text_add(out, text + done, n - done);
    return 0;
}
