/* One layer, forward and backward: a straight list of operations. It switches on fields of struct arch, never on a family. */
#ifndef RLHF_SRC_BLOCK_H
#define RLHF_SRC_BLOCK_H

#include "model.h"

/* x[i] -> x[i + 1], keeping what backward needs in kept[i % kept_layers]. */
void block_forward(struct model *m, int i, const struct model_pass *pass);

/* Fills the one kept set anew from x[i], for backward. */
void block_recompute(struct model *m, int i, const struct model_pass *pass);

/* dx of the layer's output -> dx of its input (in place), adding the layer's gradients. */
void block_backward(struct model *m, int i, const struct model_pass *pass);

/* Pretraining: lists every weight of the model as trainable, under its Hugging Face name. */
void block_add_trainables(struct model *m);

#endif
