/* Totals over samples. */
#include "evaluation.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>

double evaluation_kl(const struct sample *s)
{
    const float *policy = s->array[SAMPLE_LOGPROB], *reference = s->array[SAMPLE_REF_LOGPROB];
    double sum = 0;
    for (int32_t t = 0; t < s->n_response; t++)
        sum += (double)policy[t] - (double)reference[t];
    return sum;
}

void evaluation_describe(struct evaluation *e, const struct sample_list *samples)
{
    const int64_t n = samples->n;
    const double count = n ? (double)n : 1;
    double score = 0, kl = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        score += samples->sample[i].raw_score;
        if (sample_has(&samples->sample[i], SAMPLE_LOGPROB))
            kl += evaluation_kl(&samples->sample[i]);
    }
    score /= count;
    for (int64_t i = 0; i < n; i++)
        squares += (samples->sample[i].raw_score - score) * (samples->sample[i].raw_score - score);
    const double std = n > 1 ? sqrt(squares / (count - 1)) : 0;
    *e = (struct evaluation){.n = n,
                             .score = score,
                             .score_std = std,
                             .score_stderr = std / sqrt(count),
                             .kl = kl / count,
                             .response_length = (double)sample_list_tokens(samples) / count};
}

int evaluation_run(struct evaluation *e, struct sample_list *samples, struct rollout *r, const struct prompt_list *prompts,
                   int adapter, double temperature)
{
    struct rollout_request ask = {.prompts = prompts,
                                  .n = prompts->n,
                                  .step = EVALUATION_STEP,
                                  .adapter = adapter,
                                  .temperature = (float)temperature,
                                  .in_order = true,
                                  .with_logprobs = adapter == 0};
    timing_begin(r->timing, PHASE_EVALUATE);
    int rc = rollout_run(r, samples, &ask);
    if (!rc)
        evaluation_describe(e, samples);
    timing_end(r->timing, 0);
    return rc;
}

static int compare_pairs(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

double evaluation_distinct_2(const struct sample_list *samples)
{
    uint64_t *pair = malloc(((size_t)sample_list_tokens(samples) + 1) * sizeof *pair);
    CHECK(pair, "out of memory");
    int64_t n = 0, distinct = 0;
    for (int64_t i = 0; i < samples->n; i++) {
        const struct sample *s = &samples->sample[i];
        for (int32_t t = 1; t < s->n_response; t++)
            pair[n++] = (uint64_t)(uint32_t)s->response[t - 1] << 32 | (uint32_t)s->response[t];
    }
    qsort(pair, (size_t)n, sizeof *pair, compare_pairs);
    for (int64_t i = 0; i < n; i++)
        distinct += i == 0 || pair[i - 1] != pair[i];
    free(pair);
    return n ? (double)distinct / (double)n : 0;
}
