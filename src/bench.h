/* --bench: times the phases of a PPO input on synthetic weights and prompts.
 *
 * Reads config.json and nothing else: weights, adapters and prompts are drawn from run.seed, every score is 0, no folder is
 * written. So it says what a shape costs on a machine before a model or data are there.
 */
#ifndef RLHF_SRC_BENCH_H
#define RLHF_SRC_BENCH_H

#include "comm.h"
#include "settings.h"

/* One step to warm up, then BENCH_STEPS (run.max_steps, if that is fewer); prints what single passes cost and how near that is
 * to the device's best (bench_pass.h), the median seconds of each phase, what the communication costs, and as the last line
 * the same as one JSON object. plan_only: the memory plan and nothing else, for a device that need not be here. Collective.
 * Errors: ERR_INPUT for a task other than ppo, and what the plan refuses. */
int bench_run(const struct settings *s, struct comm *comm, bool plan_only);

enum { BENCH_STEPS = 5 };

#endif
