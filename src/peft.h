/* PEFT adapter folders (LoRA): adapter_config.json, adapter_model.safetensors, and the value head beside them.
 *
 *   adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r][in]
 *                               base_model.model.<module>.lora_B.weight [out][r]     F32
 *                               base_model.model.score.weight [labels][H]: modules_to_save
 *   model.safetensors           v_head.summary.weight [1][H], v_head.summary.bias [1]: where TRL's loader looks first
 */
#ifndef RLHF_SRC_PEFT_H
#define RLHF_SRC_PEFT_H

#include "arch.h"
#include "peft_config.h"
#include "safetensors.h"

#include <stdbool.h>

/* One adapted module of an opened folder. a [r][in], b [out][r]: read them with safetensors_floats. */
struct peft_pair {
    int layer;
    enum arch_slot slot;
    struct peft_size size;
    const struct safetensors_entry *a, *b;
};

/* A tensor of modules_to_save: a head that was trained beside the adapters. */
struct peft_saved {
    const char *name; /* in the model: "score.weight"; borrowed from the entry, or from the config */
    const struct safetensors_entry *entry;
};

struct peft_adapter {
    struct peft_config config;
    struct safetensors weights;
    struct peft_pair *pair; /* by layer, then slot */
    int n;
    struct peft_saved *saved; /* in the file's order, by name */
    int n_saved;
};

/* Opens an adapter folder for this architecture. What peft_config_read refuses is refused; every matched module has both tensors
 * in the right shape, and there are no others but those of modules_to_save. Errors: one line; the struct is then empty. */
int peft_open(struct peft_adapter *p, const char *folder, const struct arch *a);
void peft_close(struct peft_adapter *p);

/* The tensor of modules_to_save with this name in the model ("score.weight"); NULL: none. Its shape is the caller's to check. */
const struct safetensors_entry *peft_find_saved(const struct peft_adapter *p, const char *name);

/* One adapted module to write. r is the configuration's for it (peft_size). */
struct peft_out {
    int layer;
    enum arch_slot slot;
    const float *a, *b; /* [r][in], [out][r] */
};

/* Makes the folder and writes both files.
 * saved   [n_saved] heads for modules_to_save, named as in the model ("score.weight"), with data; what c has there is not read */
int peft_write(const char *folder, const struct peft_config *c, const struct arch *a, const struct peft_out *out, int n,
               const struct safetensors_out *saved, int n_saved);

/* The value head beside an adapter, or inside a full model's folder. */
int peft_write_value_head(const char *folder, const float *weight, float bias, int hidden);

/* weight [hidden], bias [1], written where *found is set; without a head *found is false and nothing is written. */
int peft_read_value_head(float *weight, float *bias, bool *found, const char *folder, int hidden);

#endif
