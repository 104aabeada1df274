/* vocab.txt, all that BERT folders had before tokenizer.json: one token a line, its id the line's number from 0. */
#ifndef RLHF_SRC_BERT_VOCAB_H
#define RLHF_SRC_BERT_VOCAB_H

#include <jansson.h>

/* The tokenizer.json that transformers makes of it (BertTokenizer's converter), as a new reference in *root. config: the
 * tokenizer_config.json beside it, whose do_lower_case, strip_accents and tokenize_chinese_chars count, or NULL.
 * Errors name the line that is no UTF-8, or the special token that is missing. */
int bert_vocab_read(json_t **root, const char *path, const json_t *config);

#endif
