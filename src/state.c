/* The state of a run as arrays. Device memory goes through host copies that live for the call. */
#include "state.h"

#include "error.h"
#include "log.h"
#include "lora.h"

#include <stdlib.h>

enum { N_REALS = 5, N_COUNTERS = 2, N_ITEMS = 6 };

struct state {
    float *value, *moment1, *moment2; /* [n] host */
    double real[N_REALS];             /* KL coefficient; score mean, variance, std, count */
    int64_t counter[N_COUNTERS];      /* steps, updates */
    struct text settings;
};

static void state_open(struct state *s, const struct trainable *t)
{
    *s = (struct state){0};
    size_t bytes = (size_t)(t->n ? t->n : 1) * sizeof(float);
    s->value = malloc(bytes);
    s->moment1 = malloc(bytes);
    s->moment2 = malloc(bytes);
    CHECK(s->value && s->moment1 && s->moment2, "out of memory");
}

static void state_close(struct state *s)
{
    free(s->value);
    free(s->moment1);
    free(s->moment2);
    text_free(&s->settings);
}

/* The list; the settings' text comes last, and is not read back. */
static void state_list(struct checkpoint_item item[N_ITEMS], struct state *s, int64_t n)
{
    item[0] = (struct checkpoint_item){"trainable", CHECKPOINT_F32, n, s->value, true};
    item[1] = (struct checkpoint_item){"moment1", CHECKPOINT_F32, n, s->moment1, true};
    item[2] = (struct checkpoint_item){"moment2", CHECKPOINT_F32, n, s->moment2, true};
    item[3] = (struct checkpoint_item){"reals", CHECKPOINT_F64, N_REALS, s->real, false};
    item[4] = (struct checkpoint_item){"counters", CHECKPOINT_I64, N_COUNTERS, s->counter, false};
    item[5] = (struct checkpoint_item){"settings", CHECKPOINT_BYTES, (int64_t)s->settings.n, s->settings.bytes, false};
}

static int64_t state_bytes(const struct checkpoint_item item[N_ITEMS])
{
    static const int64_t size[] = {[CHECKPOINT_BYTES] = 1, [CHECKPOINT_F32] = 4, [CHECKPOINT_F64] = 8, [CHECKPOINT_I64] = 8};
    int64_t bytes = 0;
    for (int i = 0; i < N_ITEMS; i++)
        bytes += item[i].n * size[item[i].type];
    return bytes;
}

struct adapter_context {
    const struct model *model;
    const struct peft_config *peft;
};

static int write_adapter(void *context, const char *folder)
{
    const struct adapter_context *c = context;
    char *path = file_join(folder, "adapter");
    int rc = lora_write(c->model, c->peft, path);
    free(path);
    return rc;
}

int state_write(struct ppo *p, const struct peft_config *peft, int64_t step)
{
    struct model *m = p->rollout.model;
    const struct trainable *t = &m->trainable;
    size_t bytes = (size_t)t->n * sizeof(float);
    struct state s;
    struct checkpoint_item item[N_ITEMS];
    state_open(&s, t);
    m->be->ops->copy_out(m->be, s.value, t->value, bytes);
    m->be->ops->copy_out(m->be, s.moment1, t->moment1, bytes);
    m->be->ops->copy_out(m->be, s.moment2, t->moment2, bytes);
    double real[N_REALS] = {p->kl.coef, p->moments.mean, p->moments.variance, p->moments.std, p->moments.count};
    for (int i = 0; i < N_REALS; i++)
        s.real[i] = real[i];
    s.counter[0] = step;
    s.counter[1] = p->optimizer.n_updates;
    settings_write(&s.settings, p->rollout.settings);
    state_list(item, &s, t->n);
    timing_add_bytes(p->rollout.timing, state_bytes(item));
    struct adapter_context context = {m, peft};
    int rc = checkpoint_write(p->rollout.comm, p->rollout.settings->run.output_dir, step, item, N_ITEMS, write_adapter, &context);
    state_close(&s);
    return rc;
}

int state_read(struct ppo *p, int64_t *step)
{
    struct model *m = p->rollout.model;
    const struct trainable *t = &m->trainable;
    size_t bytes = (size_t)t->n * sizeof(float);
    struct text path = {0};
    struct state s;
    struct checkpoint_item item[N_ITEMS];
    int64_t found;
    *step = 0;
    state_open(&s, t);
    state_list(item, &s, t->n);
    int rc = checkpoint_find_newest(p->rollout.comm, p->rollout.settings->run.output_dir, &found, &path);
    if (!rc && found >= 0)
        rc = checkpoint_read(p->rollout.comm, text_string(&path), item, N_ITEMS - 1);
    if (!rc && found >= 0) {
        m->be->ops->copy_in(m->be, t->value, s.value, bytes);
        m->be->ops->copy_in(m->be, t->moment1, s.moment1, bytes);
        m->be->ops->copy_in(m->be, t->moment2, s.moment2, bytes);
        p->kl.coef = s.real[0];
        p->moments = (struct score_moments){s.real[1], s.real[2], s.real[3], s.real[4]};
        *step = s.counter[0];
        p->optimizer.n_updates = s.counter[1];
        model_refresh(m);
        log_line("continuing from %s", text_string(&path));
    }
    state_close(&s);
    text_free(&path);
    return rc;
}
