/* Generation, rewards and log-probabilities are rank-local; comm_agree ends them, then all ranks gather. */
#include "rollout.h"

#include "error.h"

#include <string.h>

/* By sample of this rank's share, of which there are at most `share`. */
struct rollout_room {
    int share, longest; /* samples; tokens of prompt and response */
    int64_t *order;     /* [prompts] */
    struct generate_request *request; /* [share] */
    int32_t *response;                /* [share][n_response] as generated */
    float *logprob;                   /* [share][n_response] */
    struct reward_text *text;         /* [share] */
    double *score;                    /* [share] */
    double *part, *own;               /* [rewards][share]; [rewards] of one sample */
    struct sequence *sequence;        /* [share] */
    int32_t *ids;                     /* [share][longest] prompt and response */
};

static int share_of(const struct rollout *r, int64_t n)
{
    int ranks = comm_size(r->comm);
    return (int)((n + ranks - 1) / ranks);
}

void rollout_layout(void *rollout, struct arena *a)
{
    struct rollout *r = rollout;
    const struct rollout_shape *shape = &r->shape;
    struct rollout_room room = {.share = share_of(r, shape->n_samples), .longest = shape->n_prompt + shape->n_response}, *kept;
    size_t S = (size_t)room.share, T = (size_t)shape->n_response, parts = (size_t)r->settings->n_rewards;
    room.order = arena_take(a, MEM_HOST, (size_t)r->prompts.n * sizeof *room.order);
    room.request = arena_take(a, MEM_HOST, S * sizeof *room.request);
    room.response = arena_take(a, MEM_HOST, S * T * sizeof *room.response);
    room.logprob = arena_take(a, MEM_HOST, S * T * sizeof *room.logprob);
    room.text = arena_take(a, MEM_HOST, S * sizeof *room.text);
    room.score = arena_take(a, MEM_HOST, S * sizeof *room.score);
    room.part = arena_take(a, MEM_HOST, parts * S * sizeof *room.part);
    room.own = arena_take(a, MEM_HOST, parts * sizeof *room.own);
    room.sequence = arena_take(a, MEM_HOST, S * sizeof *room.sequence);
    room.ids = arena_take(a, MEM_HOST, S * (size_t)room.longest * sizeof *room.ids);
    if (r->reward)
        reward_layout(r->reward, a);
    kept = arena_take(a, MEM_HOST, sizeof room);
    if (kept)
        *kept = room;
    r->room = kept;
}

struct sample_size rollout_sample_size(const struct rollout *r)
{
    const struct rollout_shape *shape = &r->shape;
    struct sample_size size = {shape->n_prompt, shape->n_response, .n_parts = (int32_t)r->settings->n_rewards};
    if (r->tokenizer) {
        size.prompt_bytes = tokenizer_text_max(r->tokenizer, shape->n_prompt);
        size.response_bytes = tokenizer_text_max(r->tokenizer, shape->n_response);
    }
    return size;
}

void rollout_reserve(struct rollout *r)
{
    struct sample_size size = rollout_sample_size(r);
    int64_t n = r->shape.n_samples, share = share_of(r, n);
    size_t record = sample_bytes_max(&size) + 7;
    sample_list_reserve(&r->local, share, &size);
    records_reserve(&r->mine, share, (size_t)share * record);
    records_reserve(&r->all, n, (size_t)n * record);
    text_reserve(&r->decoded, size.response_bytes);
    if (r->tokenizer)
        tokenizer_reserve(r->tokenizer, size.n_prompt > size.n_response ? size.n_prompt : size.n_response);
}

