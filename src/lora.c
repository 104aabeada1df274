/* Adapters are views into the trainable vector; their packed copies belong to the backend. */
#include "lora.h"

#include "error.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>

int lora_attach(struct model *m, const struct peft_config *config, uint64_t seed)
{
    const struct arch *arch = m->arch;
    double scale = config->lora_alpha / (config->use_rslora ? sqrt((double)config->r) : (double)config->r);
    int n_attached = 0;
    for (int i = 0; i < arch->layers; i++) {
        for (int j = 0; j < ARCH_LINEARS_MAX; j++) {
            struct linear *l = &m->layer[i].linear[j];
            char module[160];
            if (!l->out)
                continue;
            arch_module_name(module, sizeof module, arch, i, (enum arch_slot)j);
            int match = peft_match(config, arch, (enum arch_slot)j, module);
            if (match < 0)
                return -1;
            if (!match)
                continue;
            struct lora *lora = &m->layer[i].lora[j];
            *lora = (struct lora){.r = config->r,
                                  .scale = (float)scale,
                                  .dropout = (float)config->lora_dropout,
                                  .key = rng_key(seed, RNG_DROPOUT, (uint32_t)i, (uint32_t)j)};
            lora->offset_a = trainable_add(&m->trainable, config->r, l->in, "%s.lora_A", module);
            lora->offset_b = trainable_add(&m->trainable, l->out, config->r, "%s.lora_B", module);
            l->adapter[0] = lora;
            n_attached++;
        }
    }
    if (n_attached)
        return 0;
    struct text names = {0};
    for (int j = 0; j < ARCH_LINEARS_MAX; j++)
        if (arch->linear[j].out)
            text_format(&names, " %s", arch->linear[j].module);
    error_set(ERR_INPUT, "lora.target_modules: no linear layer of the model matches; its layers have:%s", text_string(&names));
    text_free(&names);
    return -1;
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
        fill_uniform(m, m->value_offset, arch->hidden + 1, 1.0f / sqrtf((float)arch->hidden),
                     rng_key(seed, RNG_INIT_VALUE_HEAD, 0, 0));
    model_refresh(m);
}
