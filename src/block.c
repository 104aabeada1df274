/* The transformer block, with the residual sums of enum residual (arch.h). Gradients: SPEC's appendix A.4 to A.8. Residual sums
 * are done by the norm that reads them. */
#include "block.h"

#include "error.h"

static struct activations *kept_of(struct model *m, int i)
{
    return &m->kept[m->shape.kept_layers ? i % m->shape.kept_layers : 0];
}

/* The input of the projections. */
static act_t *attention_input(const struct model *m, int i, const struct activations *s)
{
    return m->arch->residual == RESIDUAL_POST_NORM ? m->x[i] : s->attn_in;
}

static struct linear_pass linears_pass(const struct model *m, const struct model_pass *pass)
{
    return (struct linear_pass){pass->adapter, pass->dropout, pass->step, &m->batch.b};
}

/* The projections of a layer, which share their input: one for all, or three. */
static int qkv_group(struct layer *l, struct linear **group)
{
    if (l->linear[LIN_QKV].out) {
        group[0] = &l->linear[LIN_QKV];
        return 1;
    }
    group[0] = &l->linear[LIN_Q];
    group[1] = &l->linear[LIN_K];
    group[2] = &l->linear[LIN_V];
    return 3;
}

static int mlp_group(struct layer *l, struct linear **group)
{
    group[0] = &l->linear[LIN_MLP_UP];
    group[1] = &l->linear[LIN_MLP_GATE];
    return l->linear[LIN_MLP_GATE].out ? 2 : 1;
}

static void attention_part(struct model *m, int i, struct activations *s, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct layer *l = &m->layer[i];
    struct linear *group[GROUP_MAX], *out = &l->linear[LIN_ATTN_OUT];
    struct linear_pass lp = linears_pass(m, pass);
    const bool normed = m->arch->qk_norm; /* the norms' inputs are kept */
    act_t *qkv[3] = {normed ? s->q_in : m->projection[0], normed ? s->k_in : m->projection[1], m->projection[2]};
    int N = m->batch.b.n_tokens, n = qkv_group(l, group);
    ops->linear_forward(m->be, qkv, group, n, attention_input(m, i, s), N, &lp);
    ops->qkv_rope(m->be, s->q, s->k, s->v, qkv[0], n == 3 ? qkv[1] : NULL, n == 3 ? qkv[2] : NULL, &l->attention,
                  pass->decode || pass->write_cache ? &l->cache : NULL, &m->batch.b);
    if (pass->decode)
        ops->attn_decode(m->be, s->o, s->q, &l->attention, &l->cache, &m->batch.b);
    else
        ops->attn_forward(m->be, s->o, s->q, s->k, s->v, &l->attention, &m->batch.b);
    ops->linear_forward(m->be, &m->attn_out, &out, 1, s->o, N, &lp);
}

static void mlp_part(struct model *m, int i, struct activations *s, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct layer *l = &m->layer[i];
    struct linear *group[GROUP_MAX], *down = &l->linear[LIN_MLP_DOWN];
    struct linear_pass lp = linears_pass(m, pass);
    int N = m->batch.b.n_tokens, n = mlp_group(l, group);
    ops->linear_forward(m->be, (act_t *[]){s->up, s->gate}, group, n, s->mlp_in, N, &lp);
    ops->act_forward(m->be, s->act, s->up, s->gate, m->arch->activation, N, m->arch->intermediate);
    ops->linear_forward(m->be, &m->mlp_out, &down, 1, s->act, N, &lp);
}

