/* From the logits of a classification head to one score: which class counts, and as what. */
#ifndef RLHF_SRC_REWARD_OUTPUT_H
#define RLHF_SRC_REWARD_OUTPUT_H

#include "reward.h"

struct labels;

struct reward_output {
    int n, label; /* classes; the one that counts */
    enum function_choice function;
};

/* Takes spec's label (a name or number; without one the last class) and function. Errors: ERR_INPUT: a label that is not there
 * (the names are listed), softmax of a single class. */
int reward_output_choose(struct reward_output *o, const struct reward_spec *spec, const struct labels *labels);

/* The score of a text, z = its logits [n]:
 *
 *   none     z_label
 *   softmax  exp(z_label - m) / sum over k of exp(z_k - m),  m = the largest z
 *   sigmoid  1 / (1 + exp(-z_label))
 *
 * In double, k ascending. */
double reward_output_score(const struct reward_output *o, const float *logit);

#endif
