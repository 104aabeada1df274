/* Texts and prompts of a data set as token ids, held to the model's context and vocabulary. */
#ifndef RLHF_SRC_PROMPTS_H
#define RLHF_SRC_PROMPTS_H

#include "dataset.h"
#include "token_list.h"
#include "tokenizer.h"

struct prompt_list {
    struct token_list *prompt; /* [n] */
    int64_t n, longest;
    int64_t n_cut; /* that were longer than max_tokens */
};

/* The ids of each row: input_ids, else the prompt, else the text; prompts_encode_texts: input_ids, else the text, else the
 * prompt. Rows are cut to max_tokens (0: not). Errors: an id beyond the vocabulary, a row without tokens. */
int prompts_encode(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t, bool add_special,
                   int max_tokens, int vocab);
int prompts_encode_texts(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t, bool add_special,
                         int max_tokens, int vocab);
void prompts_free(struct prompt_list *p);

#endif
