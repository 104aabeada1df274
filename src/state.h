/* What a checkpoint holds, as a list of named arrays: all that a run carries from step to step. */
#ifndef RLHF_SRC_STATE_H
#define RLHF_SRC_STATE_H

#include "best.h"
#include "checkpoint.h"
#include "comm.h"
#include "kl.h"
#include "model.h"
#include "optimizer.h"
#include "peft.h"
#include "score.h"
#include "settings.h"
#include "timing.h"

/* Where the parts live; nothing is owned. */
struct state {
    const struct settings *settings;
    struct comm *comm;
    struct model *model;           /* its trainables with their moments */
    struct optimizer *optimizer;   /* its count of updates */
    struct kl_controller *kl;      /* this and the next two: ppo's; NULL in a run that has none */
    struct score_moments *moments;
    struct best *best;              /* the best evaluation so far; NULL in a run that keeps none */
    const struct peft_config *peft; /* the adapter is written beside the state, as a PEFT folder */
    struct timing *timing;          /* is charged with PHASE_CHECKPOINT and the bytes */
};

/* run.output_dir/checkpoint-<step>, then prunes to run.save_total_limit. Collective. */
int state_write(const struct state *s, int64_t step);

/* The newest valid checkpoint of run.output_dir into the parts; *step: steps done, 0 where there is none. Collective.
 * Errors: a checkpoint of other shapes. */
int state_read(struct state *s, int64_t *step);

#endif