/* Everything up to the two branch outputs, attn_out and mlp_out. */
static void branches(struct model *m, int i, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct layer *l = &m->layer[i];
    struct activations *s = kept_of(m, i);
    act_t *x = m->x[i];
    int N = m->batch.b.n_tokens, H = m->arch->hidden;
    switch (m->arch->residual) {
    case RESIDUAL_PARALLEL:
        ops->norm_forward(m->be, s->attn_in, s->mlp_in, x, x, NULL, NULL, &l->norm1, &l->norm2, N, H);
        attention_part(m, i, s, pass);
        break;
    case RESIDUAL_SEQUENTIAL:
        ops->norm_forward(m->be, s->attn_in, NULL, x, x, NULL, NULL, &l->norm1, NULL, N, H);
        attention_part(m, i, s, pass);
        ops->norm_forward(m->be, s->mlp_in, NULL, s->middle, x, m->attn_out, NULL, &l->norm2, NULL, N, H);
        break;
    case RESIDUAL_POST_NORM:
        attention_part(m, i, s, pass);
        ops->norm_forward(m->be, s->mlp_in, NULL, s->middle, x, m->attn_out, NULL, &l->norm1, NULL, N, H);
        break;
    }
    mlp_part(m, i, s, pass);
}

void block_forward(struct model *m, int i, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    int N = m->batch.b.n_tokens, H = m->arch->hidden;
    struct activations *s = kept_of(m, i);
    act_t *y = m->x[i + 1];
    branches(m, i, pass);
    switch (m->arch->residual) {
    case RESIDUAL_PARALLEL:
        ops->add(m->be, y, m->x[i], m->attn_out, m->mlp_out, N, H);
        break;
    case RESIDUAL_SEQUENTIAL:
        ops->add(m->be, y, s->middle, m->mlp_out, NULL, N, H);
        break;
    case RESIDUAL_POST_NORM:
        ops->norm_forward(m->be, y, NULL, s->end, s->mlp_in, m->mlp_out, NULL, &m->layer[i].norm2, NULL, N, H);
        break;
    }
}

void block_recompute(struct model *m, int i, const struct model_pass *pass)
{
    struct activations *s = kept_of(m, i);
    branches(m, i, pass);
    if (m->arch->residual == RESIDUAL_POST_NORM)
        m->be->ops->add(m->be, s->end, s->mlp_in, m->mlp_out, NULL, m->batch.b.n_tokens, m->arch->hidden);
}

static void mlp_backward(struct model *m, int i, struct activations *s, const struct model_pass *pass)
{
    const struct backend_ops *ops = m->be->ops;
    struct layer *l = &m->layer[i];
    struct linear *group[GROUP_MAX], *down = &l->linear[LIN_MLP_DOWN];
    struct linear_pass lp = linears_pass(m, pass);
    struct grads *g = &m->trainable.grads;
    int N = m->batch.b.n_tokens, n = mlp_group(l, group);
    act_t *dact = m->d_wide[0], *dup = m->d_wide[1], *dgate = n == 2 ? m->d_wide[2] : NULL;
    ops->linear_backward(m->be, dact, &down, (const act_t *[]){m->dx}, 1, s->act, N, &lp, g);
    ops->act_backward(m->be, dup, dgate, dact, s->up, s->gate, m->arch->activation, N, m->arch->intermediate);
    ops->linear_backward(m->be, m->dn2, group, (const act_t *[]){dup, dgate}, n, s->mlp_in, N, &lp, g);
}

static void attention_backward(struct model *m, int i, struct activations *s, const struct model_pass *pass, bool want_dx)
{
    const struct backend_ops *ops = m->be->ops;
    struct layer *l = &m->layer[i];
    struct linear *group[GROUP_MAX], *out = &l->linear[LIN_ATTN_OUT];
    struct linear_pass lp = linears_pass(m, pass);
    struct grads *g = &m->trainable.grads;
    const struct batch *b = &m->batch.b;
    int n = qkv_group(l, group);
    act_t *d_o = m->d_wide[0], *dq = m->d_wide[1], *dk = m->d_narrow[0], *dv = m->d_narrow[1];
    act_t *dp[3] = {m->d_wide[2], m->d_narrow[2], m->d_narrow[3]};
    ops->linear_backward(m->be, d_o, &out, (const act_t *[]){m->dx}, 1, s->o, b->n_tokens, &lp, g);
    ops->attn_backward(m->be, dq, dk, dv, d_o, s->q, s->k, s->v, &l->attention, b);
    ops->qkv_rope_backward(m->be, dp[0], n == 3 ? dp[1] : NULL, n == 3 ? dp[2] : NULL, dq, dk, dv, s->q_in, s->k_in, &l->attention, b);
    ops->linear_backward(m->be, want_dx ? m->dn1 : NULL, group, (const act_t *const *)dp, n,
                         attention_input(m, i, s), b->n_tokens, &lp, g);
}

