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

/* The largest request there will be. */
struct rollout_shape {
    int64_t n_samples;
    int32_t n_prompt, n_response; /* tokens of the longest */
};

struct rollout_room;

struct rollout {
    const struct settings *settings;
    struct comm *comm;
    struct model *model;
    struct generator *generator;
    struct micro_batch *micro_batch;
    struct reward *reward;             /* NULL: every score is 0 */
    const struct tokenizer *tokenizer; /* NULL: samples get no texts, so no reward and no stop strings */
    struct timing *timing;
    struct prompt_list prompts;
    const int32_t *eos; /* [n_eos]; n_eos = 0 with generate.ignore_eos */
    int n_eos;
    struct rollout_shape shape;
    struct rollout_room *room;      /* what a rollout works in; planned */
    struct sample_list local;       /* this rank's share */
    struct record_list mine, all;   /* of the gathering */
    struct text decoded;            /* a response that may hold a stop string */
};

/* shape, settings, comm, prompts and reward are set; see engine_need. */
void rollout_layout(void *rollout, struct arena *a);

/* Takes the room that texts and lists need at most, so that rollout_run does not allocate; without it they grow. The list
 * that rollout_run fills is the caller's: rollout_sample_size is what to reserve for. */
void rollout_reserve(struct rollout *r);
struct sample_size rollout_sample_size(const struct rollout *r);
void rollout_free(struct rollout *r); /* what it owns: lists and texts */

/* What is asked of the policy: n samples, from number `first` of the run on. */
struct rollout_request {
    const struct prompt_list *prompts;
    int64_t first, n;
    uint32_t step;
    int adapter;         /* of the passes: 0 policy, model.reference */
    float temperature;
    bool in_order;       /* prompts 0, 1, .. instead of the run's permutation */
    bool with_logprobs;  /* evaluate policy, reference and value of each token; of greedy responses at temperature 1 */
};

/* Answers, scores and gathers: out holds all n samples in global order, the same on every rank. Collective.
 * Errors: of the device, of a reward; those of one rank become everyone's. */
int rollout_run(struct rollout *r, struct sample_list *out, const struct rollout_request *request);

#endif
