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
 * prompt. Special tokens are added with s->add_special_tokens, but for rows that a chat template rendered. Rows longer than
 * max_tokens (0: no limit) are counted, and cut as s->truncation says: to their first tokens, or to their last ones (behind
 * the BOS that they begin with). Errors: an id beyond the vocabulary, a row without tokens, too long rows with
 * truncation = "error"; prompts of which data.prompt_tokens takes the beginning may have any length. */
int prompts_encode(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t, const struct settings_data *s,
                   int max_tokens, int vocab);
int prompts_encode_texts(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t,
                         const struct settings_data *s, int max_tokens, int vocab);

/* The ids of one row, as prompts_encode_texts takes them, appended and not cut. Errors: an id beyond the vocabulary. */
int prompts_encode_row(struct token_list *out, const struct dataset *d, const struct dataset_row *row, const struct tokenizer *t,
                       const struct settings_data *s, int vocab);

/* A longer list down to n tokens: its first ones, or with keep_end its last ones, behind the BOS that it begins with. */
void prompts_cut(struct token_list *p, int n, enum truncation truncation, const struct tokenizer *t);

void prompts_free(struct prompt_list *p);

#endif
