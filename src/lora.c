/* Adapters are views into the trainable vector; their packed copies belong to the backend. */
#include "lora.h"

#include "error.h"
#include "log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_rank(const struct model *m, const struct linear *l, int r, const char *module)
{
    const int most = m->be->ops->rank_most;
    if (r > l->in)
        return error_set(ERR_INPUT, "an adapter of rank %d on %s, which has %d inputs: a smaller rank does the same", r, module,
                         l->in);
    if (r > most)
        return error_set(ERR_INPUT, "an adapter of rank %d on %s (lora.r, or the adapter's own): the %s backend takes up to %d", r,
                         module, m->be->ops->name, most);
    return 0;
}

static int attach(struct model *m, const struct peft_config *config, uint64_t seed, int layer, enum arch_slot slot)
{
    struct linear *l = &m->layer[layer].linear[slot];
    struct lora *lora = &m->layer[layer].lora[0][slot];
    struct peft_size size;
    char module[ARCH_NAME_MAX];
    arch_module_name(module, sizeof module, m->arch, layer, slot);
    TRY(peft_size(&size, config, module));
    TRY(check_rank(m, l, size.r, module));
    *lora = (struct lora){.r = size.r,
                          .scale = (float)size.scale,
                          .dropout = (float)config->lora_dropout,
                          .key = rng_key(seed, RNG_DROPOUT, (uint32_t)layer, (uint32_t)slot)};
    lora->offset_a = trainable_add(&m->trainable, size.r, l->in, "%s.lora_A", module);
    lora->offset_b = trainable_add(&m->trainable, l->out, size.r, "%s.lora_B", module);
    l->adapter[0] = lora;
    return 0;
}

int lora_attach(struct model *m, const struct peft_config *config, uint64_t seed)
{
    const struct arch *arch = m->arch;
    bool *match = calloc((size_t)arch->layers * ARCH_LINEARS_MAX, sizeof *match);
    CHECK(match, "out of memory");
    int rc = peft_match_all(match, config, arch) < 0 ? -1 : 0;
    for (int k = 0; !rc && k < arch->layers * ARCH_LINEARS_MAX; k++)
        if (match[k])
            rc = attach(m, config, seed, k / ARCH_LINEARS_MAX, (enum arch_slot)(k % ARCH_LINEARS_MAX));
    free(match);
    return rc;
}

int lora_attach_frozen(struct model *m, const struct peft_adapter *adapter)
{
    const int index = m->n_frozen + 1;
    if (index >= LINEAR_ADAPTERS)
        return error_set(ERR_INPUT, "%s: one adapter too many; a model takes %d beside the trained one",
                         adapter->weights.file[0].path, LINEAR_ADAPTERS - 1);
    for (int i = 0; i < adapter->n; i++) {
        const struct peft_pair *p = &adapter->pair[i];
        struct lora *lora = &m->layer[p->layer].lora[index][p->slot];
        TRY(check_rank(m, &m->layer[p->layer].linear[p->slot], p->size.r, p->a->name));
        *lora = (struct lora){.r = p->size.r, .scale = (float)p->size.scale, .offset_a = -1, .offset_b = -1};
        m->layer[p->layer].linear[p->slot].adapter[index] = lora;
    }
    m->n_frozen = index;
    return index;
}

/* n values uniform in [-bound, bound), element i from the key alone */
static void fill_uniform(struct model *m, int64_t offset, int64_t n, float bound, struct rng_key key)
{
    float *values = malloc((size_t)n * sizeof *values);
    CHECK(values, "out of memory");
    for (int64_t i = 0; i < n; i++)
        values[i] = (2.0f * rng_uniform(rng_word(key, 0, (uint64_t)i / 1024, 0, (uint32_t)(i % 1024))) - 1.0f) * bound;
    m->be->ops->copy_in(m->be, m->trainable.value + offset, values, (size_t)n * sizeof *values);
    free(values);
}

void lora_init(struct model *m, uint64_t seed)
{
    const struct arch *arch = m->arch;
    for (int i = 0; i < arch->layers; i++)
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            struct linear *l = &m->layer[i].linear[j];
            struct lora *lora = l->adapter[0];
            if (!l->out || !lora)
                continue;
            fill_uniform(m, lora->offset_a, (int64_t)lora->r * l->in, 1.0f / sqrtf((float)l->in),
                         rng_key(seed, RNG_INIT_ADAPTER, (uint32_t)i, (uint32_t)j));
        }
    if (m->value_offset >= 0)
        fill_uniform(m, m->value_offset, arch->embedding_width + 1, 1.0f / sqrtf((float)arch->embedding_width),
                     rng_key(seed, RNG_INIT_VALUE_HEAD, 0, 0));
    if (m->score.offset >= 0)
        fill_uniform(m, m->score.offset, (int64_t)m->score.n * arch->embedding_width, 0.02f * sqrtf(3.0f),
                     rng_key(seed, RNG_INIT_VALUE_HEAD, 1, 0));
    model_refresh(m);
}

