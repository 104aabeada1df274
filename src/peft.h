/* PEFT adapter folders (LoRA): adapter_config.json, adapter_model.safetensors, and the value head beside them.
 *
 *   adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r][in]
 *                               base_model.model.<module>.lora_B.weight [out][r]     F32
 *   model.safetensors           v_head.summary.weight [1][H], v_head.summary.bias [1]: where TRL's loader looks first
 */
#ifndef RLHF_SRC_PEFT_H
#define RLHF_SRC_PEFT_H

#include "arch.h"
#include "peft_target.h"
#include "safetensors.h"

#include <stdbool.h>

enum { PEFT_R_MAX = 4096 };

struct peft_config {
    int r;
    double lora_alpha, lora_dropout;
    bool use_rslora;
    struct peft_targets target_modules;
    char *base_model_name_or_path; /* owned; NULL when unknown */
};

double peft_scale(const struct peft_config *c); /* lora_alpha / r; rslora: lora_alpha / sqrt(r) */
void peft_config_free(struct peft_config *c);

/* One adapted module of an opened folder. a [r][in], b [out][r]: read them with safetensors_floats. */
struct peft_pair {
    int layer;
    enum arch_slot slot;
    const struct safetensors_entry *a, *b;
};

struct peft_adapter {
    struct peft_config config;
    struct safetensors weights;
    struct peft_pair *pair; /* by layer, then slot */
    int n;
};

/* Opens an adapter folder for this architecture. Whatever would change the result and is not supported (DoRA, bias,
 * modules_to_save, patterns of r or alpha, ..) is refused by name; every matched module has both tensors in the right
 * shape, and there are no others. Errors: one line; the struct is then empty. */
int peft_open(struct peft_adapter *p, const char *folder, const struct arch *a);
void peft_close(struct peft_adapter *p);

/* One adapted module to write. */
struct peft_out {
    int layer;
    enum arch_slot slot;
    const float *a, *b; /* [r][in], [out][r] */
};

/* Makes the folder and writes both files. all-linear and defaults are written as the list of module names, as PEFT does. */
int peft_write(const char *folder, const struct peft_config *c, const struct arch *a,
               const struct peft_out *out, int n);

/* The value head beside an adapter, or inside a full model's folder. */
int peft_write_value_head(const char *folder, const float *weight, float bias, int hidden);

/* weight [hidden], bias [1], written where *found is set; without a head *found is false and nothing is written. */
int peft_read_value_head(float *weight, float *bias, bool *found, const char *folder, int hidden);

#endif
