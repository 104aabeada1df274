/* Layout and passes of the model. block.c has the layer; here are the ends: embedding, final norm, head, and the host's side of
 * a pass: copying the batch in, rows out. */
#include "model.h"

#include "block.h"
#include "error.h"
#include "fmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void linear_describe(struct model *m, struct linear *l, int out, int in, enum dtype dtype)
{
    *l = (struct linear){.out = out,
                         .in = in,
                         .dtype = dtype,
                         .matmul = dtype == DTYPE_I8 ? m->matmul : MATMUL_PLAIN,
                         .outlier_threshold = m->outlier_threshold,
                         .offset_weight = -1,
                         .offset_bias = -1};
}

void model_init(struct model *m, const struct arch *arch, struct backend *be, const struct model_options *o)
{
    *m = (struct model){.arch = arch,
                        .be = be,
                        .dtype = o->dtype,
                        .matmul = o->matmul,
                        .outlier_threshold = o->outlier_threshold,
                        .train_all = o->train_all,
                        .reference = -1,
                        .value_offset = -1};
    m->layer = calloc((size_t)arch->layers, sizeof *m->layer);
    m->x = calloc((size_t)arch->layers + 1, sizeof *m->x);
    m->kept = calloc((size_t)arch->layers, sizeof *m->kept);
    CHECK(m->layer && m->x && m->kept, "out of memory");
    m->attention = (struct attention){.heads = arch->heads,
                                      .kv_heads = arch->kv_heads,
                                      .head_dim = arch->head_dim,
                                      .rotary_dims = arch->rotary_dims,
                                      .max_positions = arch->max_positions,
                                      .layout = arch->qkv,
                                      .scale = (float)(1.0 / sqrt((double)arch->head_dim))};
    linear_describe(m, &m->embedding, arch->vocab, arch->hidden, o->file_dtype);
    linear_describe(m, &m->head, arch->vocab, arch->hidden, o->file_dtype);
    for (int i = 0; i < arch->layers; i++)
        for (int j = 0; j < ARCH_LINEARS_MAX; j++)
            if (arch->linear[j].out)
                linear_describe(m, &m->layer[i].linear[j], arch->linear[j].out, arch->linear[j].in, o->dtype);
    if (m->train_all)
        block_add_trainables(m);
}

void model_free(struct model *m)
{
    free(m->layer);
    free(m->x);
    free(m->kept);
    trainable_free(&m->trainable);
    *m = (struct model){0};
}

void model_add_value_head(struct model *m)
{
    m->value_offset = trainable_add(&m->trainable, 1, m->arch->hidden, "v_head.summary.weight");
    trainable_add(&m->trainable, 1, 1, "v_head.summary.bias");
}

void model_add_score_head(struct model *m, int n, bool bias, bool trainable, const char *name)
{
    m->score = (struct score_head){.n = n, .has_bias = bias, .offset = -1};
    if (!trainable)
        return;
    m->score.offset = trainable_add(&m->trainable, n, m->arch->hidden, "%s.weight", name);
    if (bias)
        trainable_add(&m->trainable, 1, n, "%s.bias", name);
}

static float *floats(struct arena *a, enum memory purpose, size_t n)
{
    return arena_take(a, purpose, n * sizeof(float));
}

static void layout_linear(struct model *m, struct linear *l, struct arena *a, enum memory purpose, bool bias)
{
    l->weight = arena_take(a, m->train_all ? MEM_ADAPTERS : purpose, m->be->ops->linear_weight_bytes(m->be, l));
    l->absmax = l->dtype == DTYPE_I8 ? floats(a, MEM_SCALES, (size_t)l->out) : NULL;
    if (m->train_all) {
        l->master = m->trainable.value ? m->trainable.value + l->offset_weight : NULL;
        l->bias = bias && m->trainable.value ? m->trainable.value + l->offset_bias : NULL;
    } else {
        l->bias = bias ? floats(a, MEM_SCALES, (size_t)l->out) : NULL;
    }
}

