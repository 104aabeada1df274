/* Adapters are views into the trainable vector; their packed copies belong to the backend. */
#include "lora.h"

#include "error.h"
#include "log.h"

#include <math.h>
#include <stdlib.h>

int lora_attach(struct model *m, const struct peft_config *config, uint64_t seed)
{
    const struct arch *arch = m->arch;
    bool *match = calloc((size_t)arch->layers * ARCH_LINEARS_MAX, sizeof *match);
    CHECK(match, "out of memory");
    int n = peft_match_all(match, &config->target_modules, arch);
    for (int i = 0; n > 0 && i < arch->layers; i++) {
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            struct linear *l = &m->layer[i].linear[j];
            char module[ARCH_NAME_MAX];
            if (!match[i * ARCH_LINEARS_MAX + j])
                continue;
            arch_module_name(module, sizeof module, arch, i, (enum arch_slot)j);
            struct lora *lora = &m->layer[i].lora[j];
            *lora = (struct lora){.r = config->r,
                                  .scale = (float)peft_scale(config),
                                  .dropout = (float)config->lora_dropout,
                                  .key = rng_key(seed, RNG_DROPOUT, (uint32_t)i, (uint32_t)j)};
            lora->offset_a = trainable_add(&m->trainable, config->r, l->in, "%s.lora_A", module);
            lora->offset_b = trainable_add(&m->trainable, l->out, config->r, "%s.lora_B", module);
            l->adapter[0] = lora;
        }
    }
    free(match);
    return n > 0 ? 0 : -1;
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

static int read_tensor(struct model *m, int64_t offset, const struct safetensors_entry *e)
{
    float *values = malloc((size_t)e->n * sizeof *values);
    CHECK(values, "out of memory");
    int rc = safetensors_floats(values, e, 0, e->n);
    if (!rc)
        m->be->ops->copy_in(m->be, m->trainable.value + offset, values, (size_t)e->n * sizeof *values);
    free(values);
    return rc;
}

int lora_read(struct model *m, const struct peft_adapter *adapter, const char *folder)
{
    for (int i = 0; i < adapter->n; i++) {
        const struct peft_pair *p = &adapter->pair[i];
        const struct lora *lora = m->layer[p->layer].linear[p->slot].adapter[0];
        CHECK(lora, "an adapter's module was not attached");
        TRY(read_tensor(m, lora->offset_a, p->a));
        TRY(read_tensor(m, lora->offset_b, p->b));
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
    int rc = peft_write(folder, config, arch, out, n);
    if (!rc && m->value_offset >= 0)
        rc = peft_write_value_head(folder, host + m->value_offset, host[m->value_offset + arch->embedding_width],
                                   arch->embedding_width);
    free(host);
    free(out);
    return rc;
}
