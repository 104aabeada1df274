/* The next-token loss of examples, as the task of a supervised loop: what pretrain and sft have in common.
 *
 *   loss = - sum over targets of log p(target | the tokens before it) / number of targets, both of the whole batch
 *   Source: TRL's SFTTrainer and transformers' causal language models, which divide by the labels of the accumulated batch.
 *
 * Metrics: loss, entropy (mean over targets of the distribution's), of an evaluation eval/loss, eval/entropy and
 * eval/perplexity = exp(eval/loss).
 */
#ifndef RLHF_SRC_CAUSAL_LM_H
#define RLHF_SRC_CAUSAL_LM_H

#include "supervised.h"

struct causal_lm_example {
    const int32_t *ids; /* [n] borrowed */
    int n, first;       /* targets are ids[first .. n - 1], at least one */
};

struct causal_lm {
    struct engine *engine;
    struct timing *timing;
    /* Example number index of the training data, or of the evaluation's. */
    struct causal_lm_example (*example)(const void *source, int64_t index, bool train);
    const void *source;
    int64_t micro_batch_size; /* 0: as planned */

    /* planned: of a micro-batch of S sequences with T targets at most */
    struct sequence *sequence;   /* [S] */
    float *logprob, *entropy;    /* [S][T] */
    float *derivative;           /* [T] of the loss in a log-probability: the same for all */
};

/* The calls of the loop; its numbers of examples, samples and the batch size are the caller's to set. lm is borrowed, and filled
 * before supervised_plan. */
struct supervised_task causal_lm_task(struct causal_lm *lm);

#endif