static void layout_norm(struct model *m, struct norm *n, struct arena *a)
{
    bool bias = m->arch->norm_bias;
    n->kind = m->arch->norm;
    n->eps = m->arch->norm_eps;
    if (m->train_all) {
        n->weight = m->trainable.value ? m->trainable.value + n->offset_weight : NULL;
        n->bias = bias && m->trainable.value ? m->trainable.value + n->offset_bias : NULL;
        return;
    }
    n->offset_weight = n->offset_bias = -1;
    n->weight = floats(a, MEM_SCALES, (size_t)m->arch->hidden);
    n->bias = bias ? floats(a, MEM_SCALES, (size_t)m->arch->hidden) : NULL;
}

static void layout_lora(struct model *m, const struct linear *l, struct lora *lora, struct arena *a)
{
    if (lora->offset_a >= 0) {
        lora->a = m->trainable.value ? m->trainable.value + lora->offset_a : NULL;
        lora->b = m->trainable.value ? m->trainable.value + lora->offset_b : NULL;
    } else {
        lora->a = floats(a, MEM_ADAPTERS, (size_t)lora->r * (size_t)l->in);
        lora->b = floats(a, MEM_ADAPTERS, (size_t)l->out * (size_t)lora->r);
    }
    lora->a_packed = arena_take(a, MEM_ADAPTERS, m->be->ops->lora_packed_bytes(m->be, l, lora->r));
    lora->b_packed = NULL; /* the backend finds B after A in the same block */
}

static void layout_weights(struct model *m, struct arena *a)
{
    const struct arch *arch = m->arch;
    layout_linear(m, &m->embedding, a, MEM_EMBEDDING, false);
    for (int i = 0; i < arch->layers; i++) {
        struct layer *l = &m->layer[i];
        layout_norm(m, &l->norm1, a);
        layout_norm(m, &l->norm2, a);
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            if (!l->linear[j].out)
                continue;
            layout_linear(m, &l->linear[j], a, MEM_WEIGHTS, arch->linear[j].bias);
            for (int k = 0; k <= m->n_frozen; k++)
                if (l->linear[j].adapter[k])
                    layout_lora(m, &l->linear[j], l->linear[j].adapter[k], a);
        }
    }
    layout_norm(m, &m->final, a);
    if (arch->tied_head)
        m->head = m->embedding;
    else
        layout_linear(m, &m->head, a, MEM_EMBEDDING, false);
    size_t table = (size_t)arch->max_positions * (size_t)arch->rotary_dims / 2;
    m->rope_cos = floats(a, MEM_SCALES, table);
    m->rope_sin = floats(a, MEM_SCALES, table);
    m->attention.rope_cos = m->rope_cos;
    m->attention.rope_sin = m->rope_sin;
}

static void layout_score(struct model *m, struct arena *a)
{
    struct score_head *s = &m->score;
    size_t weights = (size_t)s->n * (size_t)m->arch->hidden, rows = (size_t)m->shape.batch_seqs * (size_t)s->n;
    m->scores = floats(a, MEM_BATCH, rows);
    m->d_scores = floats(a, MEM_BATCH, s->offset >= 0 ? rows : 0);
    if (s->offset < 0) {
        s->weight = floats(a, MEM_SCALES, weights);
        s->bias = floats(a, MEM_SCALES, s->has_bias ? (size_t)s->n : 0);
    } else if (m->trainable.value) {
        s->weight = m->trainable.value + s->offset;
        s->bias = s->has_bias ? s->weight + weights : NULL;
    }
}

/* n activations in the backend's type */
static act_t *activations(struct model *m, struct arena *a, size_t n)
{
    return arena_take(a, MEM_ACTIVATIONS, n * dtype_bytes(m->be->ops->act));
}

