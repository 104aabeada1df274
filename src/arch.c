/* Names and tensors of a model, from its description and its family's row. */
#include "arch.h"

#include "arch_family.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *arch_model_type(const struct arch *a)
{
    return a->family->model_type;
}

const char *arch_prefix(const struct arch *a)
{
    return a->family->name.prefix;
}

const char *arch_embedding_module(const struct arch *a)
{
    return a->family->name.embedding;
}

const char *arch_score_module(const struct arch *a)
{
    return a->family->name.score;
}

const char *arch_pooler_module(const struct arch *a)
{
    return a->family->name.pooler;
}

const char *arch_classifier_class(const struct arch *a)
{
    return a->family->classifier;
}

int arch_classifier_pad(const struct arch *a)
{
    return a->pad >= 0 || !a->n_eos ? a->pad : a->eos[0];
}

const char *arch_head_module(const struct arch *a)
{
    return a->use == ARCH_LANGUAGE_MODEL ? a->family->name.head : a->family->name.score;
}

void arch_module_name(char *out, size_t room, const struct arch *a, int layer, enum arch_slot slot)
{
    CHECK(a->linear[slot].module, "%s has no linear layer %d", a->family->model_type, (int)slot);
    snprintf(out, room, "%s.%d.%s", a->family->name.layers, layer, a->linear[slot].module);
}

static bool in_layer(enum arch_role role)
{
    return role == ROLE_ATTN_NORM || role == ROLE_MLP_NORM || role == ROLE_Q_NORM || role == ROLE_K_NORM || role == ROLE_LINEAR;
}

/* The module of a role; within the layer where the role is of one. NULL: the family has none. */
static const char *module_of(const struct arch *a, enum arch_role role, enum arch_slot slot)
{
    const struct arch_names *n = &a->family->name;
    const char *const module[] = {[ROLE_EMBEDDING] = n->embedding,
                                  [ROLE_ATTN_NORM] = n->attn_norm,
                                  [ROLE_MLP_NORM] = n->mlp_norm,
                                  [ROLE_LINEAR] = a->linear[slot].module,
                                  [ROLE_FINAL_NORM] = n->final_norm,
                                  [ROLE_HEAD] = a->tied_head ? n->embedding : n->head,
                                  [ROLE_POSITIONS] = n->positions,
                                  [ROLE_TOKEN_TYPES] = n->token_types,
                                  [ROLE_EMBEDDING_NORM] = n->embedding_norm,
                                  [ROLE_PROJECT_IN] = n->project_in,
                                  [ROLE_Q_NORM] = n->q_norm,
                                  [ROLE_K_NORM] = n->k_norm,
                                  [ROLE_PROJECT_OUT] = n->project_out,
                                  [ROLE_POOLER] = n->pooler,
                                  [ROLE_SCORE] = n->score};
    return module[role];
}

void arch_tensor_name(char *out, size_t room, const struct arch *a, enum arch_role role, int layer, enum arch_slot slot,
                      bool bias)
{
    const char *module = module_of(a, role, slot), *what = bias ? "bias" : "weight";
    CHECK(module, "%s has no tensor of role %d", a->family->model_type, (int)role);
    if (in_layer(role))
        snprintf(out, room, "%s.%d.%s.%s", a->family->name.layers, layer, module, what);
    else
        snprintf(out, room, "%s.%s", module, what);
}

/* ---- the tensors, in three lists: before the layers, of one layer, behind them ---- */

enum { LIST_MAX = 8 + 2 * ARCH_LINEARS_MAX };

struct list {
    int n;
    struct arch_tensor tensor[LIST_MAX]; /* without names */
};

static struct arch_tensor *append(struct list *l, enum arch_role role, bool bias)
{
    CHECK(l->n < LIST_MAX, "more than %d tensors of a layer", (int)LIST_MAX);
    struct arch_tensor *t = &l->tensor[l->n++];
    *t = (struct arch_tensor){.role = role, .bias = bias};
    return t;
}

static void add_vector(struct list *l, enum arch_role role, bool bias, int n)
{
    struct arch_tensor *t = append(l, role, bias);
    t->n_dims = 1;
    t->shape[0] = n;
}

static struct arch_tensor *add_matrix(struct list *l, enum arch_role role, int rows, int cols)
{
    struct arch_tensor *t = append(l, role, false);
    t->n_dims = 2;
    t->shape[0] = rows;
    t->shape[1] = cols;
    return t;
}

static void add_norm(struct list *l, enum arch_role role, bool bias, int n)
{
    add_vector(l, role, false, n);
    if (bias)
        add_vector(l, role, true, n);
}

