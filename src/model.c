/* The model's parts and where they lie in memory. model_pass.c has the passes. */
#include "model.h"

#include "block.h"
#include "error.h"
#include "rope_table.h"

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

/* What is outside the layers. Tables and the head have the files' type; the pooler too: it is small. */
static void describe_ends(struct model *m, enum dtype file)
{
    const struct arch *a = m->arch;
    linear_describe(m, &m->embedding, a->vocab, a->embedding_width, file);
    if (a->use == ARCH_LANGUAGE_MODEL)
        linear_describe(m, &m->head, a->vocab, a->embedding_width, file);
    if (a->position_rows) /* a sum of two rows where there are token types: not rounded */
        linear_describe(m, &m->positions, a->position_rows, a->hidden, a->type_rows ? DTYPE_F32 : file);
    if (a->embedding_width != a->hidden) {
        linear_describe(m, &m->project_in, a->hidden, a->embedding_width, m->dtype);
        linear_describe(m, &m->project_out, a->embedding_width, a->hidden, m->dtype);
    }
    if (a->pooler)
        linear_describe(m, &m->pooler, a->hidden, a->hidden, file);
}

static void describe_layer(struct model *m, int i)
{
    const struct arch *a = m->arch;
    struct layer *l = &m->layer[i];
    for (int j = 0; j < ARCH_LINEARS_MAX; j++)
        if (a->linear[j].out)
            linear_describe(m, &l->linear[j], a->linear[j].out, a->linear[j].in, m->dtype);
    l->attention = (struct attention){.heads = a->heads,
                                      .kv_heads = a->kv_heads,
                                      .head_dim = a->head_dim,
                                      .rotary_dims = a->rotary_dims,
                                      .max_positions = a->max_positions,
                                      .layout = a->qkv,
                                      .scale = a->scale_by_layer ? a->attention_scale / (float)(i + 1) : a->attention_scale,
                                      .bidirectional = a->bidirectional,
                                      .window = a->windowed[i] ? a->window : 0,
                                      .q_norm = a->qk_norm ? &l->q_norm : NULL,
                                      .k_norm = a->qk_norm ? &l->k_norm : NULL};
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
                        .value_offset = -1,
                        .score.offset = -1};
    m->layer = calloc((size_t)arch->layers, sizeof *m->layer);
    m->x = calloc((size_t)arch->layers + 1, sizeof *m->x);
    m->kept = calloc((size_t)arch->layers, sizeof *m->kept);
    CHECK(m->layer && m->x && m->kept, "out of memory");
    describe_ends(m, o->file_dtype);
    for (int i = 0; i < arch->layers; i++)
        describe_layer(m, i);
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
    m->value_offset = trainable_add(&m->trainable, 1, m->arch->embedding_width, "v_head.summary.weight");
    trainable_add(&m->trainable, 1, 1, "v_head.summary.bias");
}