static void layout_activations(struct model *m, struct arena *a)
{
    const struct arch *arch = m->arch;
    size_t N = (size_t)m->shape.batch_tokens, H = (size_t)arch->hidden, I = (size_t)arch->intermediate;
    size_t Q = (size_t)arch->heads * (size_t)arch->head_dim, K = (size_t)arch->kv_heads * (size_t)arch->head_dim;
    size_t widest = Q + 2 * K > I ? Q + 2 * K : I;
    int kept = m->shape.kept_layers;
    for (int i = 0; i <= arch->layers; i++)
        m->x[i] = i == 0 || kept ? activations(m, a, N * H) : m->x[0];
    for (int i = 0; i < (kept ? kept : 1); i++) {
        struct activations *s = &m->kept[i];
        s->middle = arch->residual == RESIDUAL_PARALLEL ? NULL : activations(m, a, N * H);
        s->n1 = activations(m, a, N * H);
        s->n2 = activations(m, a, N * H);
        s->q = activations(m, a, N * Q);
        s->k = activations(m, a, N * K);
        s->v = activations(m, a, N * K);
        s->o = activations(m, a, N * Q);
        s->up = activations(m, a, N * I);
        s->gate = arch->gated_mlp ? activations(m, a, N * I) : NULL;
        s->act = activations(m, a, N * I);
    }
    m->hidden = activations(m, a, N * H);
    m->attn_out = activations(m, a, N * H);
    m->mlp_out = activations(m, a, N * H);
    m->projection[0] = activations(m, a, N * widest);
    m->projection[1] = activations(m, a, N * K);
    m->projection[2] = activations(m, a, N * K);
    if (!kept)
        return;
    m->dx = activations(m, a, N * H);
    m->dn1 = activations(m, a, N * H);
    m->dn2 = activations(m, a, N * H);
    m->slope = m->train_all ? NULL : activations(m, a, (size_t)m->shape.head_rows * H);
    for (int i = 0; i < 4; i++) {
        m->d_wide[i] = activations(m, a, N * widest);
        m->d_narrow[i] = activations(m, a, N * K);
    }
}

/* Each array of the batch starts at a multiple of this. */
static const size_t pack_align = 16;

static void layout_batch(struct model *m, struct arena *a)
{
    size_t N = (size_t)m->shape.batch_tokens, S = (size_t)m->shape.batch_seqs, R = (size_t)m->shape.head_rows;
    struct device_batch *d = &m->batch;
    /* id, position, sequence; start, slot, sample, random, banned; row and target, twice for who asks again after a pass */
    d->room = 12 * N + 4 + 21 * S + 16 * R + 12 * pack_align;
    d->device = arena_take(a, MEM_BATCH, d->room);
    d->host = arena_take(a, MEM_HOST, d->room);
    float **rows[] = {&m->logprob, &m->entropy, &m->lse, &m->value, &m->d_logprob, &m->d_entropy, &m->d_value};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        *rows[i] = floats(a, MEM_BATCH, R);
}

void model_layout(struct model *m, struct arena *a, const struct model_shape *shape)
{
    const struct arch *arch = m->arch;
    m->shape = *shape;
    trainable_layout(&m->trainable, a);
    layout_weights(m, a);
    layout_score(m, a);
    layout_activations(m, a);
    layout_batch(m, a);
    int slots = shape->slots + (m->be->ops->decode_multiple > 1); /* idle rows write to the last one */
    for (int i = 0; i < arch->layers && shape->slots; i++)
        m->layer[i].cache = (struct kv_cache){
            arena_take(a, MEM_KV_CACHE, m->be->ops->cache_bytes(m->be, &m->attention, slots, shape->cache_tokens)), slots,
            shape->cache_tokens};
    int widest = arch->hidden > arch->intermediate ? arch->hidden : arch->intermediate;
    int qkv = (arch->heads + 2 * arch->kv_heads) * arch->head_dim;
    size_t bytes = m->be->ops->workspace_bytes(m->be, shape->batch_tokens, widest, widest > qkv ? widest : qkv,
                                               shape->cache_tokens > shape->batch_tokens ? shape->cache_tokens
                                                                                         : shape->batch_tokens,
                                               arch->head_dim, arch->vocab);
    m->workspace = arena_take(a, MEM_WORKSPACE, bytes);
    if (m->workspace)
        m->be->ops->workspace_set(m->be, m->workspace, bytes);
}

/* Angle per position of rotary pair j. Scalings: SPEC section 6 (Llama 3: wavelengths between P0/low and P0/high blend). */
static double rope_frequency(const struct arch *arch, int j)
{
    const struct arch_rope *r = &arch->rope;
    double inv = math_pow(r->theta, -2.0 * j / arch->rotary_dims);
    if (r->scaling == ROPE_LINEAR)
        return inv / r->factor;
    if (r->scaling == ROPE_LLAMA3) {
        double turns = r->original_max_positions * inv / 6.283185307179586;
        if (turns < r->low_freq_factor)
            return inv / r->factor;
        if (turns > r->high_freq_factor)
            return inv;
        double smooth = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
        return (1 - smooth) * inv / r->factor + smooth * inv;
    }
    return inv;
}

