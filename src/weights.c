/* All tensors of a model, in the order of its description, from one of two sources. */
#include "weights.h"

#include "error.h"
#include "hf_folder.h"
#include "log.h"

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

/* A matrix in the backend's own layout; NULL for what is kept as floats. */
static struct linear *matrix_of(struct model *m, const struct arch_tensor *t)
{
    switch (t->role) {
    case ROLE_EMBEDDING:
        return &m->embedding;
    case ROLE_POSITIONS:
        return &m->positions;
    case ROLE_PROJECT_IN:
        return &m->project_in;
    case ROLE_PROJECT_OUT:
        return &m->project_out;
    case ROLE_HEAD:
        return &m->head;
    case ROLE_POOLER:
        return &m->pooler;
    case ROLE_LINEAR:
        return &m->layer[t->layer].linear[t->slot];
    default:
        return NULL;
    }
}

static struct norm *norm_of(struct model *m, const struct arch_tensor *t)
{
    struct layer *l = &m->layer[t->layer];
    switch (t->role) {
    case ROLE_ATTN_NORM:
        return &l->norm1;
    case ROLE_MLP_NORM:
        return &l->norm2;
    case ROLE_Q_NORM:
        return &l->q_norm;
    case ROLE_K_NORM:
        return &l->k_norm;
    case ROLE_EMBEDDING_NORM:
        return &m->embedding_norm;
    default:
        return &m->final;
    }
}

/* Where a tensor lies that is kept as floats: norms, biases, the score head. */
static float *floats_at(struct model *m, const struct arch_tensor *t)
{
    if (t->role == ROLE_SCORE)
        return t->bias ? m->score.bias : m->score.weight;
    if (matrix_of(m, t))
        return matrix_of(m, t)->bias;
    return t->bias ? norm_of(m, t)->bias : norm_of(m, t)->weight;
}

static int put_floats(struct model *m, const struct source *s, const struct arch_tensor *t)
{
    int64_t n = t->shape[0] * (t->n_dims == 2 ? t->shape[1] : 1);
    float *host = malloc((size_t)n * sizeof *host);
    CHECK(host, "out of memory");
    int rc = s->floats(s, host, t, 0, n);
    if (!rc)
        m->be->ops->copy_in(m->be, floats_at(m, t), host, (size_t)n * sizeof *host);
    free(host);
    return rc;
}

/* [rows][cols] elements of 2 or 4 bytes -> [cols][rows] */
static void transpose(void *out, const void *in, int64_t rows, int64_t cols, size_t bytes)
{
    CHECK(bytes == 2 || bytes == 4, "elements of %zu bytes", bytes);
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < rows; r++)
            if (bytes == 2)
                ((uint16_t *)out)[c * rows + r] = ((const uint16_t *)in)[r * cols + c];
            else
                ((uint32_t *)out)[c * rows + r] = ((const uint32_t *)in)[r * cols + c];
}

/* Rows [first, first + n) of a weight [out][in] that lies as [in][out]: a strip of columns, transposed. */
static int read_transposed(const struct source *s, void *rows, const struct arch_tensor *t, enum dtype dtype, int first, int n)
{
    const int64_t in = t->shape[0], out = t->shape[1];
    const size_t bytes = dtype_bytes(dtype);
    char *strip = malloc((size_t)(in * n) * bytes);
    CHECK(strip, "out of memory");
    int rc = 0;
    for (int64_t i = 0; !rc && i < in; i++)
        rc = s->rows(s, strip + (size_t)(i * n) * bytes, t, i * out + first, n);
    if (!rc)
        transpose(rows, strip, in, n, bytes);
    free(strip);
    return rc;
}

/* Position rows as floats; those of token type 0 added, which every position has. */
static int read_positions(const struct source *s, float *rows, const struct arch_tensor *t, int first, int n)
{
    const int64_t H = t->shape[1];
    struct arch_tensor types;
    TRY(s->floats(s, rows, t, first * H, n * H));
    if (!arch_find_tensor(&types, s->arch, ROLE_TOKEN_TYPES, 0, 0, false))
        return 0;
    float *type = malloc((size_t)H * sizeof *type);
    CHECK(type, "out of memory");
    int rc = s->floats(s, type, &types, 0, H);
    for (int64_t i = 0; !rc && i < n * H; i++)
        rows[i] += type[i % H];
    free(type);
    return rc;
}

