/* A shard is written as a list of tensors: each is read a piece at a time, changed in float32, rounded, appended. Pieces are whole
 * rows of a matrix, since scales of int8 rows and products with adapters go by rows. A matrix that lies as [in][out] has the scales
 * along its columns: to be quantised it is taken whole, and turned over. */
#include "merge.h"

#include "error.h"
#include "labels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a piece: as many as this, but at least a row. */
static const int64_t piece_elements = (int64_t)1 << 21;

/* Is it stored as int8 in a quantised model? */
static bool is_quantised(const struct arch_tensor *t)
{
    return !t->bias && (t->role == ROLE_LINEAR || t->role == ROLE_PROJECT_IN || t->role == ROLE_PROJECT_OUT);
}

/* The trained score head of the adapter: for this model, with its pooler in one of the two. */
static int find_head(struct merge *m)
{
    const struct arch *a = &m->folder->arch;
    struct arch_tensor t;
    char name[ARCH_NAME_MAX + 8], shape[256];
    snprintf(name, sizeof name, "%s.weight", arch_score_module(a));
    m->score = peft_find_saved(m->adapter, name);
    if (!m->score)
        return 0;
    if (m->score->n_dims != 2 || m->score->shape[0] < 1 || m->score->shape[0] > LABELS_MAX || m->score->shape[1] != a->embedding_width)
        return error_set(ERR_FILE, "%s: tensor %s is %s, must be [1 to %d, %d]", m->score->file, m->score->name,
                         safetensors_shape(shape, sizeof shape, m->score->shape, m->score->n_dims), LABELS_MAX, a->embedding_width);
    if (!arch_find_tensor(&t, a, ROLE_POOLER, 0, 0, false) || hf_folder_tensor(m->folder, &t) || peft_find_saved(m->adapter, t.name))
        return 0;
    return error_set(ERR_FILE, "%s: tensor %s is missing, which the adapter's head reads, and the adapter has none either: it was "
                     "trained with a random one that nobody saved", m->folder->path, t.name);
}

