/* Losses of scores as the task of a supervised loop: classes of texts, or pairs of answers (score_loss.h).
 *
 *   loss = sum over examples / number of examples, both of the whole batch
 *
 * Metrics, of an evaluation with "eval/" before the name:
 *   classes  loss, accuracy (share of texts whose label has the highest score; the first of equal ones)
 *   pairs    loss, accuracy (share of pairs in which chosen scores higher), margin (mean of chosen - rejected), min_reward,
 *            mean_reward, max_reward (over both). Source: TRL's RewardTrainer
 */
#ifndef RLHF_SRC_SCORE_TASK_H
#define RLHF_SRC_SCORE_TASK_H

#include "score_examples.h"
#include "supervised.h"

struct score_task {
    struct engine *engine;
    struct timing *timing;
    const struct score_examples *train, *eval; /* of one kind; eval may have none */
    int64_t micro_batch_size;                  /* examples of a pass; 0: as planned */
    int n_scores;                              /* of a sequence: classes, or 1 */
    double center;                             /* pairs: weight of the centring term */
    bool head_only;                            /* the adapters stay off and are not trained */

    /* planned: of a micro-batch of S sequences, K scores each */
    struct sequence *sequence; /* [S] */
    float *score, *dscore;     /* [S][K] */
    double *derivative;        /* [K], or 2 of a pair */
};

/* The calls of the loop; its numbers of samples and the batch size are the caller's to set. t is borrowed, and filled before
 * supervised_plan. */
struct supervised_task score_task_of(struct score_task *t);

#endif
