/* Rollouts: this step's prompts answered, scored and evaluated by their rank, then gathered by all.
 *
 * Global sample index i of a step has the same prompt, length and random numbers on any number of ranks; which rank
 * generates it does not matter.
 */
#ifndef RLHF_SRC_ROLLOUT_H
#define RLHF_SRC_ROLLOUT_H

#include "comm.h"
#include "dataset.h"
#include "generate.h"
#include "micro_batch.h"
#include "reward.h"
#include "sample.h"
#include "settings.h"
#include "timing.h"
#include "tokenizer.h"

struct rollout {
    const struct settings *settings;
    struct comm *comm;
    struct model *model;
    struct generator *generator;
    struct micro_batch *micro_batch;
    struct reward *reward;
    const struct tokenizer *tokenizer;
    struct timing *timing;
    const struct token_list *prompts; /* [n_prompts] token ids, within the context */
    int64_t n_prompts;
    const int32_t *eos;
    int n_eos;
};

/* The prompt of the run's sample number i (i counts over all steps): a new permutation each time through the prompts. */
int64_t rollout_prompt_index(const struct rollout *r, int64_t i);

/* Prompt and response lengths of sample i: fixed, or drawn from [min, max). */
int rollout_max_new(const struct rollout *r, int64_t i);

/* All of step's samples (settings.ppo.batch_size), complete, in global order, the same on every rank. Collective.
 * Errors: of the device, of a reward, of any rank. */
int rollout_run(struct rollout *r, struct sample_list *out, uint32_t step);

/* Responses to prompts [0, n) by adapter (-1: reference) into out, this rank's share only evaluated for scores; gathered.
 * For evaluation and the samples shown at the end; temperature 0 is greedy. Collective. */
int rollout_answer(struct rollout *r, struct sample_list *out, int64_t n, int adapter, float temperature, uint32_t step);

#endif
