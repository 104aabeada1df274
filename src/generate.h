/* Generation: prompts in, responses out, over a fixed number of slots that are refilled as sequences end.
 *
 * A token of a response is a function of (run.seed, step, global sample index, position): neither slots nor ranks nor the
 * order in which sequences end change it. Prefill and decode give the bits of the training forward.
 */
#ifndef RLHF_SRC_GENERATE_H
#define RLHF_SRC_GENERATE_H

#include "model.h"

struct generate_request {
    int64_t sample;        /* global index: random numbers go by it */
    const int32_t *prompt; /* [n_prompt] borrowed, at least one token */
    int n_prompt;
    int max_new, min_new; /* at least 1; below min_new the end tokens are not drawn */
    int32_t *response;    /* [max_new] written */
    float *logprob;       /* [max_new] written: of the unfiltered tempered distribution */
    int n_response;       /* written */
    bool ended;           /* written: by an end token (which is the last of response) or a stop string */
};

struct generate_options {
    struct sampling sampling;
    const int32_t *eos; /* [n_eos] host; n_eos = 0: run to max_new (ignore_eos) */
    int n_eos;
    uint64_t seed;
    uint32_t step;
    int adapter; /* of the passes: 0 policy, model.reference */
    /* Does this response end here? Called after each token; NULL: never. */
    bool (*stop)(void *context, const struct generate_request *r);
    void *context;
};

struct host_batch;

struct generator {
    struct model *model;
    int32_t *drawn;          /* device: token [S], then logprob [S], of the S sequences of the last batch */
    int32_t *eos;            /* device [EOS_MAX] */
    struct host_batch *host; /* who sits where; batch arrays of the host */
};

enum { EOS_MAX = 16 };

void generator_layout(struct generator *g, struct model *m, struct arena *a);

/* Runs all requests. The model's shape holds the limits: prompts that exceed its batch_tokens, or prompt + max_new beyond
 * cache_tokens, are broken invariants (the caller checks its data). Errors: of the device. */
int generate_run(struct generator *g, struct generate_request *requests, int64_t n, const struct generate_options *o);

#endif
