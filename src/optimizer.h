/* From gradient accumulators to new parameters: norm, clipping, AdamW. The same bits on every rank, from the same sums.
 * Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2; Kingma and Ba 2015 (arXiv:1412.6980).
 */
#ifndef RLHF_SRC_OPTIMIZER_H
#define RLHF_SRC_OPTIMIZER_H

#include "model.h"

struct optimizer {
    double beta1, beta2, epsilon, weight_decay;
    double max_grad_norm; /* 0: no clipping */
    int64_t n_updates;    /* done so far: bias corrections and dropout count by it */
};

/* One update of all trainables with this learning rate; *norm: of the gradient before clipping. Refreshes packed copies. */
void optimizer_update(struct optimizer *o, struct model *m, double learning_rate, double *norm);

#endif
