/* Policy and reference on the held-out prompts. */
#include "held_out.h"

#include "error.h"
#include "log.h"

#include <stdio.h>

void held_out_reserve(struct held_out *h)
{
    struct sample_size size = rollout_sample_size(h->rollout);
    sample_list_reserve(&h->samples, h->prompts->n, &size);
}

void held_out_free(struct held_out *h)
{
    sample_list_free(&h->samples);
}

/* Sampled, then greedy. */
static int answer(struct held_out *h, struct evaluation e[2], int adapter)
{
    TRY(evaluation_run(&e[0], &h->samples, h->rollout, h->prompts, adapter, h->rollout->settings->generate.temperature));
    return evaluation_run(&e[1], &h->samples, h->rollout, h->prompts, adapter, 0);
}

/* eval/NAME and eval/NAME_stderr */
static void set_score(struct metrics *m, const char *name, const struct evaluation *e)
{
    char full[METRIC_NAME_MAX];
    snprintf(full, sizeof full, "eval/%s", name);
    metrics_set(m, full, e->score);
    snprintf(full, sizeof full, "eval/%s_stderr", name);
    metrics_set(m, full, e->score_stderr);
}

int held_out_run(struct held_out *h, struct metrics *m)
{
    struct evaluation policy[2];
    const struct evaluation *reference = h->reference;
    if (!h->reference_known)
        TRY(answer(h, h->reference, h->rollout->model->reference));
    h->reference_known = true;
    TRY(answer(h, policy, 0));
    set_score(m, "score", &policy[0]);
    set_score(m, "greedy_score", &policy[1]);
    set_score(m, "ref_score", &reference[0]);
    set_score(m, "ref_greedy_score", &reference[1]);
    metrics_set(m, "eval/score_std", policy[0].score_std);
    metrics_set(m, "eval/kl", policy[0].kl);
    log_line("evaluation of %lld prompts  score %.4f +- %.4f (reference %.4f +- %.4f)  greedy %.4f +- %.4f (%.4f +- %.4f)  kl %.4f",
             (long long)policy[0].n, policy[0].score, policy[0].score_stderr, reference[0].score, reference[0].score_stderr,
             policy[1].score, policy[1].score_stderr, reference[1].score, reference[1].score_stderr, policy[0].kl);
    return 0;
}