void rollout_free(struct rollout *r)
{
    sample_list_free(&r->local);
    records_free(&r->mine);
    records_free(&r->all);
    text_free(&r->decoded);
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
static void take_share(struct rollout *r, const struct rollout_request *q)
{
    int64_t pass = -1;
    sample_list_clear(&r->local);
    for (int64_t i = q->first + comm_rank(r->comm); i < q->first + q->n; i += comm_size(r->comm)) {
        struct sample *s = sample_list_add(&r->local);
        s->index = i;
        s->source = prompt_of(r, q, i, r->room->order, &pass);
        const struct token_list *p = &q->prompts->prompt[s->source];
        int64_t n = p->n;
        if (r->settings->data.prompt_tokens.max > 0) {
            int64_t drawn = draw_length(r, r->settings->data.prompt_tokens, i, 1);
            n = drawn < n ? drawn : n;
        }
        CHECK(r->local.n <= r->room->share && n <= r->shape.n_prompt, "a rollout beyond its plan: %lld samples, %lld tokens",
              (long long)q->n, (long long)n);
        sample_set_prompt(s, p->ids, (int32_t)n);
    }
}

/* Does the decoded response hold a stop string? */
static bool stops(void *rollout, const struct generate_request *request)
{
    struct rollout *r = rollout;
    const struct settings_strings *stop = &r->settings->generate.stop_strings;
    text_clear(&r->decoded);
    if (tokenizer_decode(r->tokenizer, &r->decoded, request->response, request->n_response, true) != 0)
        return false;
    for (int i = 0; i < stop->n; i++)
        if (strstr(text_string(&r->decoded), stop->item[i]))
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

static void ask(struct rollout *r)
{
    const struct settings_generate *g = &r->settings->generate;
    for (int64_t i = 0; i < r->local.n; i++) {
        const struct sample *s = &r->local.sample[i];
        r->room->request[i] = (struct generate_request){.sample = s->index,
                                                        .prompt = s->prompt,
                                                        .n_prompt = s->n_prompt,
                                                        .max_new = (int)draw_length(r, g->max_new_tokens, s->index, 0),
                                                        .min_new = (int)g->min_new_tokens,
                                                        .response = r->room->response + i * r->shape.n_response,
                                                        .logprob = r->room->logprob + i * r->shape.n_response};
    }
}

static int note_answer(struct rollout *r, struct sample *s, const struct generate_request *request)
{
    sample_set_response(s, request->response, request->n_response);
    s->finished = request->ended;
    memcpy(sample_array(s, SAMPLE_DRAWN_LOGPROB), request->logprob, (size_t)s->n_response * sizeof(float));
    if (!r->tokenizer)
        return 0;
    TRY(tokenizer_decode(r->tokenizer, &s->prompt_text, s->prompt, s->n_prompt, true));
    TRY(tokenizer_decode(r->tokenizer, &s->response_text, s->response, s->n_response, true));
    cut_at_stop(&s->response_text, &r->settings->generate.stop_strings);
    return 0;
}

static int answer(struct rollout *r, const struct rollout_request *q)
{
    const struct settings_generate *g = &r->settings->generate;
    struct generate_options o = {.sampling = {q->temperature, (int)g->top_k, (float)g->top_p},
                                 .eos = r->eos,
                                 .n_eos = r->n_eos,
                                 .seed = (uint64_t)r->settings->run.seed,
                                 .step = q->step,
                                 .adapter = q->adapter,
                                 .stop = g->stop_strings.n ? stops : NULL,
                                 .context = r};
    ask(r);
    TRY(generate_run(r->generator, r->room->request, r->local.n, &o));
    for (int64_t i = 0; i < r->local.n; i++)
        TRY(note_answer(r, &r->local.sample[i], &r->room->request[i]));
    return 0;
}

static int score(struct rollout *r)
{
    struct rollout_room *room = r->room;
    int64_t n = r->local.n;
    int parts = reward_n_parts(r->reward);
    for (int64_t i = 0; i < n; i++) {
        const struct sample *s = &r->local.sample[i];
        int32_t *ids = room->ids + i * room->longest;
        room->text[i] = (struct reward_text){.index = s->index,
                                             .prompt = text_string(&s->prompt_text),
                                             .response = text_string(&s->response_text),
                                             .prompt_bytes = s->prompt_text.n,
                                             .response_bytes = s->response_text.n,
                                             .ids = ids,
                                             .n_ids = sample_ids(ids, s)};
    }
    TRY(reward_score(r->reward, room->text, n, room->score, room->part));
    for (int64_t i = 0; i < n; i++) {
        struct sample *s = &r->local.sample[i];
        for (int p = 0; p < parts; p++)
            room->own[p] = room->part[p * n + i];
        s->raw_score = s->score = room->score[i];
        sample_set_parts(s, room->own, parts);
    }
    return 0;
}

/* Log-probs and values of the policy, then log-probs of the reference: the same weights without the adapter, or with another. */
static int evaluate(struct rollout *r, float temperature)
{
    struct sequence *seq = r->room->sequence;
    int n = (int)r->local.n;
    for (int i = 0; i < n; i++) {
        struct sample *s = &r->local.sample[i];
        int32_t *ids = r->room->ids + (int64_t)i * r->room->longest;
        seq[i] = (struct sequence){.sample = s->index,
                                   .ids = ids,
                                   .n = sample_ids(ids, s),
                                   .first = s->n_prompt,
                                   .logprob = sample_array(s, SAMPLE_LOGPROB),
                                   .entropy = sample_array(s, SAMPLE_ENTROPY),
                                   .value = r->model->value_offset >= 0 ? sample_array(s, SAMPLE_VALUE) : NULL};
    }
    struct model_pass policy = {.adapter = 0}, reference = {.adapter = r->model->reference};
    TRY(sequences_evaluate(r->micro_batch, seq, n, &policy, temperature));
    for (int i = 0; i < n; i++) {
        seq[i].logprob = sample_array(&r->local.sample[i], SAMPLE_REF_LOGPROB);
        seq[i].entropy = seq[i].value = NULL;
    }
    return sequences_evaluate(r->micro_batch, seq, n, &reference, temperature);
}

static int gather(struct rollout *r, struct sample_list *out)
{
    records_clear(&r->mine);
    for (int64_t i = 0; i < r->local.n; i++) {
        const struct sample *s = &r->local.sample[i];
        sample_write(records_extend(&r->mine, s->index, sample_bytes(s)), s);
    }
    comm_gather_records(r->comm, &r->all, &r->mine);
    timing_add_bytes(r->timing, (int64_t)r->all.bytes_used);
    sample_list_clear(out);
    for (int64_t i = 0; i < r->all.n; i++)
        TRY(sample_read(sample_list_add(out), records_bytes(&r->all, i), r->all.records[i].n));
    return 0;
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
    take_share(r, q);
    timing_begin(r->timing, PHASE_GENERATE);
    int rc = answer(r, q);
    timing_end(r->timing, sample_list_tokens(&r->local));
    if (!rc && r->reward) {
        timing_begin(r->timing, PHASE_REWARD);
        rc = score(r);
        timing_end(r->timing, sample_list_tokens(&r->local));
    }
    if (!rc && q->with_logprobs) {
        timing_begin(r->timing, PHASE_LOGPROBS);
        rc = evaluate(r, q->temperature > 0 ? q->temperature : 1.0f);
        timing_end(r->timing, 2 * tokens_of(&r->local));
    }
    timing_begin(r->timing, PHASE_GATHER);
    rc = comm_agree(r->comm, rc);
    if (!rc)
        rc = gather(r, out);
    timing_end(r->timing, 0);
    return rc;
}
