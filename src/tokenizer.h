/* Tokenizers in Hugging Face's tokenizer.json: text to token ids and back, as the Rust library `tokenizers` does it.
 *
 * The file's stages: added tokens cut the text, the normalizer rewrites what lies between, the pre-tokenizer splits it into
 * words, the model (BPE, WordPiece) turns a word into ids, the post-processor puts special tokens around; the decoder goes
 * back. "truncation" and "padding" are ignored. Unigram and WordLevel models are refused by name.
 * A tokenizer does not change once open: any number of threads may use one.
 */
#ifndef RLHF_SRC_TOKENIZER_H
#define RLHF_SRC_TOKENIZER_H

#include "text.h"
#include "token_list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* Opens a tokenizer.json or the folder it is in, with tokenizer_config.json and special_tokens_map.json beside it where
 * they are; a folder without tokenizer.json may have BERT's vocab.txt. Errors name the file and what is wrong with it. */
int tokenizer_open(struct tokenizer **out, const char *path);
void tokenizer_close(struct tokenizer *t); /* takes NULL */

/* Appends the ids of n bytes of text. Invalid UTF-8 counts as U+FFFD. add_special: with the post-processor's tokens; those
 * that stand in the text are found either way. Fails only for texts above 512 MiB and when a regex of the file does. */
int tokenizer_encode(const struct tokenizer *t, struct token_list *out, const char *text, size_t n,
                     bool add_special);

/* The same with the post-processor's tokens, and at most max_ids in all: the text's own ids are cut at their end, so that
 * the tokens before it and behind it stay (BERT: [CLS], the first max_ids - 2, [SEP]). This is transformers' truncation=True
 * with max_length=max_ids and the default truncation_side. Fails also where max_ids is less than the number of those
 * tokens. */
int tokenizer_encode_truncated(const struct tokenizer *t, struct token_list *out, const char *text, size_t n,
                               int64_t max_ids);

/* Appends the text of n ids; ids without a token are passed over, as are special tokens with skip_special. */
int tokenizer_decode(const struct tokenizer *t, struct text *out, const int32_t *ids, int64_t n,
                     bool skip_special);

/* Bytes that the text of n tokens has at most. */
size_t tokenizer_text_max(const struct tokenizer *t, int64_t n);

/* Room for decoding up to n ids at a time: after it, one thread's decoding does not allocate. */
void tokenizer_reserve(const struct tokenizer *t, int64_t n);

int32_t tokenizer_vocab_size(const struct tokenizer *t);                    /* highest id + 1 */
int32_t tokenizer_token_id(const struct tokenizer *t, const char *content); /* -1 when absent */
const char *tokenizer_token(const struct tokenizer *t,
                            int32_t id); /* content as in the file, NULL when absent */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* Ids that tokenizer_config.json, else special_tokens_map.json, names; -1 when none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);

#endif
