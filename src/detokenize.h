/* The "decoder" of a tokenizer.json: contents of tokens in, text out.
 *
 * ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, BPEDecoder, WordPiece and Sequences of them; null joins with spaces, as
 * Hugging Face does. Others are refused by name. Bytes that are no UTF-8 come out as U+FFFD.
 */
#ifndef RLHF_SRC_DETOKENIZE_H
#define RLHF_SRC_DETOKENIZE_H

#include "pattern.h"
#include "pretokenize.h"
#include "text.h"
#include "vocab.h"

#include <jansson.h>

struct detokenizer {
    struct detokenizer_step *step; /* [n_steps] */
    int n_steps;
};

int detokenizer_open(struct detokenizer *d, const json_t *spec); /* spec may be null */
void detokenizer_close(struct detokenizer *d);

struct strings {
    struct text bytes;
    struct spans list;
};

/* Memory of a decoding, kept for the next; one thread at a time. The zeroed struct is valid. */
struct detokenizer_work {
    struct strings list[2];
    struct text bytes;
    struct pattern_work pattern;
};

/* Room for n tokens of together so many bytes, those of the text included. */
void detokenizer_work_reserve(struct detokenizer_work *w, size_t n, size_t bytes);
void detokenizer_work_free(struct detokenizer_work *w);

/* A text is at most so many times as long as its tokens' contents and a space for each. */
size_t detokenizer_growth(const struct detokenizer *d);

/* Appends the text of n tokens. */
int detokenize(const struct detokenizer *d, struct detokenizer_work *w, struct text *out,
               const struct vocab_entry *const *tokens, size_t n);

#endif
