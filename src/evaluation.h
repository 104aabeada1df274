/* How good a policy is on prompts that it was not trained on: responses drawn, scored, compared with the reference.
 *
 * Every evaluation draws with the same random numbers, those of a step that no training reaches: two policies differ by what
 * they are, not by luck, and an evaluation inside a run equals one of its adapter afterwards.
 */
#ifndef RLHF_SRC_EVALUATION_H
#define RLHF_SRC_EVALUATION_H

#include "rollout.h"

#define EVALUATION_STEP UINT32_MAX /* rollout_request.step of evaluations and of shown samples */

struct evaluation {
    int64_t n;                             /* samples */
    double score, score_std, score_stderr; /* as the rewards give it: mean; standard deviation (n - 1); score_std / sqrt(n) */
    double kl;                             /* mean over samples of evaluation_kl; 0 where they have no log-probabilities */
    double response_length;                /* mean, tokens */
};

/* Sampled KL of a response: the sum over its tokens of log-probability minus the reference's. */
double evaluation_kl(const struct sample *s);

/* Totals, in the order of the list and in double: the same bits on every rank. Needs scores. */
void evaluation_describe(struct evaluation *e, const struct sample_list *samples);

/* Diversity of the responses: distinct pairs of neighbouring tokens / all such pairs; 0 where there are none.
 * Source: Li et al. 2016 (arXiv:1510.03055), section 5.2, with pairs in the denominator. */
double evaluation_distinct_2(const struct sample_list *samples);

/* Responses to all prompts, in their order, into samples: of the policy (adapter 0), with its log-probabilities and the
 * reference's, or of the reference (-1), which has no KL. Temperature 0 is greedy. Collective; the same on every rank. Errors:
 * rollout's. */
int evaluation_run(struct evaluation *e, struct sample_list *samples, struct rollout *r, const struct prompt_list *prompts,
                   int adapter, double temperature);

#endif