static int read_tensor(struct model *m, float *to, const struct safetensors_entry *e)
{
    float *values = malloc((size_t)e->n * sizeof *values);
    CHECK(values, "out of memory");
    int rc = safetensors_floats(values, e, 0, e->n);
    if (!rc)
        m->be->ops->copy_in(m->be, to, values, (size_t)e->n * sizeof *values);
    free(values);
    return rc;
}

/* Tensors of the score head by their names in the model, as modules of a file or of an adapter name them. */
struct score_tensors {
    char weight[ARCH_NAME_MAX + 8], bias[ARCH_NAME_MAX + 8];
};

static struct score_tensors score_tensors(const struct arch *a)
{
    struct score_tensors t;
    snprintf(t.weight, sizeof t.weight, "%s.weight", arch_head_module(a));
    snprintf(t.bias, sizeof t.bias, "%s.bias", arch_head_module(a));
    return t;
}

static bool fits_score(const struct model *m, const struct safetensors_entry *weight, const struct safetensors_entry *bias)
{
    return weight && weight->n_dims == 2 && weight->shape[0] == m->score.n && weight->shape[1] == m->arch->embedding_width &&
           (!m->score.has_bias || (bias && bias->n == m->score.n));
}

static int read_score(struct model *m, const struct safetensors_entry *weight, const struct safetensors_entry *bias)
{
    TRY(read_tensor(m, m->score.weight, weight));
    return m->score.has_bias ? read_tensor(m, m->score.bias, bias) : 0;
}

int lora_read_score(struct model *m, const struct safetensors *weights)
{
    const struct score_tensors t = score_tensors(m->arch);
    const struct safetensors_entry *weight = safetensors_find(weights, t.weight), *bias = safetensors_find(weights, t.bias);
    const bool found = fits_score(m, weight, bias);
    log_line("score head: %s", found ? "from the model's folder" : weight ? "new, as the folder's has another shape" : "new");
    return found ? read_score(m, weight, bias) : 0;
}

static int read_saved_score(struct model *m, const struct peft_adapter *adapter, const char *folder)
{
    const struct score_tensors t = score_tensors(m->arch);
    const struct safetensors_entry *weight = peft_find_saved(adapter, t.weight), *bias = peft_find_saved(adapter, t.bias);
    if (!weight)
        return 0;
    if (!fits_score(m, weight, bias))
        return error_set(ERR_FILE, "%s: %s is not of %d scores of %d inputs each: the data have other classes", folder, t.weight,
                         m->score.n, m->arch->embedding_width);
    return read_score(m, weight, bias);
}

/* The pooler of the folder's classifier, where PEFT saved it with the head; it stays frozen. */
static int read_saved_pooler(struct model *m, const struct peft_adapter *adapter, const char *folder)
{
    const int64_t H = m->arch->hidden;
    const struct safetensors_entry *part[2]; /* weight, bias */
    char name[ARCH_NAME_MAX];
    if (!m->arch->pooler)
        return 0;
    for (int i = 0; i < 2; i++) {
        arch_tensor_name(name, sizeof name, m->arch, ROLE_POOLER, 0, 0, i == 1);
        part[i] = peft_find_saved(adapter, name);
    }
    if (!part[0] && !part[1])
        return 0;
    if (!part[0] || !part[1] || part[0]->n_dims != 2 || part[0]->shape[0] != H || part[0]->shape[1] != H || part[1]->n != H)
        return error_set(ERR_FILE, "%s: %s and its weight are not of %lld outputs of as many inputs", folder, name, (long long)H);
    float *rows = malloc((size_t)(H * H) * sizeof *rows);
    CHECK(rows, "out of memory");
    int rc = safetensors_floats(rows, part[0], 0, H * H);
    if (!rc)
        m->be->ops->linear_put_rows(m->be, &m->pooler, rows, DTYPE_F32, 0, (int)H);
    free(rows);
    return rc ? rc : read_tensor(m, m->pooler.bias, part[1]);
}

