/* Whole sequences through the model, packed into micro-batches: log-probs, entropies and values of their targets, or the
 * scores of the sequences, and the gradients of a loss in them. Serves rollouts, PPO updates, supervised training, rewards
 * and evaluation.
 */
#ifndef RLHF_SRC_MICRO_BATCH_H
#define RLHF_SRC_MICRO_BATCH_H

#include "model.h"

struct sequence {
    int64_t sample;     /* global index */
    const int32_t *ids; /* [n] borrowed */
    int n, first;       /* targets are ids[first .. n-1], first >= 1; each from the state before it; n: none (scores alone) */
    float *logprob, *entropy, *value; /* [n - first] written by forward; entropy and value may be NULL */
    const float *dlogprob, *dentropy, *dvalue; /* [n - first] read by backward; the last two may be NULL (in all or none) */
};

/* Host side of one micro-batch, of the model's shape. */
struct micro_batch {
    struct model *model;
    int32_t *id, *position, *sequence, *start, *slot, *row, *target;
    struct head_rows rows; /* of the last forward, on the device */
    int64_t *sample;
    float *logprob, *entropy, *value, *dlogprob, *dentropy, *dvalue; /* [head_rows] */
};

void micro_batch_layout(struct micro_batch *mb, struct model *m, struct arena *a);

/* How many of the n sequences, from the first, fit into one micro-batch of at most max_seqs (0: the shape's). At least 1:
 * a sequence longer than the shape is a broken invariant (callers check their data against the context). */
int micro_batch_take(const struct micro_batch *mb, const struct sequence *s, int n, int max_seqs);

/* One pass over n sequences that fit. Errors: of the device. */
int micro_batch_forward(struct micro_batch *mb, struct sequence *s, int n, const struct model_pass *pass, float temperature);

/* After micro_batch_forward of the same sequences with pass->keep: adds their gradients to the model's accumulators. */
int micro_batch_backward(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass,
                         float temperature);

/* One pass over n sequences that fit, and the score head on the state of each one's last token, or of its first
 * (arch.bidirectional): host score [n][model.score.n]. Of the sequences sample, ids and n are read. Errors: of the device. */
int micro_batch_scores(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass, float *score);

/* After micro_batch_scores with pass->keep: adds the gradients of host dscore [n][model.score.n], a sequence one contribution,
 * to the model's accumulators. */
int micro_batch_backward_scores(struct micro_batch *mb, const float *dscore, const struct model_pass *pass);

/* Forward of any number of sequences, micro-batch by micro-batch. */
int sequences_evaluate(struct micro_batch *mb, struct sequence *s, int n, const struct model_pass *pass, float temperature);
int sequences_score(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass, float *score);

#endif