void block_swap_dx(struct model *m)
{
    act_t *dx = m->dx;
    m->dx = m->dn1;
    m->dn1 = dx;
}

void block_norm_backward(struct model *m, const act_t *x, const struct norm *n)
{
    const struct backend_ops *ops = m->be->ops;
    const int H = m->arch->hidden;
    block_swap_dx(m);
    ops->zero(m->be, m->dx, (size_t)m->batch.b.n_tokens * (size_t)H * dtype_bytes(ops->act)); /* the operation adds */
    ops->norm_backward(m->be, m->dx, m->dn1, NULL, x, n, NULL, H, &m->trainable.grads, &m->batch.b);
}

void block_backward(struct model *m, int i, const struct model_pass *pass, bool want_dx)
{
    const struct backend_ops *ops = m->be->ops;
    const struct batch *b = &m->batch.b;
    struct layer *l = &m->layer[i];
    struct activations *s = kept_of(m, i);
    struct grads *g = &m->trainable.grads;
    const enum residual residual = m->arch->residual;
    int H = m->arch->hidden;
    if (residual == RESIDUAL_POST_NORM)
        block_norm_backward(m, s->end, &l->norm2);
    mlp_backward(m, i, s, pass);
    if (residual == RESIDUAL_SEQUENTIAL)
        ops->norm_backward(m->be, m->dx, m->dn2, NULL, s->middle, &l->norm2, NULL, H, g, b);
    if (residual == RESIDUAL_POST_NORM) {
        ops->add(m->be, m->dx, m->dx, m->dn2, NULL, b->n_tokens, H);
        block_norm_backward(m, s->middle, &l->norm1);
    }
    attention_backward(m, i, s, pass, want_dx);
    if (!want_dx)
        return;
    switch (residual) {
    case RESIDUAL_PARALLEL:
        ops->norm_backward(m->be, m->dx, m->dn1, m->dn2, m->x[i], &l->norm1, &l->norm2, H, g, b);
        break;
    case RESIDUAL_SEQUENTIAL:
        ops->norm_backward(m->be, m->dx, m->dn1, NULL, m->x[i], &l->norm1, NULL, H, g, b);
        break;
    case RESIDUAL_POST_NORM:
        ops->add(m->be, m->dx, m->dx, m->dn1, NULL, b->n_tokens, H);
        break;
    }
}

void block_add_trainables(struct model *m)
{
    for (int i = 0; i < arch_tensors(m->arch); i++) {
        struct arch_tensor t;
        arch_tensor(&t, m->arch, i);
        int64_t offset = trainable_add(&m->trainable, t.shape[0], t.n_dims == 2 ? t.shape[1] : 1, "%s", t.name);
        struct layer *l = &m->layer[t.layer];
        struct norm *n = t.role == ROLE_ATTN_NORM ? &l->norm1 : t.role == ROLE_MLP_NORM ? &l->norm2 : &m->final;
        struct linear *w = t.role == ROLE_EMBEDDING ? &m->embedding : t.role == ROLE_HEAD ? &m->head : &l->linear[t.slot];
        bool is_norm = t.role == ROLE_ATTN_NORM || t.role == ROLE_MLP_NORM || t.role == ROLE_FINAL_NORM;
        int64_t *at = is_norm ? (t.bias ? &n->offset_bias : &n->offset_weight)
                              : (t.bias ? &w->offset_bias : &w->offset_weight);
        *at = offset;
    }
}
