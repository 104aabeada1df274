/* Which linear layers get an adapter: PEFT's target_modules. */
#ifndef RLHF_SRC_PEFT_TARGET_H
#define RLHF_SRC_PEFT_TARGET_H

#include "arch.h"

#include <stdbool.h>

enum peft_target_kind {
    PEFT_DEFAULT,   /* target_modules not given: the family's defaults */
    PEFT_LIST,      /* a module whose path equals an entry, or ends with "." and an entry */
    PEFT_REGEX,     /* a module whose whole path matches */
    PEFT_ALL_LINEAR /* every linear layer but the head */
};

struct peft_targets {
    enum peft_target_kind kind;
    char **name; /* LIST: [n] owned */
    int n;
    char *regex; /* REGEX: owned */
};

/* A string as in adapter_config.json or input.cfg: "all-linear" in any case, else a regular expression. */
void peft_targets_set_string(struct peft_targets *t, const char *value);
void peft_targets_add(struct peft_targets *t, const char *name); /* one more entry of a list */
void peft_targets_free(struct peft_targets *t);

/* Does PEFT put an adapter on the module of this path? 1, 0, or -1 with an error (bad regular expression).
 * PEFT_DEFAULT and PEFT_ALL_LINEAR depend on the architecture: a. */
int peft_match(const struct peft_targets *t, const struct arch *a, const char *module_path);

/* match[layer * ARCH_LINEARS_MAX + slot] of all linear layers in the blocks, written; returns their number or -1.
 * Errors: nothing matches (the line lists the family's module names); the head or the embedding is matched. */
int peft_match_all(bool *match, const struct peft_targets *t, const struct arch *a);

#endif
