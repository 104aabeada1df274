/* Low-rank adapters on a model's linear layers, and the value head: attaching, first values, reading and writing.
 * Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
 */
#ifndef RLHF_SRC_LORA_H
#define RLHF_SRC_LORA_H

#include "model.h"
#include "peft.h"

/* Lists A [r][in] and B [out][r] of every linear layer that the configuration names as trainable ("<module>.lora_A"), in layer
 * order. Before model_layout. Errors: no layer matches (the module names are listed); the backend's largest rank. */
int lora_attach(struct model *m, const struct peft_config *config, uint64_t seed);

/* One more adapter on the same weights, as its folder was opened: frozen, in memory of its own (MEM_ADAPTERS). Returns its index
 * for model_pass.adapter: 1 for the first. Before model_layout. -1, errors: LINEAR_ADAPTERS are there; the backend's largest
 * rank. */
int lora_attach_frozen(struct model *m, const struct peft_adapter *adapter);

/* Its values, once they have been placed. Errors: unreadable tensors. Ranks: local; every rank has its own copy. */
int lora_read_frozen(struct model *m, const struct peft_adapter *adapter, int index);

/* First values: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B zero; value head uniform in +-1/sqrt(H), bias too
 * (torch's Linear); score head uniform with standard deviation 0.02 (transformers' initializer_range), bias zero. Functions of the
 * seed alone. */
void lora_init(struct model *m, uint64_t seed);

/* The trained score head from a model folder that holds one of its shape; else it keeps its values. Errors: unreadable tensors. */
int lora_read_score(struct model *m, const struct safetensors *weights);

/* Values from a PEFT folder that was opened for this architecture and attached with its own configuration, from the value head
 * beside it, and of the score head and the pooler before it among its modules_to_save, where they are there (else the heads keep their
 * values). Errors: unreadable tensors, a score head of another shape. */
int lora_read(struct model *m, const struct peft_adapter *adapter, const char *folder);

/* Writes the adapters as a PEFT folder, the value head beside them, a trained score head, with the pooler before it, among its
 * modules_to_save. Errors: of the file system. */
int lora_write(const struct model *m, const struct peft_config *config, const char *folder);

#endif
