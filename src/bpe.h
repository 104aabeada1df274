/* The "model" of a tokenizer.json of type BPE: a word in, its tokens out.
 *
 * A word begins as one token a character (a missing character: its bytes as <0xHH> with byte_fallback, else unk_token, else
 * nothing). Then the adjacent pair whose merge stands first in the file is merged, leftmost first, until no pair has
 * a merge. With ignore_merges a word that is a token is that token.
 *   Source: Sennrich et al. 2016 (arXiv:1508.07909); details as in Hugging Face tokenizers, models/bpe.
 *
 * Long words (texts without pre-tokenizer) cost O(n log n); they are also cut where no merge can reach across, so that the
 * cache of words serves SentencePiece vocabularies too.
 */
#ifndef RLHF_SRC_BPE_H
#define RLHF_SRC_BPE_H

#include "text.h"
#include "token_list.h"
#include "vocab.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpe {
    struct vocab vocab;
    struct bpe_merge *merge; /* [merge_mask + 1] by the hash of the pair */
    size_t merge_mask;
    int32_t *character;         /* tokens of the first characters of Unicode, -1 when absent */
    int32_t byte_token[256];    /* of the byte-level character of a byte, -1 when absent */
    int32_t byte_fallback[256]; /* of <0xHH>, -1 when absent */
    bool all_bytes;             /* every byte_token is there, and no prefix or suffix */
    bool all_fallbacks;         /* every byte_fallback is there: unk is never needed */
    int32_t unk;                /* -1 when none */
    bool fuse_unk, ignore_merges;
    struct text prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
    bool cut_at_space; /* no merge joins a character other than U+2581 to a U+2581 behind it */
};

int bpe_open(struct bpe *b, const json_t *model);
void bpe_close(struct bpe *b);

/* Cache of short words, and scratch; one thread at a time, the zeroed struct is valid. Never changes a result. */
struct bpe_work {
    struct bpe_cached *cache;
    struct bpe_symbol *symbol;
    struct bpe_candidate *heap;
    size_t room, heap_n, heap_room;
    struct text mapped;
};
void bpe_work_free(struct bpe_work *w);

/* Appends the tokens of a word (valid UTF-8, not empty). byte_level: its bytes stand for byte_level_char characters. */
void bpe_encode(const struct bpe *b, struct bpe_work *w, struct token_list *out, const char *word,
                size_t n, bool byte_level);

#endif
