/* A literal string or a regex of a tokenizer.json, and its matches in a text.
 *
 * The files' regexes are Oniguruma's; PCRE2 (UTF, UCP, JIT) runs them. Where the two mean different things by the same
 * letters (\s, \w, \h), the pattern is rewritten; what has no equivalent (&& and nested sets in [..]) is refused.
 * Properties such as \p{L} have the Unicode version of the machine's PCRE2.
 */
#ifndef RLHF_SRC_PATTERN_H
#define RLHF_SRC_PATTERN_H

#include "text.h"

#include <jansson.h>
#include <stddef.h>

struct pattern {
    void *code;    /* pcre2_code, NULL for a literal */
    char *literal; /* not empty */
    size_t n;
};

/* From {"String": ..} or {"Regex": ..}. */
int pattern_open(struct pattern *p, const json_t *spec);
int pattern_open_literal(struct pattern *p, const char *literal, size_t n);
int pattern_open_regex(struct pattern *p, const char *regex, size_t n);
void pattern_close(struct pattern *p);

/* What PCRE2 needs for a search; one thread at a time. The zeroed struct is valid. */
struct pattern_work {
    void *data, *context, *stack;
};
void pattern_work_free(struct pattern_work *w);

/* The matches of a text from left to right. Begin with the text and zeros; an empty match right after the last one is
 * passed over, as Oniguruma's bindings do. */
struct match {
    const char *text;
    size_t n;
    size_t start, end; /* the last match */
    size_t next;       /* where the search goes on */
    int any;
};
int pattern_next(const struct pattern *p, struct pattern_work *w,
                 struct match *m); /* 1, 0 at the end, -1 on error */

/* Appends the text with every match replaced. */
int pattern_replace(const struct pattern *p, struct pattern_work *w, struct text *out,
                    const char *text, size_t n, const char *by, size_t by_n);

#endif
