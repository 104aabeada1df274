/* What a checkpoint of a PPO run holds, as a list of named arrays. */
#ifndef RLHF_SRC_STATE_H
#define RLHF_SRC_STATE_H

#include "checkpoint.h"
#include "peft.h"
#include "ppo.h"

/* run.output_dir/checkpoint-<step>: trainables, moments, controller, score moments, counters, resolved settings; the adapter as
 * a PEFT folder beside it. Collective, inside a phase, to which its bytes are counted. */
int state_write(struct ppo *p, const struct peft_config *peft, int64_t step);

/* The newest valid checkpoint of run.output_dir into p; *step: steps done, 0 where there is none. Collective. Errors: a
 * checkpoint of other shapes. */
int state_read(struct ppo *p, int64_t *step);

#endif
