/* The state of a run as arrays. Device memory goes through host copies that live for the call. */
#include "state.h"

#include "error.h"
#include "file.h"
#include "log.h"
#include "lora.h"

#include <stdlib.h>

enum { N_REALS = 5, N_COUNTERS = 2, N_BEST = 3, N_ITEMS = 7 };

/* The arrays of a checkpoint. */
struct arrays {
    float *value, *moment1, *moment2; /* [n] host */
    double real[N_REALS];             /* KL coefficient; score mean, variance, std, count */
    int64_t counter[N_COUNTERS];      /* steps, updates */
    double best[N_BEST];              /* found, score, step */
    struct text settings;
    struct checkpoint_item item[N_ITEMS];
    int n_items;
};

static void add(struct arrays *a, struct checkpoint_item item)
{
    a->item[a->n_items++] = item;
}

static int64_t arrays_bytes(const struct arrays *a)
{
    int64_t bytes = 0;
    for (int i = 0; i < a->n_items; i++)
        bytes += a->item[i].n * (int64_t)checkpoint_type_bytes(a->item[i].type);
    return bytes;
}

static void arrays_open(struct arrays *a, const struct state *s)
{
    int64_t n = s->model->trainable.n;
    size_t bytes = (size_t)(n ? n : 1) * sizeof(float);
    *a = (struct arrays){.value = malloc(bytes), .moment1 = malloc(bytes), .moment2 = malloc(bytes)};
    CHECK(a->value && a->moment1 && a->moment2, "out of memory");
    add(a, (struct checkpoint_item){"trainable", CHECKPOINT_F32, n, a->value, true});
    add(a, (struct checkpoint_item){"moment1", CHECKPOINT_F32, n, a->moment1, true});
    add(a, (struct checkpoint_item){"moment2", CHECKPOINT_F32, n, a->moment2, true});
    add(a, (struct checkpoint_item){"counters", CHECKPOINT_I64, N_COUNTERS, a->counter, false});
    if (s->kl)
        add(a, (struct checkpoint_item){"reals", CHECKPOINT_F64, N_REALS, a->real, false});
    if (s->best)
        add(a, (struct checkpoint_item){"best", CHECKPOINT_F64, N_BEST, a->best, false});
}

static void arrays_close(struct arrays *a)
{
    free(a->value);
    free(a->moment1);
    free(a->moment2);
    text_free(&a->settings);
}

static void arrays_fill(struct arrays *a, const struct state *s, int64_t step)
{
    struct backend *be = s->model->be;
    const struct trainable *t = &s->model->trainable;
    size_t bytes = (size_t)t->n * sizeof(float);
    be->ops->copy_out(be, a->value, t->value, bytes);
    be->ops->copy_out(be, a->moment1, t->moment1, bytes);
    be->ops->copy_out(be, a->moment2, t->moment2, bytes);
    a->counter[0] = step;
    a->counter[1] = s->optimizer->n_updates;
    if (s->kl) {
        a->real[0] = s->kl->coef;
        a->real[1] = s->moments->mean, a->real[2] = s->moments->variance;
        a->real[3] = s->moments->std, a->real[4] = s->moments->count;
    }
    if (s->best)
        a->best[0] = s->best->found, a->best[1] = s->best->score, a->best[2] = (double)s->best->step;
    /* for people, and not read back */
    settings_write(&a->settings, s->settings);
    add(a, (struct checkpoint_item){"settings", CHECKPOINT_BYTES, (int64_t)a->settings.n, a->settings.bytes, false});
}

static void arrays_take(const struct arrays *a, struct state *s, int64_t *step)
{
    struct backend *be = s->model->be;
    const struct trainable *t = &s->model->trainable;
    size_t bytes = (size_t)t->n * sizeof(float);
    be->ops->copy_in(be, t->value, a->value, bytes);
    be->ops->copy_in(be, t->moment1, a->moment1, bytes);
    be->ops->copy_in(be, t->moment2, a->moment2, bytes);
    *step = a->counter[0];
    s->optimizer->n_updates = a->counter[1];
    if (s->kl) {
        s->kl->coef = a->real[0];
        *s->moments = (struct score_moments){a->real[1], a->real[2], a->real[3], a->real[4]};
    }
    if (s->best)
        *s->best = (struct best){a->best[0] != 0, a->best[1], (int64_t)a->best[2]};
    model_refresh(s->model);
}

static int write_adapter(void *state, const char *folder)
{
    const struct state *s = state;
    char *path = file_join(folder, "adapter");
    int rc = lora_write(s->model, s->peft, path);
    free(path);
    return rc;
}

int state_write(const struct state *s, int64_t step)
{
    struct arrays a;
    const char *folder = s->settings->run.output_dir;
    int64_t limit = s->settings->run.save_total_limit;
    timing_begin(s->timing, PHASE_CHECKPOINT);
    arrays_open(&a, s);
    arrays_fill(&a, s, step);
    timing_add_bytes(s->timing, arrays_bytes(&a));
    int rc = checkpoint_write(s->comm, folder, step, a.item, a.n_items, s->peft ? write_adapter : NULL, (void *)s);
    if (!rc && limit > 0)
        rc = checkpoint_prune(s->comm, folder, (int)limit);
    arrays_close(&a);
    timing_end(s->timing, 0);
    return rc;
}

int state_read(struct state *s, int64_t *step)
{
    struct text path = {0};
    struct arrays a;
    int64_t found;
    *step = 0;
    arrays_open(&a, s);
    int rc = checkpoint_find_newest(s->comm, s->settings->run.output_dir, &found, &path);
    if (!rc && found >= 0)
        rc = checkpoint_read(s->comm, text_string(&path), a.item, a.n_items);
    if (!rc && found >= 0) {
        arrays_take(&a, s, step);
        log_line("continuing from %s", text_string(&path));
    }
    arrays_close(&a);
    text_free(&path);
    return rc;
}
