/* Generation, rewards and log-probabilities are rank-local; comm_agree ends them, then all ranks gather. */
#include "rollout.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    CHECK(p, "out of memory");
    return p;
}

/* The prompt of sample number i: a new permutation each time through the prompts. */
static int64_t prompt_of(const struct rollout *r, const struct rollout_request *q, int64_t i, int64_t *order, int64_t *pass)
{
    int64_t n = q->prompts->n;
    if (q->in_order)
        return i % n;
    if (*pass != i / n) {
        *pass = i / n;
        rng_permutation(order, n, rng_key((uint64_t)r->settings->run.seed, RNG_ORDER, 0, 0), (uint32_t)*pass);
    }
    return order[i % n];
}

static int64_t draw_length(const struct rollout *r, struct settings_range range, int64_t sample, uint32_t what)
{
    struct rng_key key = rng_key((uint64_t)r->settings->run.seed, RNG_LENGTH, what, 0);
    return rng_range(rng_word(key, 0, (uint64_t)sample, 0, 0), range.min, range.max);
}

/* This rank's share: every size-th sample, so that ranks meet the same mix of prompts. */
static void take_share(struct rollout *r, struct sample_list *local, const struct rollout_request *q)
{
    int64_t *order = zeroed((size_t)q->prompts->n, sizeof *order), pass = -1;
    for (int64_t i = q->first + comm_rank(r->comm); i < q->first + q->n; i += comm_size(r->comm)) {
        struct sample *s = sample_list_add(local);
        s->index = i;
        s->source = prompt_of(r, q, i, order, &pass);
        const struct token_list *p = &q->prompts->prompt[s->source];
        int64_t n = p->n;
        if (r->settings->data.prompt_tokens.max > 0) {
            int64_t drawn = draw_length(r, r->settings->data.prompt_tokens, i, 1);
            n = drawn < n ? drawn : n;
        }
        sample_set_prompt(s, p->ids, (int32_t)n);
    }
    free(order);
}

struct stop_context {
    const struct rollout *rollout;
    struct text text;
};

/* Does the decoded response hold a stop string? */
static bool stops(void *context, const struct generate_request *request)
{
    struct stop_context *c = context;
    const struct settings_strings *stop = &c->rollout->settings->generate.stop_strings;
    text_clear(&c->text);
    if (tokenizer_decode(c->rollout->tokenizer, &c->text, request->response, request->n_response, true) != 0)
        return false;
    for (int i = 0; i < stop->n; i++)
        if (strstr(text_string(&c->text), stop->item[i]))
            return true;
    return false;
}

static void cut_at_stop(struct text *t, const struct settings_strings *stop)
{
    for (int i = 0; i < stop->n; i++) {
        char *at = t->n ? strstr(t->bytes, stop->item[i]) : NULL;
        if (at) {
            t->n = (size_t)(at - t->bytes);
            *at = 0;
        }
    }
}

static int answer(struct rollout *r, struct sample_list *local, const struct rollout_request *q)
{
    const struct settings_generate *g = &r->settings->generate;
    struct generate_request *requests = zeroed((size_t)local->n, sizeof *requests);
    int64_t room = 0;
    for (int64_t i = 0; i < local->n; i++) {
        requests[i].sample = local->sample[i].index;
        requests[i].max_new = (int)draw_length(r, g->max_new_tokens, local->sample[i].index, 0);
        requests[i].min_new = (int)g->min_new_tokens;
        room += requests[i].max_new;
    }
    int32_t *ids = zeroed((size_t)room, sizeof *ids);
    float *logprobs = zeroed((size_t)room, sizeof *logprobs);
    int64_t at = 0;
    for (int64_t i = 0; i < local->n; at += requests[i++].max_new) {
        requests[i].prompt = local->sample[i].prompt;
        requests[i].n_prompt = local->sample[i].n_prompt;
        requests[i].response = ids + at;
        requests[i].logprob = logprobs + at;
    }
    struct stop_context context = {.rollout = r};
    struct generate_options o = {.sampling = {q->temperature, (int)g->top_k, (float)g->top_p},
                                 .eos = r->eos,
                                 .n_eos = r->n_eos,
                                 .seed = (uint64_t)r->settings->run.seed,
                                 .step = q->step,
                                 .adapter = q->adapter,
                                 .stop = g->stop_strings.n ? stops : NULL,
                                 .context = &context};
    int rc = generate_run(r->generator, requests, local->n, &o);
    for (int64_t i = 0; !rc && i < local->n; i++) {
        struct sample *s = &local->sample[i];
        sample_set_response(s, requests[i].response, requests[i].n_response);
        s->finished = requests[i].ended;
        memcpy(sample_array(s, SAMPLE_DRAWN_LOGPROB), requests[i].logprob, (size_t)s->n_response * sizeof(float));
        rc = tokenizer_decode(r->tokenizer, &s->prompt_text, s->prompt, s->n_prompt, true) ||
             tokenizer_decode(r->tokenizer, &s->response_text, s->response, s->n_response, true)
                 ? -1
                 : 0;
        cut_at_stop(&s->response_text, &g->stop_strings);
    }
    text_free(&context.text);
    free(requests);
    free(ids);
    free(logprobs);
    return rc;
}

