/* Sample responses for people: those of the policy beside those of the reference, to the same few prompts and with the same
 * random numbers at every step. samples.jsonl has an object a sample and step:
 *
 *   step, prompt, response, score, scores, kl, reference_response, reference_score
 *
 * Scores are as the rewards give them, before any scaling or penalty of ppo.*: score is their weighted sum, scores has each by
 * its name, unweighted; kl is evaluation_kl of the policy's response.
 */
#ifndef RLHF_SRC_SAMPLES_H
#define RLHF_SRC_SAMPLES_H

#include "rollout.h"
#include "step_file.h"

#include <jansson.h>

enum { SAMPLES_N = 4 }; /* the first prompts of the evaluation data, else of the training data */

/* The zeroed struct is closed. */
struct samples {
    struct rollout *rollout;
    const struct prompt_list *prompts; /* borrowed */
    int64_t n;
    struct sample_list reference, policy;
    int64_t step; /* of policy; -1: not drawn yet */
    struct step_file file;
    struct text lines;
};

/* {"<name>": score, ..}: each reward of a sample, unweighted. The caller owns it. */
json_t *samples_parts(const struct rollout *r, const struct sample *s);

/* Draws the reference's responses, and opens the file at path for what follows last_step; path NULL: no file. Collective.
 * Errors: rollout's, step_file's. */
int samples_open(struct samples *s, struct rollout *r, const struct prompt_list *prompts, const char *path, int64_t last_step);

/* The policy's responses after `step` steps: appended to the file, or side by side with the reference's on the log. Collective. */
int samples_write(struct samples *s, int64_t step);
int samples_log(struct samples *s, int64_t step);
void samples_close(struct samples *s);

#endif
