/* The best adapter of a run by the scores of its evaluations, kept as run.output_dir/adapter-best beside the newest one.
 *
 * Evaluations are the same on any number of ranks and in a resumed run, and what is known of the best is part of the checkpoint:
 * a run that was killed ends with the same folder.
 */
#ifndef RLHF_SRC_BEST_H
#define RLHF_SRC_BEST_H

#include "comm.h"
#include "model.h"
#include "peft.h"

#include <stdbool.h>

/* The zeroed struct has seen no evaluation. */
struct best {
    bool found;
    double score; /* the higher the better */
    int64_t step; /* steps done then */
};

/* A score above the best so far, or the first: the adapter, with the value head where there is one, takes the folder's place, in
 * one step. A score that is not finite never does. Ranks: collective, with the same score. Errors: of the file system. */
int best_consider(struct best *b, double score, int64_t step, struct comm *comm, const struct model *m,
                  const struct peft_config *config, const char *output_dir);

#endif