static int score(struct rollout *r, struct sample_list *local)
{
    int parts = reward_n_parts(r->reward);
    struct reward_text *texts = zeroed((size_t)local->n, sizeof *texts);
    double *total = zeroed((size_t)local->n, sizeof *total);
    double *part = zeroed((size_t)local->n * (size_t)parts, sizeof *part);
    double *own = zeroed((size_t)parts, sizeof *own);
    for (int64_t i = 0; i < local->n; i++) {
        const struct sample *s = &local->sample[i];
        texts[i] = (struct reward_text){s->index, text_string(&s->prompt_text), text_string(&s->response_text),
                                        s->prompt_text.n, s->response_text.n};
    }
    int rc = reward_score(r->reward, texts, local->n, total, part);
    for (int64_t i = 0; !rc && i < local->n; i++) {
        for (int p = 0; p < parts; p++)
            own[p] = part[(int64_t)p * local->n + i];
        local->sample[i].raw_score = local->sample[i].score = total[i];
        sample_set_parts(&local->sample[i], own, parts);
    }
    free(own);
    free(part);
    free(total);
    free(texts);
    return rc;
}

/* Log-probs and values of the policy, then log-probs of the reference: the same weights without the adapter. */
static int evaluate(struct rollout *r, struct sample_list *local, float temperature)
{
    struct sequence *seq = zeroed((size_t)local->n, sizeof *seq);
    int32_t **ids = zeroed((size_t)local->n, sizeof *ids);
    for (int64_t i = 0; i < local->n; i++) {
        struct sample *s = &local->sample[i];
        ids[i] = zeroed((size_t)(s->n_prompt + s->n_response), sizeof **ids);
        memcpy(ids[i], s->prompt, (size_t)s->n_prompt * sizeof **ids);
        memcpy(ids[i] + s->n_prompt, s->response, (size_t)s->n_response * sizeof **ids);
        seq[i] = (struct sequence){.sample = s->index,
                                   .ids = ids[i],
                                   .n = s->n_prompt + s->n_response,
                                   .first = s->n_prompt,
                                   .logprob = sample_array(s, SAMPLE_LOGPROB),
                                   .entropy = sample_array(s, SAMPLE_ENTROPY),
                                   .value = r->model->value_offset >= 0 ? sample_array(s, SAMPLE_VALUE) : NULL};
    }
    struct model_pass policy = {.adapter = 0}, reference = {.adapter = -1};
    int rc = sequences_evaluate(r->micro_batch, seq, (int)local->n, &policy, temperature);
    for (int64_t i = 0; i < local->n; i++) {
        seq[i].logprob = sample_array(&local->sample[i], SAMPLE_REF_LOGPROB);
        seq[i].entropy = seq[i].value = NULL;
    }
    if (!rc)
        rc = sequences_evaluate(r->micro_batch, seq, (int)local->n, &reference, temperature);
    for (int64_t i = 0; i < local->n; i++)
        free(ids[i]);
    free(ids);
    free(seq);
    return rc;
}

static int gather(struct rollout *r, struct sample_list *out, const struct sample_list *local)
{
    struct record_list mine = {0}, all = {0};
    struct text bytes = {0};
    for (int64_t i = 0; i < local->n; i++) {
        text_clear(&bytes);
        sample_write(&bytes, &local->sample[i]);
        records_add(&mine, local->sample[i].index, bytes.bytes, bytes.n);
    }
    comm_gather_records(r->comm, &all, &mine);
    timing_add_bytes(r->timing, (int64_t)all.bytes_used);
    int rc = 0;
    sample_list_clear(out);
    for (int64_t i = 0; !rc && i < all.n; i++)
        rc = sample_read(sample_list_add(out), records_bytes(&all, i), all.records[i].n);
    records_free(&mine);
    records_free(&all);
    text_free(&bytes);
    return rc;
}

static int64_t tokens_of(const struct sample_list *list)
{
    int64_t n = 0;
    for (int64_t i = 0; i < list->n; i++)
        n += list->sample[i].n_prompt + list->sample[i].n_response;
    return n;
}

int rollout_run(struct rollout *r, struct sample_list *out, const struct rollout_request *q)
{
    struct sample_list local = {0};
    take_share(r, &local, q);
    timing_begin(r->timing, PHASE_GENERATE);
    int rc = answer(r, &local, q);
    timing_end(r->timing, sample_list_tokens(&local));
    if (!rc && r->reward) {
        timing_begin(r->timing, PHASE_REWARD);
        rc = score(r, &local);
        timing_end(r->timing, sample_list_tokens(&local));
    }
    if (!rc && q->with_logprobs) {
        timing_begin(r->timing, PHASE_LOGPROBS);
        rc = evaluate(r, &local, q->temperature > 0 ? q->temperature : 1.0f);
        timing_end(r->timing, 2 * tokens_of(&local));
    }
    timing_begin(r->timing, PHASE_GATHER);
    rc = comm_agree(r->comm, rc);
    if (!rc)
        rc = gather(r, out, &local);
    timing_end(r->timing, 0);
    sample_list_free(&local);
    return rc;
}