int merge_open(struct merge *m, const struct hf_folder *folder, const struct peft_adapter *adapter, const struct merge_options *o)
{
    const struct safetensors *s = &folder->weights;
    const struct arch *a = &folder->arch;
    *m = (struct merge){.folder = folder, .adapter = adapter, .options = *o};
    TRY(find_head(m));
    if (o->dequantized)
        TRY(cpu_open(&m->quantiser, NULL, o->threads));
    m->tensor = calloc((size_t)s->n, sizeof *m->tensor);
    m->added = calloc((size_t)adapter->n_saved + 1, sizeof *m->added);
    CHECK(m->tensor && m->added, "out of memory for %d tensors", s->n);
    for (int i = 0; i < arch_tensors(a); i++) {
        struct arch_tensor t;
        arch_tensor(&t, a, i);
        const struct safetensors_entry *e = hf_folder_tensor(folder, &t);
        if (e) /* not a pooler that the source lacks */
            m->tensor[e - s->entry] =
                (struct merge_tensor){.known = true, .linear = is_quantised(&t), .transposed = t.transposed};
    }
    for (int i = 0; i < adapter->n; i++) {
        const struct peft_pair *p = &adapter->pair[i];
        m->tensor[hf_folder_find(folder, ROLE_LINEAR, p->layer, p->slot, false) - s->entry].pair = p;
    }
    for (int i = 0; i < adapter->n_saved; i++) {
        const struct safetensors_entry *e = hf_folder_named(folder, adapter->saved[i].name);
        if (e)
            m->tensor[e - s->entry].head = adapter->saved[i].entry;
        else
            m->added[m->n_added++] = &adapter->saved[i];
    }
    m->model_dtype = o->dtype >= 0 ? (enum dtype)o->dtype
                                   : (enum dtype)hf_folder_find(folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
    return 0;
}

void merge_close(struct merge *m)
{
    if (m->quantiser.ops)
        m->quantiser.ops->close(&m->quantiser);
    free(m->tensor);
    free(m->added);
    *m = (struct merge){0};
}

const char *merge_shard_name(const struct merge *m, int shard)
{
    const char *path = m->folder->weights.file[shard].path, *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- what is written ---- */

/* One tensor of a shard that is written. */
struct piece_source {
    const struct safetensors_entry *from;
    const struct merge_tensor *tensor;
    enum dtype dtype; /* written; of floating tensors */
};

static int by_place(const void *a, const void *b)
{
    const struct piece_source *x = a, *y = b;
    return (x->from->bytes > y->from->bytes) - (x->from->bytes < y->from->bytes);
}

static struct safetensors_out describe(const struct piece_source *p, const char *name)
{
    struct safetensors_out out = {.name = name, .dtype = p->dtype, .n_dims = p->from->n_dims};
    if (!safetensors_is_float(p->from))
        out.type = p->from->type;
    memcpy(out.shape, p->from->shape, sizeof out.shape);
    return out;
}

/* The tensors of a shard in the order of the source, and their descriptions to write; the caller frees both. Returns their
 * number. */
static int list_shard(const struct merge *m, int shard, struct piece_source **sources, struct safetensors_out **out)
{
    static const struct merge_tensor head = {.known = true};
    const struct safetensors *s = &m->folder->weights;
    const bool last = shard == s->n_files - 1;
    int n = 0;
    *sources = calloc((size_t)(s->n + m->n_added), sizeof **sources);
    *out = calloc((size_t)(s->n + m->n_added), sizeof **out);
    CHECK(*sources && *out, "out of memory for %d tensors", s->n);
    for (int i = 0; i < s->n; i++) {
        const struct safetensors_entry *e = &s->entry[i];
        const enum dtype own = safetensors_is_float(e) ? (enum dtype)e->dtype : DTYPE_I8;
        if (!strcmp(e->file, s->file[shard].path))
            (*sources)[n++] = (struct piece_source){
                e, &m->tensor[i], m->options.dtype >= 0 && m->tensor[i].known ? (enum dtype)m->options.dtype : own};
    }
    qsort(*sources, (size_t)n, sizeof **sources, by_place);
    for (int i = 0; i < n; i++) {
        struct piece_source *p = &(*sources)[i];
        const char *name = p->from->name;
        if (p->tensor->head)
            *p = (struct piece_source){p->tensor->head, &head, m->model_dtype};
        (*out)[i] = describe(p, name);
    }
    for (int i = 0; last && i < m->n_added; i++, n++) {
        (*sources)[n] = (struct piece_source){m->added[i]->entry, &head, m->model_dtype};
        (*out)[n] = describe(&(*sources)[n], m->added[i]->name);
    }
    return n;
}

uint64_t merge_shard_bytes(const struct merge *m, int shard)
{
    struct piece_source *sources;
    struct safetensors_out *out;
    const int n = list_shard(m, shard, &sources, &out);
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += safetensors_out_bytes(&out[i]);
    free(sources);
    free(out);
    return bytes;
}

/* ---- changing a tensor ---- */

/* The product B A of an adapter as it lies in the file: delta[i][j] = sum_k left[i][k] right[k][j]. */
struct factors {
    float *left, *right; /* [rows][r], [r][cols] */
    int r;
    float scale;
};

/* out [cols][rows] = in [rows][cols] turned over */
static void turn(float *out, const float *in, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            out[j * rows + i] = in[i * cols + j];
}

static int read_factor(float **out, const struct safetensors_entry *e, bool turned)
{
    float *x = malloc((size_t)e->n * sizeof *x);
    CHECK(x, "out of memory for %s", e->name);
    *out = x;
    TRY(safetensors_floats(x, e, 0, e->n));
    if (!turned)
        return 0;
    *out = malloc((size_t)e->n * sizeof *x);
    CHECK(*out, "out of memory for %s", e->name);
    turn(*out, x, e->shape[0], e->shape[1]);
    free(x);
    return 0;
}

static void factors_free(struct factors *f)
{
    free(f->left);
    free(f->right);
    *f = (struct factors){0};
}

static int factors_read(struct factors *f, const struct merge_tensor *t)
{
    *f = (struct factors){0};
    if (!t->pair)
        return 0;
    f->r = t->pair->size.r;
    f->scale = (float)t->pair->size.scale;
    TRY(read_factor(&f->left, t->transposed ? t->pair->a : t->pair->b, t->transposed));
    return read_factor(&f->right, t->transposed ? t->pair->b : t->pair->a, t->transposed);
}

/* x [n][cols], rows from `first` on, += scale (left right). sum [cols] of each thread. */
static void add_product(const struct merge *m, float *x, const struct factors *f, int64_t first, int64_t n, int64_t cols)
{
#pragma omp parallel num_threads(m->options.threads)
    {
        float *sum = malloc((size_t)cols * sizeof *sum);
        CHECK(sum, "out of memory");
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            const float *left = f->left + (first + i) * f->r;
            memset(sum, 0, (size_t)cols * sizeof *sum);
            for (int k = 0; k < f->r; k++)
                for (int64_t j = 0; j < cols; j++)
                    sum[j] += left[k] * f->right[k * cols + j];
            for (int64_t j = 0; j < cols; j++)
                x[i * cols + j] += f->scale * sum[j];
        }
        free(sum);
    }
}

/* x [out][in] quantised to int8 rows and expanded again, as a model of this program holds it. */
static void requantise(const struct merge *m, float *x, int64_t out, int64_t in)
{
    struct backend *be = (struct backend *)&m->quantiser;
    struct linear l = {.out = (int)out, .in = (int)in, .dtype = DTYPE_I8, .matmul = MATMUL_DEQUANT};
    const size_t bytes = be->ops->linear_weight_bytes(be, &l);
    l.weight = aligned_alloc(64, (bytes + 63) / 64 * 64);
    l.absmax = malloc((size_t)out * sizeof *l.absmax);
    CHECK(l.weight && l.absmax, "out of memory for %zu bytes of codes", bytes);
    be->ops->linear_put_rows(be, &l, x, DTYPE_F32, 0, l.out);
    be->ops->linear_get_rows(be, &l, x, 0, l.out);
    free(l.weight);
    free(l.absmax);
}

static void requantise_turned(const struct merge *m, float *x, int64_t in, int64_t out)
{
    float *turned = malloc((size_t)(in * out) * sizeof *turned);
    CHECK(turned, "out of memory for %lld elements", (long long)(in * out));
    turn(turned, x, in, out);
    requantise(m, turned, out, in);
    turn(x, turned, out, in);
    free(turned);
}

/* Rounds to the type that is written. Returns the first element that is not finite in it; n: none. */
static int64_t round_to(void *out, enum dtype type, const float *x, int64_t n)
{
    int64_t bad = n;
    uint16_t *half = out;
    for (int64_t i = 0; i < n; i++) {
        float back = x[i];
        if (type == DTYPE_F16)
            back = half_to_float(half[i] = half_from_float(x[i]));
        else if (type == DTYPE_BF16)
            back = bf16_to_float(half[i] = bf16_from_float(x[i]));
        if (!isfinite(back) && bad == n)
            bad = i;
    }
    if (type == DTYPE_F32)
        memcpy(out, x, (size_t)n * sizeof *x);
    return bad;
}

/* ---- writing ---- */

/* Is a known tensor written as it is read? */
static bool unchanged(const struct merge *m, const struct piece_source *p)
{
    return !p->tensor->pair && !(p->tensor->linear && m->options.dequantized) && p->dtype == (enum dtype)p->from->dtype;
}

static int64_t row_of(const struct safetensors_entry *e)
{
    return e->n_dims == 2 ? e->shape[1] : 1;
}

/* Elements of a piece. */
static int64_t piece_of(const struct merge *m, const struct piece_source *p)
{
    const int64_t row = row_of(p->from), n = row < piece_elements && row ? piece_elements / row * row : row;
    const bool whole = p->tensor->linear && p->tensor->transposed && m->options.dequantized;
    return whole || n > p->from->n ? p->from->n : n;
}

/* What the tensors of the architecture are not is passed on unread. */
static int put_bytes(struct safetensors_writer *w, const struct safetensors_entry *e)
{
    const size_t most = (size_t)piece_elements * sizeof(float);
    for (size_t at = 0; at < e->n_bytes; at += most) {
        TRY(safetensors_writer_put(w, e->bytes + at, e->n_bytes - at < most ? e->n_bytes - at : most));
        safetensors_release(e);
    }
    return 0;
}

/* Elements [first, first + n) into out, as they are written. x: room for them in floats. */
static int make_piece(const struct merge *m, void *out, float *x, const struct piece_source *p, const struct factors *f, int64_t first,
                      int64_t n)
{
    const struct safetensors_entry *e = p->from;
    const int64_t row = row_of(e);
    if (unchanged(m, p))
        return safetensors_raw(out, e, first, n);
    TRY(safetensors_floats(x, e, first, n));
    if (p->tensor->linear && m->options.dequantized && p->tensor->transposed)
        requantise_turned(m, x, n / row, row);
    else if (p->tensor->linear && m->options.dequantized)
        requantise(m, x, n / row, row);
    if (f->r)
        add_product(m, x, f, first / row, n / row, row);
    const int64_t bad = round_to(out, p->dtype, x, n);
    if (bad < n)
        return error_set(ERR_FILE, "%s: tensor %s: element %lld is not a finite number of type %s once merged%s", e->file, e->name,
                         (long long)(first + bad), dtype_name(p->dtype),
                         p->dtype == DTYPE_F16 ? "; merge.dtype = \"bfloat16\" reaches further" : "");
    return 0;
}

static int put_tensor(const struct merge *m, struct safetensors_writer *w, const struct piece_source *p)
{
    const struct safetensors_entry *e = p->from;
    if (!p->tensor->known)
        return put_bytes(w, e);
    const int64_t most = piece_of(m, p);
    const size_t size = dtype_bytes(p->dtype);
    struct factors f;
    float *x = malloc((size_t)most * sizeof *x + 1);
    void *out = malloc((size_t)most * size + 1);
    CHECK(x && out, "out of memory for %lld elements", (long long)most);
    int rc = factors_read(&f, p->tensor);
    for (int64_t first = 0; !rc && first < e->n; first += most) {
        const int64_t n = e->n - first < most ? e->n - first : most;
        rc = make_piece(m, out, x, p, &f, first, n);
        if (!rc)
            rc = safetensors_writer_put(w, out, (size_t)n * size);
        safetensors_release(e);
    }
    factors_free(&f);
    free(out);
    free(x);
    return rc;
}

int merge_write_shard(const struct merge *m, int shard, const char *folder)
{
    struct piece_source *sources;
    struct safetensors_out *out;
    struct safetensors_writer w;
    const int n = list_shard(m, shard, &sources, &out);
    char *path = file_join(folder, merge_shard_name(m, shard));
    int rc = safetensors_writer_begin(&w, path, out, n);
    for (int i = 0; !rc && i < n; i++)
        rc = put_tensor(m, &w, &sources[i]);
    if (rc)
        safetensors_writer_abandon(&w);
    else
        rc = safetensors_writer_end(&w);
    free(path);
    free(sources);
    free(out);
    return rc;
}

size_t merge_memory_bytes(const struct merge *m)
{
    size_t most = 0;
    for (int shard = 0; shard < m->folder->weights.n_files; shard++) {
        struct piece_source *sources;
        struct safetensors_out *out;
        const int n = list_shard(m, shard, &sources, &out);
        for (int i = 0; i < n; i++) {
            const struct merge_tensor *t = sources[i].tensor;
            const size_t piece = (size_t)piece_of(m, &sources[i]);
            size_t bytes = piece * (2 * sizeof(float) + dtype_bytes(sources[i].dtype)); /* mapped, floats, rounded */
            if (t->linear && m->options.dequantized)
                bytes += piece * (t->transposed ? 5 : 1);
            if (t->pair)
                bytes += (size_t)(t->pair->a->n + t->pair->b->n) * 2 * sizeof(float);
            most = bytes > most ? bytes : most;
        }
        free(sources);
        free(out);
    }
    return most;
}
