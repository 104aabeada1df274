/* Trains a byte-level BPE vocabulary on texts and writes it as a tokenizer.json that Hugging Face's tokenizers loads.
 *
 * Ids: special tokens in their order, the 256 byte-level characters in code point order, then one token a merge. Words are
 * those of GPT-2's regex. The most frequent pair is merged next; of equally frequent ones that with the smaller ids.
 *   Source: Sennrich et al. 2016 (arXiv:1508.07909); order and ties as in Hugging Face's BpeTrainer.
 * Deterministic: a function of the arguments alone.
 */
#ifndef RLHF_SRC_BPE_TRAIN_H
#define RLHF_SRC_BPE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

/* texts [n_texts], lengths in bytes; invalid UTF-8 counts as U+FFFD. vocab_size counts everything and must hold at least
 * the special tokens and 256; a small corpus may give fewer tokens, which is no error. The file is replaced whole. */
int bpe_train(const char *tokenizer_json_path, const char *const *texts, const size_t *lengths,
              int64_t n_texts, int vocab_size, const char *const *special_tokens, int n_special);

#endif
