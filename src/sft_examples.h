/* What sft trains on: a data set's rows as token ids, with the targets of each.
 *
 *   none      one example a row: a text; or a prompt with its completion, of which the completion's tokens are the targets
 *   wrapped   the rows' tokens one behind the other, cut into blocks of block_size; the last one is dropped where it is not
 *             full and not the only one. Attention goes across the texts of a block, as in the recipe.
 *
 * An end token is added behind each row that lacks it (TRL's SFTTrainer does so), but not where ids are given or a chat
 * template has written what ends a turn; with sft.separator = false not between the texts of blocks (the recipe). A prompt and
 * its completion are tokenised together; the completion begins where the tokens part from those of the prompt alone (TRL's
 * common_prefix_length).
 */
#ifndef RLHF_SRC_SFT_EXAMPLES_H
#define RLHF_SRC_SFT_EXAMPLES_H

#include "dataset.h"
#include "token_list.h"
#include "tokenizer.h"

struct sft_example {
    int64_t start; /* of its ids in tokens */
    int n, first;  /* targets are first .. n - 1; 1 <= first < n */
};

struct sft_examples {
    struct token_list tokens;
    struct sft_example *example; /* [n] owned */
    int64_t n, room;
    int longest, longest_targets;
    int64_t n_targets;
    int64_t n_cut;   /* rows that were longer than the context */
    int64_t n_empty; /* rows that have no target, and are left out */
};

/* How rows become examples. */
struct sft_format {
    const struct settings *settings;
    const struct tokenizer *tokenizer;
    int32_t eos; /* -1: none */
    int context, vocab;
    bool wrapped;
};

/* What sft.packing = "auto" is for this data: blocks, unless a row has a completion or was a conversation. */
bool sft_examples_wrapped(const struct settings_sft *s, const struct dataset *d);

/* Errors: ERR_FILE with file and line: what a row holds; no row with a target. ERR_INPUT: blocks of rows whose prompts are to be
 * masked. Free *x in either case. Ranks: local. */
int sft_examples_make(struct sft_examples *x, const struct dataset *d, const struct sft_format *how);
void sft_examples_free(struct sft_examples *x);

#endif
