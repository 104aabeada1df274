/* The "normalizer" of a tokenizer.json: what happens to text before it is split.
 *
 * NFC, NFD, NFKC, NFKD (utf8proc), Prepend, Replace, Strip, StripAccents, Lowercase, BertNormalizer and Sequences of
 * them. Others are refused by name. Linear in the length of the text, also for long runs of combining marks.
 */
#ifndef RLHF_SRC_NORMALIZE_H
#define RLHF_SRC_NORMALIZE_H

#include "pattern.h"
#include "text.h"

#include <jansson.h>
#include <stddef.h>

struct normalizer {
    struct normalizer_step *step; /* [n_steps] */
    int n_steps;                  /* 0: the text stays as it is */
};

int normalizer_open(struct normalizer *nz, const json_t *spec); /* spec may be null */
void normalizer_close(struct normalizer *nz);

/* Scratch; one thread at a time, the zeroed struct is valid. */
struct normalizer_work {
    struct text buffer[2];
    struct pattern_work pattern;
};
void normalizer_work_free(struct normalizer_work *w);

/* Replaces *text (valid UTF-8, *n bytes) by its normal form, which stands in the input or in w. */
int normalize(const struct normalizer *nz, struct normalizer_work *w, const char **text, size_t *n);

#endif
