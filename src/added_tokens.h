/* The "added_tokens" of a tokenizer.json: strings that are found in the text before the model sees it.
 *
 * Those with "normalized": false are looked for in the raw text, the others, in normal form, in the normalized text between
 * them; leftmost first, longest where several begin. single_word, lstrip and rstrip as in Hugging Face.
 */
#ifndef RLHF_SRC_ADDED_TOKENS_H
#define RLHF_SRC_ADDED_TOKENS_H

#include "normalize.h"
#include "trie.h"
#include "vocab.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

struct added_tokens {
    struct vocab vocab; /* ids and contents of the added tokens alone */
    struct added_token *token;
    int32_t n;
    bool *special; /* [vocab.n_ids] */
    struct trie raw, normalized;
};

/* model: the model's vocabulary, whose ids the file must repeat where it has the same content. */
int added_tokens_open(struct added_tokens *a, const json_t *list, const struct vocab *model,
                      const struct normalizer *nz);
void added_tokens_close(struct added_tokens *a);
bool added_tokens_special(const struct added_tokens *a, int32_t id);

/* Parts of a text: an added token or, with id -1, text between two. */
struct part {
    int32_t id;
    size_t start, n;
};
struct parts {
    struct part *at;
    size_t n, room;
};

/* Replaces the list of parts by those of the text; none is empty but a token's. */
void added_tokens_split(const struct added_tokens *a, const struct trie *trie, struct parts *parts,
                        const char *text, size_t n);

#endif