void model_fill_tables(struct model *m)
{
    const struct arch *arch = m->arch;
    int half = arch->rotary_dims / 2;
    float *c = malloc((size_t)half * 2 * sizeof *c), *s = c + half;
    CHECK(c, "out of memory");
    for (int p = 0; p < arch->max_positions; p++) {
        for (int j = 0; j < half; j++) {
            double angle = p * rope_frequency(arch, j);
            c[j] = (float)math_cos(angle);
            s[j] = (float)math_sin(angle);
        }
        m->be->ops->copy_in(m->be, m->rope_cos + (size_t)p * half, c, (size_t)half * sizeof *c);
        m->be->ops->copy_in(m->be, m->rope_sin + (size_t)p * half, s, (size_t)half * sizeof *s);
    }
    free(c);
}

void *model_pack(struct model *m, const void *host, size_t bytes)
{
    struct device_batch *d = &m->batch;
    size_t at = d->packed;
    CHECK(at + bytes <= d->room, "a batch of more than the planned %zu bytes", d->room);
    memcpy(d->host + at, host, bytes);
    d->packed = (at + bytes + pack_align - 1) / pack_align * pack_align;
    return d->device + at;
}

void model_batch(struct model *m, const struct batch *b)
{
    CHECK(b->n_tokens <= m->shape.batch_tokens && b->n_seqs <= m->shape.batch_seqs, "batch of %d tokens, %d sequences",
          b->n_tokens, b->n_seqs);
    size_t N = (size_t)b->n_tokens, S = (size_t)b->n_seqs;
    m->batch.packed = m->batch.sent = 0;
    m->batch.b = (struct batch){.n_tokens = b->n_tokens,
                                .n_seqs = b->n_seqs,
                                .id = model_pack(m, b->id, N * 4),
                                .position = model_pack(m, b->position, N * 4),
                                .sequence = model_pack(m, b->sequence, N * 4),
                                .start = model_pack(m, b->start, (S + 1) * 4),
                                .slot = model_pack(m, b->slot, S * 4),
                                .sample = model_pack(m, b->sample, S * 8)};
}

struct head_rows model_rows(struct model *m, int n, const int32_t *row, const int32_t *target)
{
    CHECK(n <= m->shape.head_rows, "%d head rows, planned %d", n, m->shape.head_rows);
    size_t bytes = (size_t)n * 4;
    const int32_t *rows = model_pack(m, row, bytes);
    return (struct head_rows){n, rows, target ? model_pack(m, target, bytes) : NULL};
}

void model_send(struct model *m)
{
    struct device_batch *d = &m->batch;
    m->be->ops->copy_in(m->be, d->device + d->sent, d->host + d->sent, d->packed - d->sent);
    d->sent = d->packed;
}

void model_forward(struct model *m, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    ops->embed(m->be, m->x[0], &m->embedding, NULL, m->batch.b.id, 0, m->batch.b.n_tokens);
    for (int i = 0; i < m->arch->layers; i++) {
        block_forward(m, i, pass);
        progress_tick(m->progress);
    }
    int last = m->arch->layers;
    ops->norm_forward(m->be, m->hidden, NULL, m->x[last], m->x[last], NULL, NULL, &m->final, NULL,
                      m->batch.b.n_tokens, m->arch->hidden);
}

void model_backward(struct model *m, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct grads *g = &m->trainable.grads;
    /* dx holds the gradient of hidden; the norm's backward adds, so it goes through dn1 */
    size_t n = (size_t)m->batch.b.n_tokens * (size_t)m->arch->hidden;
    act_t *dhidden = m->dx;
    m->dx = m->dn1;
    m->dn1 = dhidden;
    ops->zero(m->be, m->dx, n * dtype_bytes(ops->act));
    ops->norm_backward(m->be, m->dx, dhidden, NULL, m->x[m->arch->layers], &m->final, NULL, m->arch->hidden, g, &m->batch.b);
    for (int i = m->arch->layers - 1; i >= 0; i--) {
        if (m->shape.kept_layers < m->arch->layers)
            block_recompute(m, i, pass);
        block_backward(m, i, pass);
        progress_tick(m->progress);
    }
    if (m->train_all)
        ops->embed_backward(m->be, m->dx, m->arch->hidden, m->embedding.offset_weight, &m->batch.b, g);
}