static void before_layers(struct list *l, const struct arch *a)
{
    add_matrix(l, ROLE_EMBEDDING, a->vocab, a->embedding_width);
    if (a->position_rows)
        add_matrix(l, ROLE_POSITIONS, a->position_rows, a->hidden);
    if (a->type_rows)
        add_matrix(l, ROLE_TOKEN_TYPES, a->type_rows, a->hidden);
    if (a->embedding_norm)
        add_norm(l, ROLE_EMBEDDING_NORM, a->norm_bias, a->hidden);
    if (a->embedding_width != a->hidden)
        add_matrix(l, ROLE_PROJECT_IN, a->hidden, a->embedding_width);
}

/* The norms, then the linear layers by slot, each weight before its bias. */
static void layer_tensors(struct list *l, const struct arch *a)
{
    add_norm(l, ROLE_ATTN_NORM, a->norm_bias, a->hidden);
    add_norm(l, ROLE_MLP_NORM, a->norm_bias, a->hidden);
    if (a->qk_norm) {
        add_vector(l, ROLE_Q_NORM, false, a->head_dim);
        add_vector(l, ROLE_K_NORM, false, a->head_dim);
    }
    for (int i = 0; i < ARCH_LINEARS_MAX; i++) {
        const struct arch_linear *x = &a->linear[i];
        if (!x->module)
            continue;
        struct arch_tensor *t = add_matrix(l, ROLE_LINEAR, a->transposed ? x->in : x->out, a->transposed ? x->out : x->in);
        t->slot = (enum arch_slot)i;
        t->transposed = a->transposed;
        if (x->bias) {
            add_vector(l, ROLE_LINEAR, true, x->out);
            l->tensor[l->n - 1].slot = (enum arch_slot)i;
        }
    }
}

static void behind_layers(struct list *l, const struct arch *a)
{
    if (a->final_norm)
        add_norm(l, ROLE_FINAL_NORM, a->norm_bias, a->hidden);
    if (a->embedding_width != a->hidden)
        add_matrix(l, ROLE_PROJECT_OUT, a->embedding_width, a->hidden);
    if (a->use == ARCH_LANGUAGE_MODEL && !a->tied_head)
        add_matrix(l, ROLE_HEAD, a->vocab, a->embedding_width);
    if (a->pooler) {
        add_matrix(l, ROLE_POOLER, a->hidden, a->hidden);
        add_vector(l, ROLE_POOLER, true, a->hidden);
    }
    if (a->use == ARCH_CLASSIFIER) {
        add_matrix(l, ROLE_SCORE, a->n_labels, a->embedding_width);
        if (a->bidirectional)
            add_vector(l, ROLE_SCORE, true, a->n_labels);
    }
}

int arch_tensors(const struct arch *a)
{
    struct list before = {0}, layer = {0}, behind = {0};
    before_layers(&before, a);
    layer_tensors(&layer, a);
    behind_layers(&behind, a);
    return before.n + a->layers * layer.n + behind.n;
}

void arch_tensor(struct arch_tensor *t, const struct arch *a, int index)
{
    struct list before = {0}, layer = {0}, behind = {0};
    before_layers(&before, a);
    layer_tensors(&layer, a);
    behind_layers(&behind, a);
    const int end = before.n + a->layers * layer.n;
    CHECK(index >= 0 && index < end + behind.n, "tensor %d of %d", index, end + behind.n);
    if (index < before.n) {
        *t = before.tensor[index];
    } else if (index < end) {
        *t = layer.tensor[(index - before.n) % layer.n];
        t->layer = (index - before.n) / layer.n;
    } else {
        *t = behind.tensor[index - end];
    }
    arch_tensor_name(t->name, sizeof t->name, a, t->role, t->layer, t->slot, t->bias);
}

bool arch_find_tensor(struct arch_tensor *t, const struct arch *a, enum arch_role role, int layer, enum arch_slot slot,
                      bool bias)
{
    struct list l = {0};
    before_layers(&l, a);
    behind_layers(&l, a);
    if (in_layer(role)) {
        l.n = 0;
        layer_tensors(&l, a);
    }
    for (int i = 0; i < l.n; i++) {
        *t = l.tensor[i];
        if (t->role != role || t->bias != bias || (role == ROLE_LINEAR && t->slot != slot))
            continue;
        t->layer = in_layer(role) ? layer : 0;
        arch_tensor_name(t->name, sizeof t->name, a, role, t->layer, t->slot, bias);
        return true;
    }
    return false;
}

int64_t arch_parameters(const struct arch *a)
{
    const int tensors = arch_tensors(a);
    int64_t n = 0;
    for (int i = 0; i < tensors; i++) {
        struct arch_tensor t;
        arch_tensor(&t, a, i);
        n += t.shape[0] * (t.n_dims == 2 ? t.shape[1] : 1);
    }
    return n;
}
