/* A visitor over all tensors of a model: the same list serves reading, random values and writing (pretrain). */
#include "weights.h"

#include "error.h"
#include "safetensors.h"

#include <math.h>
#include <stdlib.h>

enum { CHUNK_ROWS = 64 };

/* Where values come from: floats [first, first + n) of a tensor of this name. */
struct source {
    int (*floats)(struct source *s, float *out, const char *name, int64_t first, int64_t n);
    const struct safetensors *file;
    const struct arch *arch;
    uint64_t seed;
    int layer, which;
};

static int put_vector(struct model *m, struct source *s, float *device, int64_t n, const char *name)
{
    float *host = malloc((size_t)n * sizeof *host);
    CHECK(host, "out of memory");
    int rc = s->floats(s, host, name, 0, n);
    if (!rc)
        m->be->ops->copy_in(m->be, device, host, (size_t)n * sizeof *host);
    free(host);
    return rc;
}

static int put_matrix(struct model *m, struct source *s, struct linear *l, const char *name)
{
    float *rows = malloc((size_t)CHUNK_ROWS * (size_t)l->in * sizeof *rows);
    CHECK(rows, "out of memory");
    int rc = 0;
    for (int first = 0; !rc && first < l->out; first += CHUNK_ROWS) {
        int n = l->out - first < CHUNK_ROWS ? l->out - first : CHUNK_ROWS;
        rc = s->floats(s, rows, name, (int64_t)first * l->in, (int64_t)n * l->in);
        if (!rc && l->master)
            m->be->ops->copy_in(m->be, l->master + (int64_t)first * l->in, rows, (size_t)n * (size_t)l->in * sizeof *rows);
        else if (!rc)
            m->be->ops->linear_put_rows(m->be, l, rows, first, n);
    }
    free(rows);
    return rc;
}

static int put_linear(struct model *m, struct source *s, int layer, int which, struct linear *l)
{
    char name[192];
    s->layer = layer;
    s->which = which;
    arch_tensor_name(name, sizeof name, m->arch, layer, which, false);
    TRY(put_matrix(m, s, l, name));
    if (!l->bias)
        return 0;
    arch_tensor_name(name, sizeof name, m->arch, layer, which, true);
    s->which = ARCH_BIAS;
    return put_vector(m, s, l->bias, l->out, name);
}

static int put_norm(struct model *m, struct source *s, int layer, int which, struct norm *n)
{
    char name[192];
    s->layer = layer;
    s->which = which;
    arch_tensor_name(name, sizeof name, m->arch, layer, which, false);
    TRY(put_vector(m, s, n->weight, m->arch->hidden, name));
    if (!n->bias)
        return 0;
    arch_tensor_name(name, sizeof name, m->arch, layer, which, true);
    s->which = ARCH_BIAS;
    return put_vector(m, s, n->bias, m->arch->hidden, name);
}

static int put_all(struct model *m, struct source *s)
{
    TRY(put_linear(m, s, -1, ARCH_EMBEDDING, &m->embedding));
    for (int i = 0; i < m->arch->layers; i++) {
        struct layer *l = &m->layer[i];
        TRY(put_norm(m, s, i, ARCH_NORM1, &l->norm1));
        TRY(put_norm(m, s, i, ARCH_NORM2, &l->norm2));
        for (int j = 0; j < ARCH_LINEARS; j++)
            if (l->linear[j].out)
                TRY(put_linear(m, s, i, j, &l->linear[j]));
    }
    TRY(put_norm(m, s, -1, ARCH_FINAL_NORM, &m->final));
    if (!m->arch->tied_head)
        TRY(put_linear(m, s, -1, ARCH_HEAD, &m->head));
    if (m->train_all)
        model_refresh(m);
    return 0;
}

static int floats_of_file(struct source *s, float *out, const char *name, int64_t first, int64_t n)
{
    const struct safetensors_entry *e = arch_find_tensor(s->arch, s->file, name);
    if (!e)
        return error_set(ERR_FILE, "%s: tensor %s is missing", s->file->file[0].path, name);
    return safetensors_floats(out, e, first, n);
}

int weights_read(struct model *m, const char *folder)
{
    struct safetensors file;
    TRY(safetensors_open(&file, folder));
    struct source s = {.floats = floats_of_file, .file = &file, .arch = m->arch};
    int rc = put_all(m, &s);
    safetensors_close(&file);
    return rc;
}

/* Nearly normal: the sum of four uniforms, of unit variance. */
static float near_normal(struct rng_key key, int64_t element)
{
    uint32_t w[4];
    rng_draw(w, key, 0, (uint32_t)element, (uint32_t)(element >> 32), 0);
    float sum = (rng_uniform(w[0]) + rng_uniform(w[1])) + (rng_uniform(w[2]) + rng_uniform(w[3]));
    return (sum - 2.0f) * 1.7320508f;
}

static int floats_random(struct source *s, float *out, const char *name, int64_t first, int64_t n)
{
    (void)name;
    if (s->which == ARCH_BIAS || s->which == ARCH_NORM1 || s->which == ARCH_NORM2 || s->which == ARCH_FINAL_NORM) {
        for (int64_t i = 0; i < n; i++)
            out[i] = s->which == ARCH_BIAS ? 0.0f : 1.0f;
        return 0;
    }
    struct rng_key key = rng_key(s->seed, RNG_INIT_WEIGHT, (uint32_t)(s->layer + 1), (uint32_t)s->which);
    bool residual = s->which == LIN_ATTN_OUT || s->which == LIN_MLP_DOWN;
    float deviation = residual ? 0.02f / sqrtf(2.0f * (float)s->arch->layers) : 0.02f;
    for (int64_t i = 0; i < n; i++)
        out[i] = deviation * near_normal(key, first + i);
    return 0;
}

void weights_random(struct model *m, uint64_t seed)
{
    struct source s = {.floats = floats_random, .arch = m->arch, .seed = seed};
    CHECK(put_all(m, &s) == 0, "random weights cannot fail");
}
