/* The "decoder" of a tokenizer.json: contents of tokens in, text out.
 *
 * ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, BPEDecoder and Sequences of them; null joins with spaces, as
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

/* Appends the text of n tokens. */
int detokenize(const struct detokenizer *d, struct text *out,
               const struct vocab_entry *const *tokens, size_t n);

#endif
