/* Which linear layers get an adapter, and of what size: PEFT's target_modules and what refines them. */
#ifndef RLHF_SRC_PEFT_TARGET_H
#define RLHF_SRC_PEFT_TARGET_H

#include "arch.h"

#include <stdbool.h>

struct peft_config;

struct peft_names {
    char **item; /* [n] owned */
    int n;
};

enum peft_target_kind {
    PEFT_DEFAULT,   /* target_modules not given: the family's defaults */
    PEFT_LIST,      /* a module whose path equals an entry, or ends with "." and an entry */
    PEFT_REGEX,     /* a module whose whole path matches */
    PEFT_ALL_LINEAR /* every linear layer but the head */
};

struct peft_targets {
    enum peft_target_kind kind;
    struct peft_names names; /* LIST */
    char *regex;             /* REGEX: owned */
};

/* layers_to_transform: adapters on these layers alone. The layer is the number behind the first match of a pattern. */
struct peft_layers {
    int *index; /* [n] owned; n == 0: all */
    int n;
    struct peft_names pattern; /* layers_pattern: names of the list of layers, "h"; none: any */
};

/* rank_pattern, alpha_pattern: the first key that matches a module's path, or the end of it behind a ".", gives the value. Keys
 * are regular expressions; most are plain names. */
struct peft_patterns {
    struct peft_pattern {
        char *key; /* owned */
        double value;
    } * item;
    int n;
};

void peft_names_add(struct peft_names *names, const char *name);
void peft_names_free(struct peft_names *names);

/* A string as in adapter_config.json or input.cfg: "all-linear" in any case, else a regular expression. */
void peft_targets_set_string(struct peft_targets *t, const char *value);
void peft_targets_add(struct peft_targets *t, const char *name); /* one more entry of a list */
void peft_targets_free(struct peft_targets *t);

/* Does PEFT put an adapter on the module of this path? 1, 0, or -1 with an error (bad regular expression).
 * PEFT_DEFAULT and PEFT_ALL_LINEAR depend on the architecture: a. */
int peft_match(const struct peft_config *c, const struct arch *a, const char *module_path);

/* match[layer * ARCH_LINEARS_MAX + slot] of all linear layers in the blocks, written; returns their number or -1.
 * Errors: nothing matches (the line lists the family's module names); the head or the embedding is matched. */
int peft_match_all(bool *match, const struct peft_config *c, const struct arch *a);

/* Of one module. scale = alpha / r; with use_rslora alpha / sqrt(r). */
struct peft_size {
    int r;
    double scale;
};

/* rank_pattern's and alpha_pattern's values for the module, else r and lora_alpha. Errors: a key that is no regular expression,
 * or takes too many steps. */
int peft_size(struct peft_size *size, const struct peft_config *c, const char *module_path);

#endif
