/* The slot engine. Each round: free slots take the next prompts (one packed prefill), then one decode step of all sequences
 * that are running. What is left on the host: who sits where, and when a response ends. */
#include "generate.h"

#include "error.h"

#include <string.h>

/* One occupied slot. */
struct seat {
    struct generate_request *request; /* NULL: free */
    int32_t last;                     /* its newest token */
};

struct host_batch {
    int32_t *id, *position, *sequence, *start, *slot, *row, *token;
    int64_t *sample;
    uint32_t *random;
    float *logprob;
    uint8_t *banned;
    struct seat *seat, **who; /* who[s]: the seat of sequence s */
};

static struct host_batch host_batch_place(struct generator *g, struct arena *a)
{
    size_t N = (size_t)g->model->shape.batch_tokens, S = (size_t)g->model->shape.slots;
    N = N > S ? N : S;
    struct host_batch h;
    h.id = arena_take(a, MEM_HOST, N * 4);
    h.position = arena_take(a, MEM_HOST, N * 4);
    h.sequence = arena_take(a, MEM_HOST, N * 4);
    h.start = arena_take(a, MEM_HOST, (S + 1) * 4);
    h.slot = arena_take(a, MEM_HOST, S * 4);
    h.row = arena_take(a, MEM_HOST, S * 4);
    h.token = arena_take(a, MEM_HOST, S * 4);
    h.sample = arena_take(a, MEM_HOST, S * 8);
    h.random = arena_take(a, MEM_HOST, S * 4);
    h.logprob = arena_take(a, MEM_HOST, S * 4);
    h.banned = arena_take(a, MEM_HOST, S);
    h.seat = arena_take(a, MEM_HOST, S * sizeof *h.seat);
    h.who = arena_take(a, MEM_HOST, S * sizeof *h.who);
    return h;
}

void generator_layout(struct generator *g, struct model *m, struct arena *a)
{
    size_t S = (size_t)m->shape.slots;
    g->model = m;
    g->token = arena_take(a, MEM_LOGITS, S * 4);
    g->eos = arena_take(a, MEM_LOGITS, EOS_MAX * 4);
    g->logprob = arena_take(a, MEM_LOGITS, S * 4);
    g->random = arena_take(a, MEM_LOGITS, S * 4);
    g->banned = arena_take(a, MEM_LOGITS, S);
    struct host_batch h = host_batch_place(g, a);
    struct host_batch *kept = arena_take(a, MEM_HOST, sizeof h);
    if (kept)
        *kept = h;
    g->host = kept;
}

static bool is_eos(const struct generate_options *o, int32_t token)
{
    for (int i = 0; i < o->n_eos; i++)
        if (o->eos[i] == token)
            return true;
    return false;
}

/* Draws the next token of the batch's sequences from the rows h->row, and seats or frees them. */
static int draw(struct generator *g, struct host_batch *h, int S, const struct generate_options *o)
{
    struct model *m = g->model;
    const struct backend_ops *ops = m->be->ops;
    struct rng_key key = rng_key(o->seed, RNG_SAMPLE, 0, 0);
    for (int s = 0; s < S; s++) {
        const struct generate_request *r = h->who[s]->request;
        h->random[s] = rng_word(key, o->step, (uint64_t)r->sample, (uint32_t)r->n_response, 0);
        h->banned[s] = r->n_response < r->min_new;
    }
    struct head_rows rows = model_rows(m, S, h->row, NULL);
    ops->copy_in(m->be, g->random, h->random, (size_t)S * 4);
    ops->copy_in(m->be, g->banned, h->banned, (size_t)S);
    ops->head_sample(m->be, g->token, g->logprob, &m->head, m->hidden, m->arch->hidden, &rows, &o->sampling, g->random,
                     g->banned, g->eos, o->n_eos);
    ops->copy_out(m->be, h->token, g->token, (size_t)S * 4);
    ops->copy_out(m->be, h->logprob, g->logprob, (size_t)S * 4);
    TRY(ops->sync(m->be));
    for (int s = 0; s < S; s++) {
        struct generate_request *r = h->who[s]->request;
        r->response[r->n_response] = h->token[s];
        r->logprob[r->n_response++] = h->logprob[s];
        h->who[s]->last = h->token[s];
        r->ended = is_eos(o, h->token[s]) || (o->stop && o->stop(o->context, r));
        if (r->ended || r->n_response == r->max_new)
            h->who[s]->request = NULL;
    }
    return 0;
}

