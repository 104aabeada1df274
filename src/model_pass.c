/* Passes of the model. block.c has the layer; here are the ends: embeddings, final norm, heads, and the host's side of a pass:
 * copying the batch in, rows out. */
#include "model.h"

#include "block.h"
#include "error.h"

#include <string.h>

void *model_pack(struct model *m, const void *host, size_t bytes)
{
    struct device_batch *d = &m->batch;
    size_t at = d->packed;
    CHECK(at + bytes <= d->room, "a batch of more than the planned %zu bytes", d->room);
    memcpy(d->host + at, host, bytes);
    d->packed = (at + bytes + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;
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

/* Linear layers outside the blocks: frozen, without adapters. */
static struct linear_pass plain_pass(const struct model *m)
{
    return (struct linear_pass){.adapter = -1, .batch = &m->batch.b};
}

/* Where a step before the layers writes, of which n are to come: the last one into x[0], those before it into the outputs of
 * the branches, which are free then, in turn. */
static act_t *before_layers(const struct model *m, int n)
{
    return n == 0 ? m->x[0] : n % 2 ? m->attn_out : m->mlp_out;
}

/* Tokens, brought to the width of the layers, positions, norm. */
static void embed(struct model *m)
{
    const struct backend_ops *ops = m->be->ops;
    const struct batch *b = &m->batch.b;
    const struct linear_pass lp = plain_pass(m);
    int left = (m->project_in.out > 0) + (m->positions.out > 0) + m->arch->embedding_norm;
    act_t *x = before_layers(m, left), *from;
    ops->embed(m->be, x, &m->embedding, NULL, b->id, 0, b->n_tokens);
    if (m->project_in.out) {
        from = x;
        x = before_layers(m, --left);
        ops->linear_forward(m->be, &x, (struct linear *[]){&m->project_in}, 1, from, b->n_tokens, &lp);
    }
    if (m->positions.out) {
        from = x;
        x = before_layers(m, --left);
        ops->embed(m->be, x, &m->positions, from, b->position, m->arch->position_offset, b->n_tokens);
    }
    if (m->arch->embedding_norm)
        ops->norm_forward(m->be, m->x[0], NULL, x, x, NULL, NULL, &m->embedding_norm, NULL, b->n_tokens, m->arch->hidden);
}

void model_forward(struct model *m, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    const struct linear_pass lp = plain_pass(m);
    const int N = m->batch.b.n_tokens;
    embed(m);
    for (int i = 0; i < m->arch->layers; i++) {
        block_forward(m, i, pass);
        progress_tick(m->progress);
    }
    act_t *last = m->x[m->arch->layers];
    if (m->arch->final_norm)
        ops->norm_forward(m->be, m->normed, NULL, last, last, NULL, NULL, &m->final, NULL, N, m->arch->hidden);
    if (m->project_out.out)
        ops->linear_forward(m->be, &m->hidden, (struct linear *[]){&m->project_out}, 1, m->normed, N, &lp);
}

/* The lowest layer whose weights are trained: gradients stop there. */
static int first_trained(const struct model *m, const struct model_pass *pass)
{
    for (int i = 0; i < m->arch->layers && !m->train_all; i++)
        for (int j = 0; j < ARCH_LINEARS_MAX; j++)
            if (pass->adapter >= 0 && m->layer[i].linear[j].adapter[pass->adapter])
                return i;
    return m->train_all ? 0 : m->arch->layers;
}

/* From dx of hidden down to the lowest trained layer, adding to the gradients. */
static void backward(struct model *m, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    const struct linear_pass lp = plain_pass(m);
    struct grads *g = &m->trainable.grads;
    const int first = first_trained(m, pass), layers = m->arch->layers;
    if (first == layers)
        return;
    if (m->project_out.out) {
        block_swap_dx(m);
        ops->linear_backward(m->be, m->dx, (struct linear *[]){&m->project_out}, (const act_t *[]){m->dn1}, 1, m->normed,
                             m->batch.b.n_tokens, &lp, g);
    }
    if (m->arch->final_norm)
        block_norm_backward(m, m->x[layers], &m->final);
    for (int i = layers - 1; i >= first; i--) {
        if (m->shape.kept_layers < layers)
            block_recompute(m, i, pass);
        block_backward(m, i, pass, i > first || m->train_all);
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
    const int W = m->arch->embedding_width;
    ops->head_logprob(m->be, m->logprob, m->entropy, m->lse, slopes(m, pass), &m->head, m->hidden, W, rows, temperature);
    if (value) {
        const float *w = m->trainable.value + m->value_offset;
        ops->score_head(m->be, m->value, w, w + W, 1, m->hidden, W, rows);
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
    const int W = m->arch->embedding_width;
    ops->zero(m->be, m->dx, (size_t)m->batch.b.n_tokens * (size_t)W * dtype_bytes(ops->act));
    ops->copy_in(m->be, m->d_logprob, dlogprob, bytes);
    if (dentropy)
        ops->copy_in(m->be, m->d_entropy, dentropy, bytes);
    if (slopes(m, pass) && !dentropy)
        ops->head_slope_backward(m->be, m->dx, m->d_logprob, m->slope, W, rows);
    else
        ops->head_logprob_backward(m->be, m->dx, m->d_logprob, dentropy ? m->d_entropy : NULL, m->lse, m->entropy, &m->head,
                                   m->hidden, W, rows, temperature, g, &m->batch.b);
    if (dvalue) {
        ops->copy_in(m->be, m->d_value, dvalue, bytes);
        ops->score_head_backward(m->be, m->dx, m->d_value, m->trainable.value + m->value_offset, 1, m->hidden, W, rows, g,
                                 m->value_offset, false, &m->batch.b);
    }
    backward(m, pass);
    return ops->sync(m->be);
}

/* What the score head reads: hidden, or what the pooler makes of it. The branches' outputs are free after the layers; that of
 * attention stays for backward. All rows: the pooler is small beside a layer. */
static const act_t *pooled(struct model *m)
{
    const struct backend_ops *ops = m->be->ops;
    const struct linear_pass lp = plain_pass(m);
    const int N = m->batch.b.n_tokens;
    if (!m->pooler.out)
        return m->hidden;
    ops->linear_forward(m->be, &m->attn_out, (struct linear *[]){&m->pooler}, 1, m->hidden, N, &lp);
    ops->act_forward(m->be, m->mlp_out, m->attn_out, NULL, m->arch->pooler_activation, N, m->arch->hidden);
    return m->mlp_out;
}

/* dx of the pooler's output -> dx of its input, in place. */
static void pooler_backward(struct model *m)
{
    const struct backend_ops *ops = m->be->ops;
    const struct linear_pass lp = plain_pass(m);
    const int N = m->batch.b.n_tokens;
    block_swap_dx(m);
    ops->act_backward(m->be, m->dn1, NULL, m->dn1, m->attn_out, NULL, m->arch->pooler_activation, N, m->arch->hidden);
    ops->linear_backward(m->be, m->dx, (struct linear *[]){&m->pooler}, (const act_t *[]){m->dn1}, 1, m->hidden, N, &lp,
                         &m->trainable.grads);
}

int model_score_rows(struct model *m, const struct head_rows *rows, float *score)
{
    const struct backend_ops *ops = m->be->ops;
    const struct score_head *s = &m->score;
    CHECK(rows->n <= m->shape.batch_seqs, "%d rows of scores, planned %d", rows->n, m->shape.batch_seqs);
    ops->score_head(m->be, m->scores, s->weight, s->bias, s->n, pooled(m), m->arch->embedding_width, rows);
    ops->copy_out(m->be, score, m->scores, (size_t)rows->n * (size_t)s->n * sizeof *score);
    return ops->sync(m->be);
}

int model_backward_scores(struct model *m, const struct head_rows *rows, const float *dscore, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    const struct score_head *s = &m->score;
    const int W = m->arch->embedding_width;
    CHECK(s->offset >= 0, "gradients of a frozen score head");
    ops->zero(m->be, m->dx, (size_t)m->batch.b.n_tokens * (size_t)W * dtype_bytes(ops->act));
    ops->copy_in(m->be, m->d_scores, dscore, (size_t)rows->n * (size_t)s->n * sizeof *dscore);
    ops->score_head_backward(m->be, m->dx, m->d_scores, s->weight, s->n, m->pooler.out ? m->mlp_out : m->hidden, W, rows,
                             &m->trainable.grads, s->offset, !s->has_bias, &m->batch.b);
    if (m->pooler.out)
        pooler_backward(m);
    backward(m, pass);
    return ops->sync(m->be);
}
