/* What task = "reward" trains on: a data set's rows as sequences that are scored, one a text with its label, two a pair of answers.
 *
 *   text, label                   a class; the text is cut to the context (data.truncation)
 *   [prompt,] chosen, rejected    a pair: the prompt with either answer behind it. A pair with a sequence beyond the context is
 *                                 left out, as TRL's RewardTrainer does; "margin" may stand beside it
 *
 * Sequences of a causal model's pairs get an end token where they lack it (RewardTrainer does so), but not where a chat template
 * has written what ends a turn. Texts are tokenised as a whole, with the tokens that the tokenizer puts around them. What is scored
 * is the last token that does not pad (transformers' rule): those behind it, also an end token that pads, change nothing in a causal
 * model and are left out.
 */
#ifndef RLHF_SRC_SCORE_EXAMPLES_H
#define RLHF_SRC_SCORE_EXAMPLES_H

#include "dataset.h"
#include "token_list.h"
#include "tokenizer.h"

struct score_example {
    int64_t start[2]; /* of the ids in tokens: of the text, or of chosen and rejected */
    int n[2];         /* n[1] = 0: a text */
    int label;
    double margin;
};

struct score_examples {
    struct token_list tokens;
    struct score_example *example; /* [n] owned */
    int64_t n, room;
    int longest;
    bool pairs;
    int64_t n_cut;  /* texts that were cut */
    int64_t n_long; /* pairs that were left out */
};

/* How rows become examples. */
struct score_format {
    const struct settings *settings;
    const struct tokenizer *tokenizer;
    int32_t eos; /* behind the sequences of pairs; -1: none */
    int32_t pad; /* not scored at the end of a sequence; -1: none */
    int context, vocab;
};

/* d was loaded for reward_model.loss, its labels numbered. Errors: ERR_FILE with file and line: a row without tokens, a token number
 * beyond the vocabulary; no pair that fits. Free *x in either case. Ranks: local. */
int score_examples_make(struct score_examples *x, const struct dataset *d, const struct score_format *how);
void score_examples_free(struct score_examples *x);

#endif
