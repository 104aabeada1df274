/* Proximal policy optimisation: one step, from prompts to new adapters. Source: Schulman et al. 2017 (arXiv:1707.06347),
 * as TRL's PPOTrainer 0.7 has it, with global batches, global whitening and exact gradient sums (DESIGN section 5).
 */
#ifndef RLHF_SRC_PPO_H
#define RLHF_SRC_PPO_H

#include "gradient.h"
#include "kl.h"
#include "metrics.h"
#include "optimizer.h"
#include "rollout.h"
#include "schedule.h"
#include "score.h"

struct engine_need;
struct ppo_room;

/* What a run carries from step to step, beside the trainables: a checkpoint holds all of it. */
struct ppo {
    struct rollout rollout;
    struct gradient *gradient;
    const struct kl_estimator *estimator;
    const struct schedule *schedule;
    struct kl_controller kl;
    struct score_moments moments;
    struct optimizer optimizer;
    int64_t total_steps;
    int64_t n_trained; /* samples this rank has trained on: counted once per epoch */
    struct sample_list samples; /* of the newest step */
    struct ppo_room *room;        /* what a step works in; planned */
    struct record_list mine, all; /* of a mini-batch's gathering */
};

/* The rollout's parts and the gradient are borrowed, the reward may be set later; its lists and texts become the ppo's. */
void ppo_init(struct ppo *p, const struct rollout *rollout, struct gradient *gradient, int64_t total_steps);

void ppo_need(struct ppo *p, struct engine_need *need); /* what a run of the rollout's shape needs of the engine */
void ppo_layout(void *ppo, struct arena *a); /* of the rollout and of the step; see engine_need */
void ppo_reserve(struct ppo *p);             /* lists and texts: after it, a step does not allocate */
void ppo_free(struct ppo *p);

/* Step number `step` (from 0). metrics: DESIGN section 8. Collective; the same bits on every rank.
 * Errors: rollout's; a non-finite loss or gradient, or one too large for the fixed point, with run.on_nan = "stop". */
int ppo_step(struct ppo *p, struct metrics *metrics, int64_t step);

#endif
