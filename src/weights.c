/* All tensors of a model, in the order of its description, from one of two sources. */
#include "weights.h"

#include "error.h"
#include "hf_folder.h"

#include <math.h>
#include <stdlib.h>

/* Rows of a matrix that are read at once: as many as this, but at least one. */
static const size_t chunk_bytes = (size_t)4 << 20;

/* Where values come from. */
struct source {
    enum dtype (*dtype)(const struct source *s, const struct arch_tensor *t); /* that rows are given in */
    /* elements [first, first + n) of tensor t, as a matrix's type or as floats */
    int (*rows)(const struct source *s, void *out, const struct arch_tensor *t, int64_t first, int64_t n);
    int (*floats)(const struct source *s, float *out, const struct arch_tensor *t, int64_t first, int64_t n);
    void (*release)(const struct source *s, const struct arch_tensor *t); /* the tensor was read */
    const struct hf_folder *folder;
    const struct arch *arch;
    uint64_t seed;
};

static struct linear *matrix_of(struct model *m, const struct arch_tensor *t)
{
    switch (t->role) {
    case ROLE_EMBEDDING:
        return &m->embedding;
    case ROLE_HEAD:
        return &m->head;
    default:
        return &m->layer[t->layer].linear[t->slot];
    }
}

static float *vector_of(struct model *m, const struct arch_tensor *t)
{
    struct norm *n = t->role == ROLE_ATTN_NORM ? &m->layer[t->layer].norm1
                     : t->role == ROLE_MLP_NORM ? &m->layer[t->layer].norm2
                                                : &m->final;
    if (t->role == ROLE_LINEAR)
        return m->layer[t->layer].linear[t->slot].bias;
    return t->bias ? n->bias : n->weight;
}

static int put_vector(struct model *m, const struct source *s, const struct arch_tensor *t)
{
    int64_t n = t->shape[0];
    float *host = malloc((size_t)n * sizeof *host);
    CHECK(host, "out of memory");
    int rc = s->floats(s, host, t, 0, n);
    if (!rc)
        m->be->ops->copy_in(m->be, vector_of(m, t), host, (size_t)n * sizeof *host);
    free(host);
    return rc;
}

static int put_matrix(struct model *m, const struct source *s, const struct arch_tensor *t)
{
    struct linear *l = matrix_of(m, t);
    const enum dtype dtype = l->master ? DTYPE_F32 : s->dtype(s, t);
    const size_t row_bytes = (size_t)l->in * dtype_bytes(dtype);
    const int most = chunk_bytes > row_bytes ? (int)(chunk_bytes / row_bytes) : 1;
    void *rows = malloc((size_t)(most < l->out ? most : l->out) * row_bytes);
    CHECK(rows, "out of memory");
    int rc = 0;
    for (int first = 0; !rc && first < l->out; first += most) {
        const int n = l->out - first < most ? l->out - first : most;
        const int64_t at = (int64_t)first * l->in, all = (int64_t)n * l->in;
        rc = l->master ? s->floats(s, rows, t, at, all) : s->rows(s, rows, t, at, all);
        if (!rc && l->master)
            m->be->ops->copy_in(m->be, l->master + at, rows, (size_t)n * row_bytes);
        else if (!rc)
            m->be->ops->linear_put_rows(m->be, l, rows, dtype, first, n);
        progress_tick(m->progress);
    }
    free(rows);
    return rc;
}

static int put_all(struct model *m, const struct source *s)
{
    for (int i = 0; i < arch_tensors(m->arch); i++) {
        struct arch_tensor t;
        arch_tensor(&t, m->arch, i);
        TRY(t.n_dims == 2 ? put_matrix(m, s, &t) : put_vector(m, s, &t));
        s->release(s, &t);
    }
    if (m->train_all)
        model_refresh(m);
    return 0;
}

static int missing(const struct source *s, const struct arch_tensor *t)
{
    return error_set(ERR_FILE, "%s: tensor %s is missing", s->folder->path, t->name);
}

static int floats_of_file(const struct source *s, float *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    return e ? safetensors_floats(out, e, first, n) : missing(s, t);
}

static int rows_of_file(const struct source *s, void *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    return e ? safetensors_raw(out, e, first, n) : missing(s, t);
}

static void release_in_file(const struct source *s, const struct arch_tensor *t)
{
    safetensors_release(hf_folder_tensor(s->folder, t));
}

static enum dtype dtype_of_file(const struct source *s, const struct arch_tensor *t)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    return e && safetensors_is_float(e) ? (enum dtype)e->dtype : DTYPE_F32;
}

int weights_read(struct model *m, const struct hf_folder *folder)
{
    struct source s = {.dtype = dtype_of_file, .rows = rows_of_file, .floats = floats_of_file, .release = release_in_file,
                       .folder = folder, .arch = m->arch};
    return put_all(m, &s);
}

/* Nearly normal: the sum of four uniforms, of unit variance. */
static float near_normal(struct rng_key key, int64_t element)
{
    uint32_t w[4];
    rng_draw(w, key, 0, (uint32_t)element, (uint32_t)(element >> 32), 0);
    float sum = (rng_uniform(w[0]) + rng_uniform(w[1])) + (rng_uniform(w[2]) + rng_uniform(w[3]));
    return (sum - 2.0f) * 1.7320508f;
}

static int floats_random(const struct source *s, float *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    if (t->n_dims == 1) {
        for (int64_t i = 0; i < n; i++)
            out[i] = t->bias ? 0.0f : 1.0f;
        return 0;
    }
    bool inner = t->role == ROLE_LINEAR;
    struct rng_key key = rng_key(s->seed, RNG_INIT_WEIGHT, inner ? (uint32_t)t->layer + 1 : 0,
                                 inner ? (uint32_t)t->slot : (uint32_t)t->role);
    bool residual = inner && (t->slot == LIN_ATTN_OUT || t->slot == LIN_MLP_DOWN);
    float deviation = residual ? 0.02f / sqrtf(2.0f * (float)s->arch->layers) : 0.02f;
#pragma omp parallel for schedule(static) if (n >= 1 << 16)
    for (int64_t i = 0; i < n; i++)
        out[i] = deviation * near_normal(key, first + i);
    return 0;
}

static int rows_random(const struct source *s, void *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    return floats_random(s, out, t, first, n);
}

static void release_nothing(const struct source *s, const struct arch_tensor *t)
{
    (void)s;
    (void)t;
}

static enum dtype dtype_random(const struct source *s, const struct arch_tensor *t)
{
    (void)s;
    (void)t;
    return DTYPE_F32;
}

void weights_random(struct model *m, uint64_t seed)
{
    struct source s = {.dtype = dtype_random, .rows = rows_random, .floats = floats_random, .release = release_nothing, .arch = m->arch, .seed = seed};
    CHECK(put_all(m, &s) == 0, "random weights cannot fail");
}
