/* The slot engine. Each round: free slots take the next prompts (one packed prefill), then one decode step of all sequences
 * that are running. What is left on the host: who sits where, and when a response ends. A decode step is one copy to the
 * device, one program, one copy back; the backend may have recorded the program. */
#include "generate.h"

#include "error.h"
#include "hash.h"

#include <string.h>

/* One occupied slot. */
struct seat {
    struct generate_request *request; /* NULL: free */
    int32_t last;                     /* its newest token */
};

struct host_batch {
    int32_t *id, *position, *sequence, *start, *slot, *row;
    int32_t *drawn; /* as generator.drawn */
    int64_t *sample;
    uint32_t *random;
    uint8_t *banned;
    struct seat *seat, **who; /* who[s]: the seat of sequence s */
};

static struct host_batch host_batch_place(struct generator *g, struct arena *a)
{
    size_t N = (size_t)g->model->shape.batch_tokens, S = (size_t)decode_rows(g->model->be, g->model->shape.slots);
    struct host_batch h;
    h.id = arena_take(a, MEM_HOST, N * 4);
    h.position = arena_take(a, MEM_HOST, N * 4);
    h.sequence = arena_take(a, MEM_HOST, N * 4);
    h.start = arena_take(a, MEM_HOST, (S + 1) * 4);
    h.slot = arena_take(a, MEM_HOST, S * 4);
    h.row = arena_take(a, MEM_HOST, S * 4);
    h.drawn = arena_take(a, MEM_HOST, S * 8);
    h.sample = arena_take(a, MEM_HOST, S * 8);
    h.random = arena_take(a, MEM_HOST, S * 4);
    h.banned = arena_take(a, MEM_HOST, S);
    h.seat = arena_take(a, MEM_HOST, S * sizeof *h.seat);
    h.who = arena_take(a, MEM_HOST, S * sizeof *h.who);
    return h;
}

void generator_layout(struct generator *g, struct model *m, struct arena *a)
{
    g->model = m;
    g->drawn = arena_take(a, MEM_BATCH, (size_t)decode_rows(m->be, m->shape.slots) * 8);
    g->eos = arena_take(a, MEM_BATCH, EOS_MAX * 4);
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

/* What a recorded decode step of S sequences depends on beside the contents of memory: where the memory is, of the generator and
 * so of its model, is part of it. */
static uint64_t program_key(const struct generator *g, const struct generate_options *o, int S)
{
    const struct {
        const void *memory;
        struct sampling sampling;
        int S, adapter, n_eos;
    } key = {g->drawn, o->sampling, S, o->adapter, o->n_eos};
    return hash_bytes(&key, sizeof key, 0);
}

/* The numbers that the batch's n running sequences draw with; the others idle. */
static void fill_random(struct host_batch *h, int n, int S, const struct generate_options *o)
{
    struct rng_key key = rng_key(o->seed, RNG_SAMPLE, 0, 0);
    for (int s = 0; s < n; s++) {
        const struct generate_request *r = h->who[s]->request;
        h->random[s] = rng_word(key, o->step, (uint64_t)r->sample, (uint32_t)r->n_response, 0);
        h->banned[s] = r->n_response < r->min_new;
    }
    for (int s = n; s < S; s++)
        h->random[s] = h->banned[s] = 0;
}

/* Seats or frees the sequences, each with its token. */
static void take_tokens(struct host_batch *h, int n, int S, const struct generate_options *o)
{
    const float *logprob = (const float *)(h->drawn + S);
    for (int s = 0; s < n; s++) {
        struct generate_request *r = h->who[s]->request;
        r->response[r->n_response] = h->drawn[s];
        r->logprob[r->n_response++] = logprob[s];
        h->who[s]->last = h->drawn[s];
        r->ended = is_eos(o, h->drawn[s]) || (o->stop && o->stop(o->context, r));
        if (r->ended || r->n_response == r->max_new)
            h->who[s]->request = NULL;
    }
}

/* A pass over the batch, of whose sequences n run, and a token from the last row of each. */
static int advance(struct generator *g, const struct batch *b, int n, bool decode, const struct generate_options *o)
{
    struct model *m = g->model;
    struct host_batch *h = g->host;
    const struct backend_ops *ops = m->be->ops;
    const int S = b->n_seqs;
    const struct model_pass pass = {.adapter = o->adapter, .write_cache = !decode, .decode = decode};
    fill_random(h, n, S, o);
    model_batch(m, b);
    struct head_rows rows = model_rows(m, S, h->row, NULL);
    const uint32_t *random = model_pack(m, h->random, (size_t)S * 4);
    const uint8_t *banned = model_pack(m, h->banned, (size_t)S);
    model_send(m);
    if (!decode || ops->program_begin(m->be, program_key(g, o, S))) {
        model_forward(m, &pass);
        ops->head_sample(m->be, g->drawn, (float *)(g->drawn + S), &m->head, m->hidden, m->arch->embedding_width, &rows, &o->sampling,
                         random, banned, g->eos, o->n_eos);
        if (decode)
            ops->program_end(m->be);
    }
    ops->copy_out(m->be, h->drawn, g->drawn, (size_t)S * 8);
    TRY(ops->sync(m->be));
    progress_tick(m->progress);
    take_tokens(h, n, S, o);
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

/* One token of every running sequence, in order of slots, then idle ones up to the backend's multiple. Returns how many run. */
static int pack_running(struct generator *g, struct host_batch *h)
{
    int S = 0, n;
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
    for (n = S; S < decode_rows(g->model->be, n); S++) {
        h->id[S] = h->position[S] = 0;
        h->sequence[S] = h->start[S] = h->row[S] = S;
        h->slot[S] = g->model->shape.slots; /* one that no sequence has */
        h->sample[S] = 0;
    }
    h->start[S] = S;
    return n;
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
        int N, n = pack_prompts(g, h, &next, end, &N);
        struct batch b = {N, n, h->id, h->position, h->sequence, h->start, h->slot, h->sample};
        if (n)
            TRY(advance(g, &b, n, false, o));
        n = pack_running(g, h);
        if (!n && next == end)
            return 0;
        if (!n)
            continue;
        b.n_tokens = b.n_seqs = decode_rows(m->be, n);
        TRY(advance(g, &b, n, true, o));
    }
}
