/* UTF-8 and the character classes that the regexes of pre-tokenizers ask for.
 *
 * Everything but utf8_check and utf8_repair takes text that is valid UTF-8 and never looks past its end.
 */
#ifndef RLHF_SRC_UNICODE_H
#define RLHF_SRC_UNICODE_H

#include "text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

size_t utf8_check(const char *bytes,
                  size_t n); /* offset of the first ill-formed byte, n if there is none */

/* Appends the bytes with U+FFFD for each ill-formed part, as Python and Rust replace them (one for each longest start of
 * a well-formed sequence). */
void utf8_repair(struct text *out, const char *bytes, size_t n);

/* The character at s; returns its length in bytes. */
static inline int utf8_decode(uint32_t *c, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *c = s[0];
        return 1;
    }
    if (s[0] < 0xe0) {
        *c = (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
        return 2;
    }
    if (s[0] < 0xf0) {
        *c = (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
        return 3;
    }
    *c = (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    return 4;
}

static inline int utf8_length(char first)
{
    unsigned char f = (unsigned char)first;
    return f < 0x80 ? 1 : f < 0xe0 ? 2 : f < 0xf0 ? 3 : 4;
}

/* Writes c at s (room for 4); returns the length. */
static inline int utf8_encode(char *s, uint32_t c)
{
    if (c < 0x80) {
        s[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        s[0] = (char)(0xc0 | c >> 6);
        s[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        s[0] = (char)(0xe0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 0x3f));
        s[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    s[0] = (char)(0xf0 | c >> 18);
    s[1] = (char)(0x80 | (c >> 12 & 0x3f));
    s[2] = (char)(0x80 | (c >> 6 & 0x3f));
    s[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool unicode_is_space(uint32_t c); /* White_Space: what \s means in the files */

/* The classes \p{L}, \p{N}, \s and the rest, one byte a character; above UNICODE_TABLE_END all are the rest. */
enum unicode_class { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE };
enum { UNICODE_TABLE_END = 0x33480 };
struct unicode_classes {
    unsigned char of[UNICODE_TABLE_END];
};
struct unicode_classes *unicode_classes_open(void); /* the caller frees it with free() */

static inline enum unicode_class unicode_class(const struct unicode_classes *u, uint32_t c)
{
    return c < UNICODE_TABLE_END ? (enum unicode_class)u->of[c] : UNICODE_OTHER;
}

#endif
