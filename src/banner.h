/* What a run says of itself before it begins. */
#ifndef RLHF_SRC_BANNER_H
#define RLHF_SRC_BANNER_H

#include "engine.h"
#include "prompts.h"

/* Build, ranks x threads, nodes, device; model, parameters, seed, output; memory plan. After engine_plan. */
void banner_print(struct engine *e);

/* How many prompts there are, and the first one as the model gets it: " id:token" for each token, those that are special in
 * angle quotes. */
void banner_prompts(const struct tokenizer *t, const struct prompt_list *prompts);

/* The first training example of n tokens in that form: what is masked, " |", and what is to be learnt, ids[first ..]; the
 * beginning and end of each; first = n: none is. */
void banner_example(const struct tokenizer *t, const int32_t *ids, int n, int first);

/* Appends that form of n ids. Whitespace shows as the vocabulary writes it; where a token has it bare, as U+2423, \n, \t, \r. */
void banner_tokens(struct text *out, const struct tokenizer *t, const int32_t *ids, int64_t n);

#endif