/* Seats waiting prompts in free slots, as many as one packed batch holds. Returns the number of sequences. */
static int pack_prompts(struct generator *g, struct host_batch *h, struct generate_request **next,
                        const struct generate_request *end, int *n_tokens)
{
    const struct model_shape *shape = &g->model->shape;
    int S = 0, N = 0;
    for (int slot = 0; slot < shape->slots && *next < end && S < shape->batch_seqs; slot++) {
        struct generate_request *r = *next;
        if (h->seat[slot].request)
            continue;
        CHECK(r->n_prompt > 0 && r->n_prompt <= shape->batch_tokens && r->n_prompt + r->max_new <= shape->cache_tokens,
              "prompt of %d tokens, %d new", r->n_prompt, r->max_new);
        if (N + r->n_prompt > shape->batch_tokens)
            break;
        h->start[S] = N;
        for (int i = 0; i < r->n_prompt; i++, N++) {
            h->id[N] = r->prompt[i];
            h->position[N] = i;
            h->sequence[N] = S;
        }
        h->row[S] = N - 1;
        h->slot[S] = slot;
        h->sample[S] = r->sample;
        h->seat[slot].request = r;
        h->who[S++] = &h->seat[slot];
        (*next)++;
    }
    h->start[S] = N;
    *n_tokens = N;
    return S;
}

/* One token of every running sequence, in order of slots. */
static int pack_running(struct generator *g, struct host_batch *h)
{
    int S = 0;
    for (int slot = 0; slot < g->model->shape.slots; slot++) {
        struct generate_request *r = h->seat[slot].request;
        if (!r)
            continue;
        h->id[S] = h->seat[slot].last;
        h->position[S] = r->n_prompt + r->n_response - 1;
        h->sequence[S] = h->start[S] = h->row[S] = S;
        h->slot[S] = slot;
        h->sample[S] = r->sample;
        h->who[S++] = &h->seat[slot];
    }
    h->start[S] = S;
    return S;
}

int generate_run(struct generator *g, struct generate_request *requests, int64_t n, const struct generate_options *o)
{
    struct model *m = g->model;
    struct host_batch *h = g->host;
    struct generate_request *next = requests, *end = requests + n;
    CHECK(o->n_eos <= EOS_MAX, "%d end tokens", o->n_eos);
    if (o->n_eos)
        m->be->ops->copy_in(m->be, g->eos, o->eos, (size_t)o->n_eos * 4);
    for (int64_t i = 0; i < n; i++) {
        requests[i].n_response = 0;
        requests[i].ended = false;
    }
    memset(h->seat, 0, (size_t)m->shape.slots * sizeof *h->seat);
    for (;;) {
        struct model_pass pass = {.adapter = o->adapter, .write_cache = true};
        int N, S = pack_prompts(g, h, &next, end, &N);
        struct batch b = {N, S, h->id, h->position, h->sequence, h->start, h->slot, h->sample};
        if (S) {
            model_forward(m, &b, &pass);
            TRY(draw(g, h, S, o));
        }
        S = pack_running(g, h);
        if (!S && next == end)
            return 0;
        if (!S)
            continue;
        b.n_tokens = b.n_seqs = S;
        pass = (struct model_pass){.adapter = o->adapter, .decode = true};
        model_forward(m, &b, &pass);
        TRY(draw(g, h, S, o));
    }
}
