/* The reference does not change, so its responses are drawn once. */
#include "samples.h"

#include "error.h"
#include "evaluation.h"
#include "jsonl.h"
#include "log.h"

static int draw(struct samples *s, struct sample_list *out, int adapter)
{
    struct rollout *r = s->rollout;
    struct rollout_request ask = {.prompts = s->prompts,
                                  .n = s->n,
                                  .step = EVALUATION_STEP,
                                  .adapter = adapter,
                                  .temperature = (float)r->settings->generate.temperature,
                                  .in_order = true,
                                  .with_logprobs = adapter == 0};
    timing_begin(r->timing, PHASE_EVALUATE);
    int rc = rollout_run(r, out, &ask);
    timing_end(r->timing, 0);
    return rc;
}

static int draw_policy(struct samples *s, int64_t step)
{
    if (s->step == step)
        return 0;
    TRY(draw(s, &s->policy, 0));
    s->step = step;
    return 0;
}

int samples_open(struct samples *s, struct rollout *r, const struct prompt_list *prompts, const char *path, int64_t last_step)
{
    *s = (struct samples){
        .rollout = r, .prompts = prompts, .n = prompts->n < SAMPLES_N ? prompts->n : SAMPLES_N, .step = -1};
    struct sample_size size = rollout_sample_size(r);
    size_t text_bytes = size.prompt_bytes + 2 * size.response_bytes;
    sample_list_reserve(&s->reference, s->n, &size);
    sample_list_reserve(&s->policy, s->n, &size);
    text_reserve(&s->lines, (size_t)s->n * (6 * text_bytes + 512 + 64 * (size_t)size.n_parts)); /* a byte may become \uXXXX */
    TRY(draw(s, &s->reference, r->model->reference));
    return comm_agree(r->comm, step_file_open(&s->file, path, last_step, path && comm_rank(r->comm) == 0));
}

json_t *samples_parts(const struct rollout *r, const struct sample *s)
{
    json_t *parts = json_object();
    CHECK(parts, "out of memory");
    for (int i = 0; i < s->n_parts; i++)
        json_object_set_new(parts, reward_part_name(r->reward, i), jsonl_number(s->part[i]));
    return parts;
}

static void format(struct text *out, const struct rollout *r, int64_t step, const struct sample *policy,
                   const struct sample *reference)
{
    const struct text *prompt = &policy->prompt_text, *response = &policy->response_text, *other = &reference->response_text;
    json_t *row = json_pack("{s:I, s:s%, s:s%, s:o, s:o, s:o, s:s%, s:o}", "step", (json_int_t)step, "prompt", text_string(prompt),
                            prompt->n, "response", text_string(response), response->n, "score", jsonl_number(policy->raw_score),
                            "scores", samples_parts(r, policy), "kl", jsonl_number(evaluation_kl(policy)),
                            "reference_response", text_string(other), other->n, "reference_score",
                            jsonl_number(reference->raw_score));
    CHECK(row, "a sample is not UTF-8");
    jsonl_add(out, row, 0);
    json_decref(row);
}

int samples_write(struct samples *s, int64_t step)
{
    TRY(draw_policy(s, step));
    text_clear(&s->lines);
    for (int64_t i = 0; i < s->n; i++)
        format(&s->lines, s->rollout, step, &s->policy.sample[i], &s->reference.sample[i]);
    return comm_agree(s->rollout->comm, step_file_write(&s->file, &s->lines));
}

int samples_log(struct samples *s, int64_t step)
{
    TRY(draw_policy(s, step));
    for (int64_t i = 0; i < s->n; i++) {
        const struct sample *policy = &s->policy.sample[i], *reference = &s->reference.sample[i];
        log_line("prompt       %s", text_string(&policy->prompt_text));
        log_line("  reference  [%.3f]%s", reference->raw_score, text_string(&reference->response_text));
        log_line("  policy     [%.3f]%s", policy->raw_score, text_string(&policy->response_text));
    }
    return 0;
}

void samples_close(struct samples *s)
{
    sample_list_free(&s->reference);
    sample_list_free(&s->policy);
    step_file_close(&s->file);
    text_free(&s->lines);
    *s = (struct samples){0};
}