int lora_read(struct model *m, const struct peft_adapter *adapter, const char *folder)
{
    for (int i = 0; i < adapter->n; i++) {
        const struct peft_pair *p = &adapter->pair[i];
        const struct lora *lora = m->layer[p->layer].linear[p->slot].adapter[0];
        CHECK(lora, "an adapter's module was not attached");
        TRY(read_tensor(m, lora->a, p->a));
        TRY(read_tensor(m, lora->b, p->b));
    }
    int rc = 0;
    if (m->value_offset >= 0) {
        const int H = m->arch->embedding_width;
        bool found;
        float *head = malloc((size_t)(H + 1) * sizeof *head);
        CHECK(head, "out of memory");
        rc = peft_read_value_head(head, head + H, &found, folder, H);
        if (!rc && found)
            m->be->ops->copy_in(m->be, m->trainable.value + m->value_offset, head, (size_t)(H + 1) * sizeof *head);
        if (!rc)
            log_line("value head: %s", found ? "from beside the adapter" : "none beside the adapter, a new one");
        free(head);
    }
    if (!rc && m->score.offset >= 0)
        rc = read_saved_score(m, adapter, folder);
    if (!rc && m->score.offset >= 0)
        rc = read_saved_pooler(m, adapter, folder);
    model_refresh(m);
    return rc;
}

int lora_read_frozen(struct model *m, const struct peft_adapter *adapter, int index)
{
    for (int i = 0; i < adapter->n; i++) {
        const struct peft_pair *p = &adapter->pair[i];
        struct linear *l = &m->layer[p->layer].linear[p->slot];
        struct lora *lora = l->adapter[index];
        CHECK(lora && lora->offset_a < 0, "a frozen adapter's module was not attached");
        TRY(read_tensor(m, lora->a, p->a));
        TRY(read_tensor(m, lora->b, p->b));
        m->be->ops->linear_refresh(m->be, l);
        lora->packed = true;
    }
    return 0;
}

/* What is written for modules_to_save. */
struct saved {
    struct safetensors_out tensor[4];
    int n;
    struct score_tensors names;
    char pooler[2][ARCH_NAME_MAX]; /* weight, bias */
    float *values;                 /* of the pooler; owned */
};

/* The pooler before the head, with it: files of an encoder alone may lack it, and it is then one of this run. */
static void add_pooler(struct saved *s, const struct model *m)
{
    const struct arch *a = m->arch;
    const int64_t H = a->hidden;
    if (!a->pooler)
        return;
    for (int i = 0; i < 2; i++)
        arch_tensor_name(s->pooler[i], sizeof s->pooler[i], a, ROLE_POOLER, 0, 0, i == 1);
    s->values = malloc((size_t)(H * H + H) * sizeof *s->values);
    CHECK(s->values, "out of memory");
    m->be->ops->linear_get_rows(m->be, &m->pooler, s->values, 0, (int)H);
    m->be->ops->copy_out(m->be, s->values + H * H, m->pooler.bias, (size_t)H * sizeof *s->values);
    s->tensor[s->n++] = (struct safetensors_out){
        .name = s->pooler[0], .dtype = DTYPE_F32, .n_dims = 2, .shape = {H, H}, .data = s->values};
    s->tensor[s->n++] = (struct safetensors_out){
        .name = s->pooler[1], .dtype = DTYPE_F32, .n_dims = 1, .shape = {H}, .data = s->values + H * H};
}

static void add_score(struct saved *s, const struct model *m, const float *trainable)
{
    const int64_t width = m->arch->embedding_width;
    if (m->score.offset < 0)
        return;
    add_pooler(s, m);
    const float *weight = trainable + m->score.offset;
    s->names = score_tensors(m->arch);
    s->tensor[s->n++] = (struct safetensors_out){
        .name = s->names.weight, .dtype = DTYPE_F32, .n_dims = 2, .shape = {m->score.n, width}, .data = weight};
    if (m->score.has_bias)
        s->tensor[s->n++] = (struct safetensors_out){
            .name = s->names.bias, .dtype = DTYPE_F32, .n_dims = 1, .shape = {m->score.n}, .data = weight + m->score.n * width};
}

int lora_write(const struct model *m, const struct peft_config *config, const char *folder)
{
    const struct arch *arch = m->arch;
    size_t most = (size_t)arch->layers * ARCH_LINEARS_MAX;
    struct peft_out *out = calloc(most, sizeof *out);
    float *host = malloc((size_t)m->trainable.n * sizeof *host);
    CHECK(out && host, "out of memory");
    m->be->ops->copy_out(m->be, host, m->trainable.value, (size_t)m->trainable.n * sizeof *host);
    int n = 0;
    for (int i = 0; i < arch->layers; i++)
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            const struct lora *lora = m->layer[i].linear[j].adapter[0];
            if (lora)
                out[n++] = (struct peft_out){i, (enum arch_slot)j, host + lora->offset_a, host + lora->offset_b};
        }
    struct saved saved = {0};
    add_score(&saved, m, host);
    int rc = peft_write(folder, config, arch, out, n, saved.tensor, saved.n);
    if (!rc && m->value_offset >= 0)
        rc = peft_write_value_head(folder, host + m->value_offset, host[m->value_offset + arch->embedding_width],
                                   arch->embedding_width);
    free(saved.values);
    free(host);
    free(out);
    return rc;
}
