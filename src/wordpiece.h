/* The "model" of a tokenizer.json of type WordPiece (BERT and its kin): a word in, its tokens out.
 *
 * The longest token that begins the word, then the longest of those with continuing_subword_prefix ("##") that continues
 * it, and so on. A word of more than max_input_chars_per_word characters, or one in which a step finds no token, is
 * unk_token as a whole.
 *   Source: Schuster and Nakajima 2012 (Japanese and Korean voice search); details as in Hugging Face tokenizers,
 *   models/wordpiece.
 */
#ifndef RLHF_SRC_WORDPIECE_H
#define RLHF_SRC_WORDPIECE_H

#include "token_list.h"
#include "trie.h"
#include "vocab.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct wordpiece {
    struct vocab vocab;
    struct trie first; /* all tokens */
    struct trie rest;  /* those with the prefix, without it */
    int32_t unk;
    int64_t max_characters;
};

int wordpiece_open(struct wordpiece *w, const json_t *model);
void wordpiece_close(struct wordpiece *w);

/* Appends the tokens of a word (valid UTF-8, not empty). */
void wordpiece_encode(const struct wordpiece *w, struct token_list *out, const char *word, size_t n);

#endif