void model_add_score_head(struct model *m, int n, bool bias, bool trainable, const char *name)
{
    m->score = (struct score_head){.n = n, .has_bias = bias, .offset = -1};
    if (!trainable)
        return;
    m->score.offset = trainable_add(&m->trainable, n, m->arch->embedding_width, "%s.weight", name);
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

static void layout_norm(struct model *m, struct norm *n, int width, bool bias, struct arena *a)
{
    n->kind = m->arch->norm;
    n->eps = m->arch->norm_eps;
    if (m->train_all) {
        n->weight = m->trainable.value ? m->trainable.value + n->offset_weight : NULL;
        n->bias = bias && m->trainable.value ? m->trainable.value + n->offset_bias : NULL;
        return;
    }
    n->offset_weight = n->offset_bias = -1;
    n->weight = floats(a, MEM_SCALES, (size_t)width);
    n->bias = bias ? floats(a, MEM_SCALES, (size_t)width) : NULL;
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

static void layout_layer(struct model *m, struct layer *l, struct arena *a)
{
    const struct arch *arch = m->arch;
    layout_norm(m, &l->norm1, arch->hidden, arch->norm_bias, a);
    layout_norm(m, &l->norm2, arch->hidden, arch->norm_bias, a);
    if (arch->qk_norm) {
        layout_norm(m, &l->q_norm, arch->head_dim, false, a);
        layout_norm(m, &l->k_norm, arch->head_dim, false, a);
    }
    l->attention.rope_cos = m->rope_cos;
    l->attention.rope_sin = m->rope_sin;
    for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
        if (!l->linear[j].out)
            continue;
        layout_linear(m, &l->linear[j], a, MEM_WEIGHTS, arch->linear[j].bias);
        for (int k = 0; k <= m->n_frozen; k++)
            if (l->linear[j].adapter[k])
                layout_lora(m, &l->linear[j], l->linear[j].adapter[k], a);
    }
}

static void layout_weights(struct model *m, struct arena *a)
{
    const struct arch *arch = m->arch;
    const size_t table = (size_t)arch->max_positions * (size_t)arch->rotary_dims / 2;
    layout_linear(m, &m->embedding, a, MEM_EMBEDDING, false);
    if (m->positions.out)
        layout_linear(m, &m->positions, a, MEM_EMBEDDING, false);
    if (m->project_in.out)
        layout_linear(m, &m->project_in, a, MEM_WEIGHTS, false);
    if (arch->embedding_norm)
        layout_norm(m, &m->embedding_norm, arch->hidden, arch->norm_bias, a);
    m->rope_cos = floats(a, MEM_SCALES, table);
    m->rope_sin = floats(a, MEM_SCALES, table);
    for (int i = 0; i < arch->layers; i++)
        layout_layer(m, &m->layer[i], a);
    if (arch->final_norm)
        layout_norm(m, &m->final, arch->hidden, arch->norm_bias, a);
    if (m->project_out.out)
        layout_linear(m, &m->project_out, a, MEM_WEIGHTS, false);
    if (m->pooler.out)
        layout_linear(m, &m->pooler, a, MEM_WEIGHTS, true);
    if (m->head.out && arch->tied_head)
        m->head = m->embedding;
    else if (m->head.out)
        layout_linear(m, &m->head, a, MEM_EMBEDDING, false);
}

static void layout_score(struct model *m, struct arena *a)
{
    struct score_head *s = &m->score;
    CHECK(!s->n || m->shape.head_rows >= m->shape.batch_seqs, "scores of %d sequences, %d rows of heads", m->shape.batch_seqs,
          m->shape.head_rows);
    size_t weights = (size_t)s->n * (size_t)m->arch->embedding_width, rows = (size_t)m->shape.batch_seqs * (size_t)s->n;
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
    size_t W = (size_t)arch->embedding_width, branch = W > H ? W : H;
    size_t Q = (size_t)arch->heads * (size_t)arch->head_dim, K = (size_t)arch->kv_heads * (size_t)arch->head_dim;
    size_t widest = Q + 2 * K > I ? Q + 2 * K : I;
    int kept = m->shape.kept_layers;
    for (int i = 0; i <= arch->layers; i++)
        m->x[i] = i == 0 || kept ? activations(m, a, N * H) : m->x[0];
    for (int i = 0; i < (kept ? kept : 1); i++) {
        struct activations *s = &m->kept[i];
        s->attn_in = arch->residual == RESIDUAL_POST_NORM ? NULL : activations(m, a, N * H);
        s->mlp_in = activations(m, a, N * H);
        s->middle = arch->residual == RESIDUAL_PARALLEL ? NULL : activations(m, a, N * H);
        s->end = arch->residual == RESIDUAL_POST_NORM ? activations(m, a, N * H) : NULL;
        s->q_in = arch->qk_norm ? activations(m, a, N * Q) : NULL;
        s->k_in = arch->qk_norm ? activations(m, a, N * K) : NULL;
        s->q = activations(m, a, N * Q);
        s->k = activations(m, a, N * K);
        s->v = activations(m, a, N * K);
        s->o = activations(m, a, N * Q);
        s->up = activations(m, a, N * I);
        s->gate = arch->gated_mlp ? activations(m, a, N * I) : NULL;
        s->act = activations(m, a, N * I);
    }
    m->normed = arch->final_norm ? activations(m, a, N * H) : m->x[arch->layers];
    m->hidden = m->project_out.out ? activations(m, a, N * W) : m->normed;
    m->attn_out = activations(m, a, N * branch);
    m->mlp_out = activations(m, a, N * branch);
    m->projection[0] = activations(m, a, N * widest);
    m->projection[1] = activations(m, a, N * K);
    m->projection[2] = activations(m, a, N * K);
    if (!kept)
        return;
    m->dx = activations(m, a, N * branch);
    m->dn1 = activations(m, a, N * branch);
    m->dn2 = activations(m, a, N * H);
    m->slope = m->train_all || !m->head.out ? NULL : activations(m, a, (size_t)m->shape.head_rows * W);
    for (int i = 0; i < 4; i++) {
        m->d_wide[i] = activations(m, a, N * widest);
        m->d_narrow[i] = activations(m, a, N * K);
    }
}

static void layout_batch(struct model *m, struct arena *a)
{
    size_t N = (size_t)m->shape.batch_tokens, S = (size_t)m->shape.batch_seqs, R = (size_t)m->shape.head_rows;
    struct device_batch *d = &m->batch;
    /* id, position, sequence; start, slot, sample, random, banned; row and target, twice for who asks again after a pass */
    d->room = 12 * N + 4 + 21 * S + 16 * R + 12 * PACK_ALIGN;
    d->device = arena_take(a, MEM_BATCH, d->room);
    d->host = arena_take(a, MEM_HOST, d->room);
    float **rows[] = {&m->logprob, &m->entropy, &m->lse, &m->value, &m->d_logprob, &m->d_entropy, &m->d_value};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        *rows[i] = floats(a, MEM_BATCH, R);
}

static int larger(int a, int b)
{
    return a > b ? a : b;
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
            arena_take(a, MEM_KV_CACHE, m->be->ops->cache_bytes(m->be, &m->layer[i].attention, slots, shape->cache_tokens)), slots,
            shape->cache_tokens};
    const int q = arch->heads * arch->head_dim, qkv = q + 2 * arch->kv_heads * arch->head_dim;
    const int ends = larger(arch->hidden, arch->embedding_width), in = larger(larger(ends, arch->intermediate), q);
    size_t bytes = m->be->ops->workspace_bytes(m->be, shape->batch_tokens, in, larger(in, qkv),
                                               larger(shape->cache_tokens, shape->batch_tokens), arch->head_dim, m->head.out);
    m->workspace = arena_take(a, MEM_WORKSPACE, bytes);
    if (m->workspace)
        m->be->ops->workspace_set(m->be, m->workspace, a->size[MEM_WORKSPACE]);
}

void model_fill_tables(struct model *m)
{
    const int half = m->arch->rotary_dims / 2;
    const size_t bytes = (size_t)half * sizeof(float);
    if (!half)
        return;
    double *angle = malloc((size_t)half * sizeof *angle);
    float *row = malloc(2 * bytes);
    CHECK(angle && row, "out of memory");
    const double scale = rope_table_angles(angle, m->arch);
    for (int p = 0; p < m->arch->max_positions; p++) {
        rope_table_row(row, row + half, angle, half, scale, p);
        m->be->ops->copy_in(m->be, m->rope_cos + (size_t)p * (size_t)half, row, bytes);
        m->be->ops->copy_in(m->be, m->rope_sin + (size_t)p * (size_t)half, row + half, bytes);
    }
    free(angle);
    free(row);
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
