/* Rollouts: this step's prompts answered, scored and evaluated by their rank, then gathered by all.
 *
 * Sample number i of a run has the same prompt, length and random numbers on any number of ranks; which rank generates it
 * does not matter.
 */
#ifndef RLHF_SRC_ROLLOUT_H
#define RLHF_SRC_ROLLOUT_H

#include "comm.h"
#include "generate.h"
#include "micro_batch.h"
#include "prompts.h"
#include "records.h"
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
    struct prompt_list prompts;
    const int32_t *eos; /* [n_eos]; n_eos = 0 with generate.ignore_eos */
    int n_eos;
};

/* What is asked of the policy: n samples, from number `first` of the run on. */
struct rollout_request {
    const struct prompt_list *prompts;
    int64_t first, n;
    uint32_t step;
    int adapter;         /* 0 policy, -1 reference */
    float temperature;
    bool in_order;       /* prompts 0, 1, .. instead of the run's permutation */
    bool with_logprobs;  /* evaluate policy, reference and value of each token; of greedy responses at temperature 1 */
};

/* Answers, scores and gathers: out holds all n samples in global order, the same on every rank. Collective.
 * Errors: of the device, of a reward; those of one rank become everyone's. */
int rollout_run(struct rollout *r, struct sample_list *out, const struct rollout_request *request);

#endif
