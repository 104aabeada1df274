/* libconfig 1.5 wraps integers beyond 32 bits that lack the suffix L, reads on silently at the end of the text inside a
 * comment, stops at a NUL byte, opens files named by @include, and recurses as deep as the text nests. This scanner
 * knows strings, comments, names and numbers, no more; it keeps every line where it is.
 */
#include "settings_scan.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct scan {
    const char *text;
    size_t n, at;
    int line;
    struct text *out;
};

static bool begins_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '*';
}

static void take(struct scan *s, size_t n)
{
    text_add(s->out, s->text + s->at, n);
    for (size_t i = 0; i < n; i++)
        s->line += s->text[s->at + i] == '\n';
    s->at += n;
}

/* Takes up to and including end, from at + skip on; false where it never comes. */
static bool take_until(struct scan *s, size_t skip, const char *end, bool escapes)
{
    size_t n_end = strlen(end), i = s->at + skip;
    for (; i + n_end <= s->n; i++) {
        if (escapes && s->text[i] == '\\') {
            i++;
            continue;
        }
        if (memcmp(s->text + i, end, n_end) == 0) {
            take(s, i + n_end - s->at);
            return true;
        }
    }
    return false;
}

/* A number or name; an integer is measured. Its sign was taken before it. */
static const char *take_word(struct scan *s)
{
    size_t n = 0;
    while (s->at + n < s->n && (begins_word(s->text[s->at + n]) || s->text[s->at + n] == '-'))
        n++;
    char word[80];
    const char *from = s->text + s->at;
    bool starts_as_number = isdigit((unsigned char)from[0]);
    if (starts_as_number && n >= sizeof word)
        return "a number of more than 79 characters";
    bool is_long = false;
    if (starts_as_number) {
        memcpy(word, from, n);
        word[n] = 0;
        bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
        errno = 0;
        char *end;
        long long value = strtoll(word, &end, hex ? 16 : 10);
        bool marked = *end == 'L';
        end += strspn(end, "L");
        if (*end == 0) {
            if (errno == ERANGE)
                return "an integer beyond 64 bits";
            is_long = !marked && value > INT_MAX;
        }
    }
    take(s, n);
    if (is_long)
        text_add_string(s->out, "L");
    return NULL;
}

static const char *scan(struct scan *s)
{
    int depth = 0;
    while (s->at < s->n) {
        char c = s->text[s->at], next = s->at + 1 < s->n ? s->text[s->at + 1] : 0;
        if (c == '"') {
            if (!take_until(s, 1, "\"", true))
                return "a string begins here and does not end";
        } else if (c == '#' || (c == '/' && next == '/')) {
            if (!take_until(s, 0, "\n", false))
                take(s, s->n - s->at);
        } else if (c == '/' && next == '*') {
            if (!take_until(s, 2, "*/", false))
                return "a comment begins here and does not end";
        } else if (begins_word(c)) {
            const char *what = take_word(s);
            if (what)
                return what;
        } else if (c == '@') {
            return "@include is not supported";
        } else {
            depth += (c == '{' || c == '(' || c == '[') - (c == '}' || c == ')' || c == ']');
            if (depth > SETTINGS_DEPTH_MAX)
                return "nested too deeply";
            take(s, 1);
        }
    }
    return NULL;
}

int settings_scan(struct text *out, const char *text, size_t n, int *line, const char **what)
{
    const char *nul = n ? memchr(text, 0, n) : NULL;
    struct scan s = {.text = text, .n = nul ? (size_t)(nul - text) : n, .line = 1, .out = out};
    *what = scan(&s);
    if (nul) { /* the more likely cause of whatever else is wrong */
        while (s.at < s.n)
            s.line += text[s.at++] == '\n';
        *what = "a NUL byte: this is no text file";
    }
    *line = s.line;
    return *what ? -1 : 0;
}
