/* Clipping and AdamW. Bias corrections are powers by repeated squaring: no libm. */
#include "optimizer.h"

#include "fmath.h"

#include <math.h>

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
