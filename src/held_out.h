/* Evaluations inside a PPO run: responses to the prompts of data.eval_path, of the policy beside those of the reference, sampled as
 * in training and greedy.
 *
 *   eval/score, eval/score_std, eval/score_stderr, eval/kl    the policy, sampled; these are what task = "evaluate" finds
 *   eval/greedy_score, eval/greedy_score_stderr               the policy, greedy
 *   eval/ref_score, eval/ref_score_stderr, eval/ref_greedy_score, eval/ref_greedy_score_stderr    the reference
 */
#ifndef RLHF_SRC_HELD_OUT_H
#define RLHF_SRC_HELD_OUT_H

#include "evaluation.h"
#include "metrics.h"

/* rollout and prompts are borrowed; the rest starts as zeros. */
struct held_out {
    struct rollout *rollout;
    const struct prompt_list *prompts;
    struct sample_list samples;
    struct evaluation reference[2]; /* sampled, greedy: they stay the same, so they are drawn once */
    bool reference_known;
};

/* Room for the samples: held_out_run does not allocate after it. */
void held_out_reserve(struct held_out *h);

/* Sets the metrics above and writes a line on the log. Collective; the same bits on every rank. Errors: rollout's. */
int held_out_run(struct held_out *h, struct metrics *m);
void held_out_free(struct held_out *h);

#endif
