/* Clipping and AdamW. Bias corrections are powers by repeated squaring: no libm. */
#include "optimizer.h"

#include "fmath.h"

#include <math.h>

void gradient_begin(struct model *m, int64_t n_samples)
{
    m->trainable.grads.limit = (float)(16384.0 / (double)(n_samples > 0 ? n_samples : 1));
    m->be->ops->grads_zero(m->be, &m->trainable.grads);
}

const char *gradient_overflow_name(const struct model *m, int64_t overflow)
{
    const struct trainable_entry *e = overflow > 0 ? trainable_at(&m->trainable, overflow - 1) : NULL;
    return e ? e->name : NULL;
}

void optimizer_update(struct optimizer *o, struct model *m, double learning_rate, double *norm)
{
    struct trainable *t = &m->trainable;
    *norm = sqrt(m->be->ops->grads_norm(m->be, &t->grads));
    o->n_updates++;
    struct adamw how = {.learning_rate = learning_rate,
                        .beta1 = o->beta1,
                        .beta2 = o->beta2,
                        .epsilon = o->epsilon,
                        .weight_decay = o->weight_decay,
                        .correction1 = 1.0 - math_pow_int(o->beta1, o->n_updates),
                        .correction2 = 1.0 - math_pow_int(o->beta2, o->n_updates),
                        .clip = 1.0};
    if (o->max_grad_norm > 0 && *norm > o->max_grad_norm)
        how.clip = o->max_grad_norm / *norm;
    m->be->ops->adamw(m->be, t->value, t->moment1, t->moment2, &t->grads, &how);
    model_refresh(m);
}