/* Where the pass keeps the slopes of its log-probs; NULL where it does not. */
static act_t *slopes(const struct model *m, const struct model_pass *pass)
{
    return pass->keep && !pass->entropy_gradient ? m->slope : NULL;
}

int model_evaluate_rows(struct model *m, const struct head_rows *rows, const struct model_pass *pass, float temperature,
                        float *logprob, float *entropy, float *value)
{
    const struct backend_ops *ops = m->be->ops;
    size_t bytes = (size_t)rows->n * sizeof(float);
    int H = m->arch->hidden;
    ops->head_logprob(m->be, m->logprob, m->entropy, m->lse, slopes(m, pass), &m->head, m->hidden, H, rows, temperature);
    if (value) {
        const float *w = m->trainable.value + m->value_offset;
        ops->score_head(m->be, m->value, w, w + H, 1, m->hidden, H, rows);
        ops->copy_out(m->be, value, m->value, bytes);
    }
    ops->copy_out(m->be, logprob, m->logprob, bytes);
    if (entropy)
        ops->copy_out(m->be, entropy, m->entropy, bytes);
    return ops->sync(m->be);
}

int model_backward_rows(struct model *m, const struct head_rows *rows, float temperature, const float *dlogprob,
                        const float *dentropy, const float *dvalue, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct grads *g = &m->trainable.grads;
    size_t bytes = (size_t)rows->n * sizeof(float);
    int H = m->arch->hidden;
    ops->zero(m->be, m->dx, (size_t)m->batch.b.n_tokens * (size_t)H * dtype_bytes(ops->act));
    ops->copy_in(m->be, m->d_logprob, dlogprob, bytes);
    if (dentropy)
        ops->copy_in(m->be, m->d_entropy, dentropy, bytes);
    if (slopes(m, pass) && !dentropy)
        ops->head_slope_backward(m->be, m->dx, m->d_logprob, m->slope, H, rows);
    else
        ops->head_logprob_backward(m->be, m->dx, m->d_logprob, dentropy ? m->d_entropy : NULL, m->lse, m->entropy, &m->head,
                                   m->hidden, H, rows, temperature, g, &m->batch.b);
    if (dvalue) {
        ops->copy_in(m->be, m->d_value, dvalue, bytes);
        ops->score_head_backward(m->be, m->dx, m->d_value, m->trainable.value + m->value_offset, 1, m->hidden, H, rows, g,
                                 m->value_offset, false, &m->batch.b);
    }
    model_backward(m, pass);
    return ops->sync(m->be);
}

int model_score_rows(struct model *m, const struct head_rows *rows, const struct model_pass *pass, float *score)
{
    const struct backend_ops *ops = m->be->ops;
    const struct score_head *s = &m->score;
    (void)pass;
    ops->score_head(m->be, m->scores, s->weight, s->bias, s->n, m->hidden, m->arch->hidden, rows);
    ops->copy_out(m->be, score, m->scores, (size_t)rows->n * (size_t)s->n * sizeof *score);
    return ops->sync(m->be);
}

int model_backward_scores(struct model *m, const struct head_rows *rows, const float *dscore, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    const struct score_head *s = &m->score;
    const int H = m->arch->hidden;
    ops->zero(m->be, m->dx, (size_t)m->batch.b.n_tokens * (size_t)H * dtype_bytes(ops->act));
    ops->copy_in(m->be, m->d_scores, dscore, (size_t)rows->n * (size_t)s->n * sizeof *dscore);
    ops->score_head_backward(m->be, m->dx, m->d_scores, s->weight, s->n, m->hidden, H, rows, &m->trainable.grads, s->offset,
                             !s->has_bias, &m->batch.b);
    model_backward(m, pass);
    return ops->sync(m->be);
}

void model_refresh(struct model *m)
{
    for (int i = 0; i < m->arch->layers; i++)
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            struct linear *l = &m->layer[i].linear[j];
            if (l->out && (l->master || l->adapter[0]))
                m->be->ops->linear_refresh(m->be, l);
        }
    if (m->train_all) {
        m->be->ops->linear_refresh(m->be, &m->embedding);
        if (!m->arch->tied_head)
            m->be->ops->linear_refresh(m->be, &m->head);
    }
}
