/* Reward by a classifier in a Hugging Face folder: the logit, or probability, of one class for prompt + response.
 *
 * Text classifiers (sentiment, toxicity) and reward models with one output alike. Prompt and response are joined as strings
 * and tokenised by the classifier's own tokenizer, with its special tokens, as transformers' text-classification pipeline does
 * with that string: no chat template is put around them, no end token behind them.
 */
#ifndef RLHF_SRC_REWARD_CLASSIFIER_H
#define RLHF_SRC_REWARD_CLASSIFIER_H

#include "reward.h"

/* Errors: a missing path; classifier_open's; reward_output_choose's. */
int reward_classifier_open(void **state, const struct reward_spec *spec);
void reward_classifier_layout(void *state, struct arena *a);
int reward_classifier_load(void *state);
int reward_classifier_score(void *state, const struct reward_text *texts, int64_t n, double *score);
void reward_classifier_close(void *state);

#endif
