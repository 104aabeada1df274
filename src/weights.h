/* Base weights into a placed model: from a Hugging Face folder, or seeded random ones. */
#ifndef RLHF_SRC_WEIGHTS_H
#define RLHF_SRC_WEIGHTS_H

#include "hf_folder.h"
#include "model.h"

/* Streams every tensor of the folder into the backend, rows by rows (quantising on the way; Conv1D weights strip by strip,
 * transposed): no second copy of a weight is held. Token type 0 is added to the positions. A classifier's score head must
 * have been added with arch.n_labels outputs (model_add_score_head), and starts from the file's. Ranks: the node's leader
 * calls it, the others wait (model weights are shared by the CPU ranks of a node); with train_all every rank calls it, since
 * each has its own trainables. */
int weights_read(struct model *m, const struct hf_folder *folder);

/* Seeded weights: linear layers and embeddings with standard deviation 0.02 (those that write to the residual stream
 * 0.02 / sqrt(2 layers); Radford et al. 2019, section 2.3), norms 1, biases 0. Functions of the seed alone. */
void weights_random(struct model *m, uint64_t seed);

#endif
