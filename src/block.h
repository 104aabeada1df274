/* One layer, forward and backward: a straight list of operations. It switches on fields of struct arch, never on a family. */
#ifndef RLHF_SRC_BLOCK_H
#define RLHF_SRC_BLOCK_H

#include "model.h"

/* x[i] -> x[i + 1], keeping what backward needs in kept[i % kept_layers]. */
void block_forward(struct model *m, int i, const struct model_pass *pass);

/* Fills the one kept set anew from x[i], for backward. */
void block_recompute(struct model *m, int i, const struct model_pass *pass);

/* dx of the layer's output -> dx of its input (in place; not with want_dx false), adding the layer's gradients. */
void block_backward(struct model *m, int i, const struct model_pass *pass, bool want_dx);

/* dx of a norm's output -> dx of its input x (in place), for a norm that stands in no branch. Leaves the former dx in dn1. */
void block_norm_backward(struct model *m, const act_t *x, const struct norm *n);

/* dx becomes dn1, to be read, and what was dn1 becomes dx, to be written. */
void block_swap_dx(struct model *m);

/* Pretraining: lists every weight of the model as trainable, under its Hugging Face name. */
void block_add_trainables(struct model *m);

#endif
