/* The "pre_tokenizer" of a tokenizer.json: splits text into the words that the model sees one by one.
 *
 * ByteLevel, Metaspace, Split (String or Regex, every behaviour, invert), Digits, Punctuation, Whitespace,
 * WhitespaceSplit, CharDelimiterSplit, BertPreTokenizer and Sequences of them. Others are refused by name.
 */
#ifndef RLHF_SRC_PRETOKENIZE_H
#define RLHF_SRC_PRETOKENIZE_H

#include "pattern.h"
#include "scan.h"
#include "text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct pretokenizer {
    struct pretokenizer_step *step; /* [n_steps]; 0 steps: the whole text is one word */
    int n_steps;
    struct unicode_classes *classes;
    bool byte_level; /* words are bytes that stand for the characters of byte_level_char */
    scan_word scan;  /* not NULL: one known regex is all there is, words need not be listed */
};

int pretokenizer_open(struct pretokenizer *p, const json_t *spec); /* spec may be null */
void pretokenizer_close(struct pretokenizer *p);

struct span {
    size_t start, n;
};
struct spans {
    struct span *at;
    size_t n, room;
};
void spans_add(struct spans *s, size_t start, size_t n);

/* Words of the last text, and scratch; one thread at a time, the zeroed struct is valid. */
struct pretokenizer_work {
    const char *text; /* the words stand here: the input or a buffer below */
    struct spans words;
    struct spans other;
    struct text buffer[2];
    struct pattern_work pattern;
    struct piece *piece; /* of the span being split */
    size_t n_pieces, room_pieces;
};
void pretokenizer_work_free(struct pretokenizer_work *w);

/* Splits text (valid UTF-8, not empty). at_start: it begins where the whole input begins. */
int pretokenize(const struct pretokenizer *p, struct pretokenizer_work *w, const char *text,
                size_t n, bool at_start);

/* The printable character that stands for a byte in byte-level vocabularies (U+0021 to U+0143), and back (-1 for others).
 * Source: GPT-2 encoder.py, bytes_to_unicode. */
uint32_t byte_level_char(unsigned char byte);
int byte_level_byte(uint32_t c);
void byte_level_add(struct text *out, const char *bytes,
                    size_t n); /* appends the characters of n bytes */

#endif
