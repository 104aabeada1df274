/* adapter_config.json: what a LoRA adapter of PEFT is. */
#ifndef RLHF_SRC_PEFT_CONFIG_H
#define RLHF_SRC_PEFT_CONFIG_H

#include "peft_target.h"

#include <stdbool.h>

enum { PEFT_R_MAX = 4096 };

struct peft_config {
    int r;
    double lora_alpha, lora_dropout;
    bool use_rslora;
    struct peft_targets target_modules;
    struct peft_targets exclude_modules; /* LIST, REGEX, or DEFAULT: none */
    struct peft_layers layers_to_transform;
    struct peft_patterns rank_pattern, alpha_pattern; /* in place of r and lora_alpha: peft_size */
    struct peft_names modules_to_save;                /* "score", "classifier": trained heads in the adapter's file */
    char *task_type;                                  /* owned; NULL: "CAUSAL_LM" */
    char *base_model_name_or_path, *revision;         /* owned; NULL when unknown */
};

/* Reads adapter_config.json. Whatever would change the result and is not supported (DoRA, trained biases, other peft_types, ..)
 * is refused by name; keys of a later PEFT are warned about where they are set. Errors: one line that lists every problem; the
 * struct is then empty. */
int peft_config_read(struct peft_config *c, const char *folder);

/* Writes it for adapters on these slots: all-linear and defaults are written as the list of module names, as PEFT does.
 * saved: modules whose tensors are written beside the adapters; NULL: none, whatever c has. */
int peft_config_write(const char *folder, const struct peft_config *c, const struct arch *a, const bool slot[ARCH_LINEARS_MAX],
                      const struct peft_names *saved);

void peft_config_free(struct peft_config *c);

#endif
