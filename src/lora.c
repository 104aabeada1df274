/* Adapters are views into the trainable vector; their packed copies belong to the backend. */
#include "lora.h"

#include "error.h"
#include "log.h"

#include <math.h>
#include <stdlib.h>

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
    int rc = peft_write(folder, config, arch, out, n, NULL, 0);
    if (!rc && m->value_offset >= 0)
        rc = peft_write_value_head(folder, host + m->value_offset, host[m->value_offset + arch->embedding_width],
                                   arch->embedding_width);
    free(host);
    free(out);
    return rc;
}