/* Rows [first, first + n) of a matrix [out][in], in `dtype`. */
static int read_rows(const struct source *s, void *rows, const struct arch_tensor *t, const struct linear *l, enum dtype dtype,
                     int first, int n)
{
    if (t->role == ROLE_POSITIONS)
        return read_positions(s, rows, t, first, n);
    if (t->transposed)
        return read_transposed(s, rows, t, dtype, first, n);
    const int64_t at = (int64_t)first * l->in, all = (int64_t)n * l->in;
    return l->master ? s->floats(s, rows, t, at, all) : s->rows(s, rows, t, at, all);
}

static int put_matrix(struct model *m, const struct source *s, const struct arch_tensor *t)
{
    struct linear *l = matrix_of(m, t);
    const enum dtype dtype = l->master || t->role == ROLE_POSITIONS ? DTYPE_F32 : s->dtype(s, t);
    const size_t row_bytes = (size_t)l->in * dtype_bytes(dtype);
    const int most = chunk_bytes > row_bytes ? (int)(chunk_bytes / row_bytes) : 1;
    void *rows = malloc((size_t)(most < l->out ? most : l->out) * row_bytes);
    CHECK(rows, "out of memory");
    int rc = 0;
    for (int first = 0; !rc && first < l->out; first += most) {
        const int n = l->out - first < most ? l->out - first : most;
        rc = read_rows(s, rows, t, l, dtype, first, n);
        if (!rc && l->master)
            m->be->ops->copy_in(m->be, l->master + (int64_t)first * l->in, rows, (size_t)n * row_bytes);
        else if (!rc)
            m->be->ops->linear_put_rows(m->be, l, rows, dtype, first, n);
        progress_tick(m->progress);
    }
    free(rows);
    return rc;
}

static int put_tensor(struct model *m, const struct source *s, const struct arch_tensor *t)
{
    if (t->role == ROLE_TOKEN_TYPES) /* read with the positions */
        return 0;
    if (t->role == ROLE_SCORE)
        CHECK(m->score.n == m->arch->n_labels, "a score head of %d for %d labels", m->score.n, m->arch->n_labels);
    return t->n_dims == 2 && matrix_of(m, t) ? put_matrix(m, s, t) : put_floats(m, s, t);
}

static int put_all(struct model *m, const struct source *s)
{
    for (int i = 0; i < arch_tensors(m->arch); i++) {
        struct arch_tensor t;
        arch_tensor(&t, m->arch, i);
        TRY(put_tensor(m, s, &t));
        s->release(s, &t);
    }
    if (m->train_all)
        model_refresh(m);
    return 0;
}

/* ---- random values ---- */

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

/* ---- values of a folder ---- */

/* Floats of a tensor that the files lack. */
static int missing(const struct source *s, float *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    if (t->role == ROLE_POOLER) /* new, as weights_read told */
        return floats_random(s, out, t, first, n);
    return error_set(ERR_FILE, "%s: tensor %s is missing", s->folder->path, t->name);
}

static int floats_of_file(const struct source *s, float *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    return e ? safetensors_floats(out, e, first, n) : missing(s, out, t, first, n);
}

static int rows_of_file(const struct source *s, void *out, const struct arch_tensor *t, int64_t first, int64_t n)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    return e ? safetensors_raw(out, e, first, n) : missing(s, out, t, first, n);
}

static void release_in_file(const struct source *s, const struct arch_tensor *t)
{
    const struct safetensors_entry *e = hf_folder_tensor(s->folder, t);
    if (e)
        safetensors_release(e);
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
    struct arch_tensor pooler;
    if (arch_find_tensor(&pooler, m->arch, ROLE_POOLER, 0, 0, false) && !hf_folder_tensor(folder, &pooler))
        log_warn("%s: has no %s: it is initialised at random, and frozen", folder->path, pooler.name);
    return put_all(m, &s);
}

void weights_random(struct model *m, uint64_t seed)
{
    struct source s = {.dtype = dtype_random, .rows = rows_random, .floats = floats_random, .release = release_nothing,
                       .arch = m->arch, .seed = seed};
    CHECK(put_all(m, &s) == 0, "random weights cannot fail");
}
