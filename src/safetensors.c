/* safetensors: nothing of the file is used before it is checked. Source: the format as its reference implementation reads
 * it (github.com/huggingface/safetensors, safetensors/src/tensor.rs). */
#include "safetensors.h"

#include "document.h"
#include "error.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    HEADER_MAX = 100000000, /* bytes; the reference implementation's limit */
    NAME_MAX_BYTES = 512,
    TENSORS_MAX = 1 << 20,
    SHARDS_MAX = 4096,
    METADATA_MAX = 1 << 16,
};

struct type_row {
    const char *name;
    int bytes;
    int dtype; /* -1: known to the format, not to us */
};
static const struct type_row *type_find(const char *name);

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    CHECK(p, "out of memory for %zu entries", n);
    return p;
}

/* Names go into messages of one line: printable, bounded. */
static bool name_is_sound(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_BYTES)
        return false;
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

/* One tensor of the header into e. data, n_data: the bytes after the header. */
static int read_entry(struct safetensors_entry *e, const char *path, const char *name,
                      const json_t *value, const unsigned char *data, uint64_t n_data)
{
    if (!name_is_sound(name))
        return error_set(ERR_FILE,
                         "%s: a tensor's name is empty, longer than %d bytes or not printable",
                         path, NAME_MAX_BYTES);
    const json_t *dtype = json_object_get(value, "dtype");
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets))
        return error_set(ERR_FILE, "%s: tensor %s: needs dtype, shape and data_offsets", path,
                         name);
    const struct type_row *type = type_find(json_string_value(dtype));
    if (!type)
        return error_set(ERR_FILE, "%s: tensor %s: dtype is none of the format's", path, name);
    const size_t n_dims = json_array_size(shape);
    if (n_dims > SAFETENSORS_DIMS_MAX)
        return error_set(ERR_FILE, "%s: tensor %s: %zu dimensions, at most %d are read", path, name,
                         n_dims, SAFETENSORS_DIMS_MAX);
    int64_t n = 1;
    for (size_t i = 0; i < n_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return error_set(ERR_FILE, "%s: tensor %s: shape holds something that is not a size",
                             path, name);
        e->shape[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(n, e->shape[i], &n))
            return error_set(ERR_FILE, "%s: tensor %s: the product of its shape overflows", path,
                             name);
    }
    int64_t n_bytes;
    if (__builtin_mul_overflow(n, (int64_t)type->bytes, &n_bytes))
        return error_set(ERR_FILE, "%s: tensor %s: the product of its shape overflows", path, name);
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return error_set(ERR_FILE, "%s: tensor %s: data_offsets is not [begin, end]", path, name);
    const int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin)
        return error_set(ERR_FILE, "%s: tensor %s: data_offsets run backwards", path, name);
    if ((uint64_t)end > n_data)
        return error_set(ERR_FILE,
                         "%s: tensor %s: ends at byte %lld of %llu: the file is cut short", path,
                         name, (long long)end, (unsigned long long)n_data);
    if (end - begin != n_bytes)
        return error_set(ERR_FILE, "%s: tensor %s: %lld bytes, but its shape and dtype need %lld",
                         path, name, (long long)(end - begin), (long long)n_bytes);
    e->name = text_copy(name);
    snprintf(e->type, sizeof e->type, "%s", type->name);
    e->dtype = type->dtype;
    e->n_dims = (int)n_dims;
    e->n = n;
    e->bytes = data + begin;
    e->n_bytes = (size_t)n_bytes;
    e->file = path;
    return 0;
}

static int by_position(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The tensors of a file, sorted by position, follow each other from the first data byte to the last. */
static int check_layout(const char *path, const struct safetensors_entry *e, int n,
                        const unsigned char *data, uint64_t n_data)
{
    const unsigned char *at = data;
    for (int i = 0; i < n; i++) {
        if (e[i].bytes < at)
            return error_set(ERR_FILE, "%s: tensors %s and %s overlap", path, e[i - 1].name,
                             e[i].name);
        if (e[i].bytes > at)
            return error_set(ERR_FILE, "%s: %lld unused bytes before tensor %s", path,
                             (long long)(e[i].bytes - at), e[i].name);
        at += e[i].n_bytes;
    }
    if ((uint64_t)(at - data) != n_data)
        return error_set(ERR_FILE, "%s: %llu bytes after the last tensor", path,
                         (unsigned long long)(n_data - (uint64_t)(at - data)));
    return 0;
}

static int check_metadata(const char *path, json_t *metadata)
{
    if (!json_is_object(metadata) || json_object_size(metadata) > METADATA_MAX)
        return error_set(ERR_FILE, "%s: __metadata__ is not an object of strings", path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return error_set(ERR_FILE, "%s: __metadata__ is not an object of strings", path);
    }
    return 0;
}

/* Appends the tensors of a parsed header to s. */
static int add_tensors(struct safetensors *s, const char *path, json_t *header,
                       const unsigned char *data, uint64_t n_data)
{
    const size_t n_keys = json_object_size(header);
    if (n_keys + (size_t)s->n > TENSORS_MAX)
        return error_set(ERR_FILE, "%s: more than %d tensors", path, TENSORS_MAX);
    s->entry = realloc(s->entry, ((size_t)s->n + n_keys + 1) * sizeof *s->entry);
    CHECK(s->entry, "out of memory for %zu tensors", n_keys);
    const int first = s->n;
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value)
    {
        if (!strcmp(name, "__metadata__")) {
            TRY(check_metadata(path, value));
            continue;
        }
        s->entry[s->n] = (struct safetensors_entry){0};
        TRY(read_entry(&s->entry[s->n], path, name, value, data, n_data));
        s->n++;
    }
    qsort(s->entry + first, (size_t)(s->n - first), sizeof *s->entry, by_position);
    return check_layout(path, s->entry + first, s->n - first, data, n_data);
}

/* Maps one file and appends its tensors. s->file has room. */
static int add_file(struct safetensors *s, const char *path)
{
    struct safetensors_file *f = &s->file[s->n_files];
    TRY(file_map(&f->map, path));
    f->path = text_copy(path);
    s->n_files++;
    if (f->map.n < 8)
        return error_set(ERR_FILE, "%s: %zu bytes are too few for a safetensors file", path,
                         f->map.n);
    uint64_t n_header = 0;
    for (int i = 7; i >= 0; i--)
        n_header = n_header << 8 | f->map.bytes[i];
    if (n_header > HEADER_MAX)
        return error_set(ERR_FILE,
                         "%s: header of %llu bytes, at most %d are read: not a safetensors file",
                         path, (unsigned long long)n_header, HEADER_MAX);
    if (n_header > f->map.n - 8)
        return error_set(ERR_FILE,
                         "%s: header of %llu bytes in a file of %zu: the file is cut short", path,
                         (unsigned long long)n_header, f->map.n);
    if (n_header < 2 || f->map.bytes[8] != '{')
        return error_set(ERR_FILE, "%s: the header does not begin with {: not a safetensors file",
                         path);
    json_t *header = document_parse(f->path, f->map.bytes + 8, n_header);
    if (!header)
        return error_context("header");
    int rc = add_tensors(s, f->path, header, f->map.bytes + 8 + n_header, f->map.n - 8 - n_header);
    json_decref(header);
    return rc;
}

static int sort_entries(struct safetensors *s, const char *path)
{
    if (s->n)
        qsort(s->entry, (size_t)s->n, sizeof *s->entry, by_name);
    for (int i = 1; i < s->n; i++)
        if (!strcmp(s->entry[i - 1].name, s->entry[i].name))
            return error_set(ERR_FILE, "%s: tensor %s is in two shards", path, s->entry[i].name);
    return 0;
}

static int open_one(struct safetensors *s, const char *path)
{
    s->file = allocate(1, sizeof *s->file);
    TRY(add_file(s, path));
    return sort_entries(s, path);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The distinct files of a weight map: [n], sorted, borrowed from it. */
static int shard_names(const char ***names, int *n, const char *path, json_t *map)
{
    *n = 0;
    *names = allocate(json_object_size(map), sizeof **names);
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || !name_is_sound(name) || strchr(name, '/') || !strcmp(name, "..") ||
            !strcmp(name, "."))
            return error_set(
                ERR_FILE, "%s: weight_map names something that is not a file of this folder", path);
        (*names)[(*n)++] = name;
    }
    qsort(*names, (size_t)*n, sizeof **names, compare_strings);
    int kept = 0;
    for (int i = 0; i < *n; i++)
        if (!kept || strcmp((*names)[kept - 1], (*names)[i]))
            (*names)[kept++] = (*names)[i];
    *n = kept;
    if (kept == 0)
        return error_set(ERR_FILE, "%s: weight_map is empty", path);
    return kept <= SHARDS_MAX ? 0
                              : error_set(ERR_FILE, "%s: more than %d shards", path, SHARDS_MAX);
}

/* Every tensor of the weight map is in the shard it is said to be in. */
static int check_map(const struct safetensors *s, const char *path, json_t *map)
{
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file)
    {
        const struct safetensors_entry *e = safetensors_find(s, tensor);
        const char *name = json_string_value(file);
        const char *base = e ? strrchr(e->file, '/') : NULL;
        if (!e || strcmp(base ? base + 1 : e->file, name))
            return error_set(ERR_FILE, "%s: a tensor of weight_map (%.*s) is not in %s", path,
                             NAME_MAX_BYTES, name_is_sound(tensor) ? tensor : "not printable",
                             name);
    }
    return 0;
}

static int open_shards(struct safetensors *s, const char *path)
{
    json_t *index = document_read(path);
    if (!index)
        return -1;
    const char **names = NULL;
    int n = 0, rc = 0;
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map))
        rc = error_set(ERR_FILE, "%s: has no weight_map", path);
    if (!rc)
        rc = shard_names(&names, &n, path, map);
    if (!rc)
        s->file = allocate((size_t)n, sizeof *s->file);
    const char *slash = strrchr(path, '/');
    for (int i = 0; !rc && i < n; i++) {
        struct text shard = {0};
        text_add(&shard, path, slash ? (size_t)(slash - path + 1) : 0);
        text_add_string(&shard, names[i]);
        rc = add_file(s, text_string(&shard));
        text_free(&shard);
    }
    if (!rc)
        rc = sort_entries(s, path);
    if (!rc)
        rc = check_map(s, path, map);
    free(names);
    json_decref(index);
    return rc;
}

static int open_folder(struct safetensors *s, const char *folder)
{
    char *single = file_join(folder, "model.safetensors");
    char *index = file_join(folder, "model.safetensors.index.json");
    char *pickled = file_join(folder, "pytorch_model.bin");
    char *pickled_index = file_join(folder, "pytorch_model.bin.index.json");
    int rc;
    if (file_exists(single))
        rc = open_one(s, single);
    else if (file_exists(index))
        rc = open_shards(s, index);
    else if (file_exists(pickled) || file_exists(pickled_index))
        rc = error_set(
            ERR_FILE,
            "%s: only has PyTorch's pickled weights (pytorch_model.bin), which can hold code; "
            "convert them with transformers: save_pretrained(folder, safe_serialization=True)",
            folder);
    else
        rc = error_set(
            ERR_FILE, "%s: has neither model.safetensors nor model.safetensors.index.json", folder);
    free(single);
    free(index);
    free(pickled);
    free(pickled_index);
    return rc;
}

int safetensors_open(struct safetensors *s, const char *folder_or_file)
{
    static const char INDEX[] = ".index.json";
    const size_t n = strlen(folder_or_file), k = sizeof INDEX - 1;
    *s = (struct safetensors){0};
    int rc;
    if (file_is_folder(folder_or_file))
        rc = open_folder(s, folder_or_file);
    else if (n > k && !strcmp(folder_or_file + n - k, INDEX))
        rc = open_shards(s, folder_or_file);
    else
        rc = open_one(s, folder_or_file);
    if (rc)
        safetensors_close(s);
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->entry[i].name);
    for (int i = 0; i < s->n_files; i++) {
        file_unmap(&s->file[i].map);
        free(s->file[i].path);
    }
    free(s->entry);
    free(s->file);
    *s = (struct safetensors){0};
}

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name)
{
    if (!s->n)
        return NULL;
    const struct safetensors_entry key = {.name = (char *)name};
    return bsearch(&key, s->entry, (size_t)s->n, sizeof *s->entry, by_name);
}

bool safetensors_is_float(const struct safetensors_entry *e)
{
    return e->dtype == DTYPE_F32 || e->dtype == DTYPE_F16 || e->dtype == DTYPE_BF16;
}

static void convert(float *out, const struct safetensors_entry *e, int64_t first, int64_t n)
{
    const size_t size = dtype_bytes((enum dtype)e->dtype);
    const unsigned char *in = e->bytes + (size_t)first * size;
    if ((uintptr_t)in % size == 0) {
        floats_from(out, in, (enum dtype)e->dtype, n);
        return;
    }
    uint32_t aligned[1024]; /* the header's length decides the alignment of a foreign file's data */
    const int64_t chunk = (int64_t)(sizeof aligned / size);
    for (int64_t i = 0; i < n; i += chunk) {
        const int64_t k = n - i < chunk ? n - i : chunk;
        memcpy(aligned, in + (size_t)i * size, (size_t)k * size);
        floats_from(out + i, aligned, (enum dtype)e->dtype, k);
    }
}

static int check_range(const struct safetensors_entry *e, int64_t first, int64_t n)
{
    if (!safetensors_is_float(e))
        return error_set(ERR_FILE, "%s: tensor %s: dtype %s is not one of F32, F16, BF16", e->file,
                         e->name, e->type);
    CHECK(first >= 0 && n >= 0 && first <= e->n && n <= e->n - first,
          "%s: elements %lld + %lld of %lld", e->name, (long long)first, (long long)n,
          (long long)e->n);
    return 0;
}

static int not_finite(const struct safetensors_entry *e, int64_t element)
{
    return error_set(ERR_FILE, "%s: tensor %s: element %lld is not a finite number", e->file, e->name, (long long)element);
}

int safetensors_floats(float *out, const struct safetensors_entry *e, int64_t first, int64_t n)
{
    TRY(check_range(e, first, n));
    convert(out, e, first, n);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return not_finite(e, first + i);
    return 0;
}

/* Index of the first element whose exponent is all ones; n: none. */
static int64_t first_not_finite16(const uint16_t *x, int64_t n, uint16_t exponent)
{
    int64_t i = 0;
    for (; n - i >= 64; i += 64) { /* blocks without a branch inside, for vectors */
        int bad = 0;
        for (int j = 0; j < 64; j++)
            bad |= (x[i + j] & exponent) == exponent;
        if (bad)
            break;
    }
    while (i < n && (x[i] & exponent) != exponent)
        i++;
    return i;
}

static int64_t first_not_finite32(const float *x, int64_t n)
{
    int64_t i = 0;
    while (i < n && isfinite(x[i]))
        i++;
    return i;
}

int safetensors_raw(void *out, const struct safetensors_entry *e, int64_t first, int64_t n)
{
    TRY(check_range(e, first, n));
    const enum dtype type = (enum dtype)e->dtype;
    const size_t size = dtype_bytes(type);
    memcpy(out, e->bytes + (size_t)first * size, (size_t)n * size);
    int64_t bad = type == DTYPE_F32 ? first_not_finite32(out, n) : first_not_finite16(out, n, type == DTYPE_F16 ? 0x7c00 : 0x7f80);
    return bad < n ? not_finite(e, first + bad) : 0;
}

void safetensors_release(const struct safetensors_entry *e)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)e->bytes + page - 1) / page * page,
                    end = ((uintptr_t)e->bytes + e->n_bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED); /* of a file: what is asked for again is read again */
}

char *safetensors_shape(char *out, size_t room, const int64_t *shape, int n_dims)
{
    struct text t = {0};
    for (int i = 0; i < n_dims; i++)
        text_format(&t, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(out, room, "[%s]", text_string(&t));
    text_free(&t);
    return out;
}

/* ---- writer ---- */

static int write_failed(const struct safetensors_writer *w)
{
    return error_set(ERR_FILE, "%s: cannot write: %s", w->path, strerror(errno));
}

static int write_all(struct safetensors_writer *w, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n) {
        const size_t most = (size_t)1 << 30; /* Linux writes at most 2 GiB a call */
        const ssize_t k = write(w->fd, p, n < most ? n : most);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return write_failed(w);
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static const char *out_type(const struct safetensors_out *t)
{
    return t->type ? t->type : dtype_name(t->dtype);
}

uint64_t safetensors_out_bytes(const struct safetensors_out *t)
{
    uint64_t n = type_find(out_type(t))->bytes;
    CHECK(t->n_dims >= 0 && t->n_dims <= SAFETENSORS_DIMS_MAX, "%s: %d dimensions", t->name,
          t->n_dims);
    for (int i = 0; i < t->n_dims; i++)
        CHECK(t->shape[i] >= 0 && !__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n),
              "%s: shape", t->name);
    return n;
}

/* The header's text, padded so that the data is aligned to 8 bytes. Returns the number of data bytes. */
static uint64_t make_header(struct text *out, const struct safetensors_out *tensors, int n)
{
    json_t *header = json_object();
    json_object_set_new(header, "__metadata__", json_pack("{s:s}", "format", "pt"));
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        const struct safetensors_out *t = &tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->n_dims; k++)
            json_array_append_new(shape, json_integer(t->shape[k]));
        const uint64_t end = at + safetensors_out_bytes(t);
        CHECK(!json_object_get(header, t->name), "tensor %s is given twice", t->name);
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", out_type(t),
                                      "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)end));
        at = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    CHECK(text, "out of memory for a safetensors header");
    text_add_string(out, text);
    while (out->n % 8)
        text_add(out, " ", 1);
    free(text);
    json_decref(header);
    return at;
}

int safetensors_writer_begin(struct safetensors_writer *w, const char *path,
                             const struct safetensors_out *tensors, int n)
{
    struct text temporary = {0}, header = {0};
    text_format(&temporary, "%s.tmp-%ld", path, (long)getpid());
    *w = (struct safetensors_writer){.path = text_copy(path), .temporary = temporary.bytes};
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        error_set(ERR_FILE, "%s: cannot create: %s", path, strerror(errno));
        safetensors_writer_abandon(w);
        return -1;
    }
    w->n_bytes = make_header(&header, tensors, n);
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)header.n >> (8 * i));
    int rc = write_all(w, size, 8);
    if (!rc)
        rc = write_all(w, header.bytes, header.n);
    text_free(&header);
    if (rc)
        safetensors_writer_abandon(w);
    return rc;
}

int safetensors_writer_put(struct safetensors_writer *w, const void *bytes, size_t n)
{
    CHECK(n <= w->n_bytes - w->n_written, "%s: more bytes than its tensors have", w->path);
    w->n_written += n;
    return write_all(w, bytes, n);
}

int safetensors_writer_end(struct safetensors_writer *w)
{
    CHECK(w->n_written == w->n_bytes, "%s: %llu of %llu bytes were put", w->path,
          (unsigned long long)w->n_written, (unsigned long long)w->n_bytes);
    int rc = fsync(w->fd) == 0 ? 0 : write_failed(w);
    if (close(w->fd) != 0 && !rc)
        rc = write_failed(w);
    w->fd = -1;
    if (!rc && rename(w->temporary, w->path) != 0)
        rc = error_set(ERR_FILE, "%s: cannot rename: %s", w->path, strerror(errno));
    if (!rc) {
        free(w->temporary);
        w->temporary = NULL;
    }
    safetensors_writer_abandon(w);
    return rc;
}

void safetensors_writer_abandon(struct safetensors_writer *w)
{
    if (w->temporary) {
        if (w->fd >= 0)
            close(w->fd);
        unlink(w->temporary);
    }
    free(w->temporary);
    free(w->path);
    *w = (struct safetensors_writer){.fd = -1};
}

int safetensors_write(const char *path, const struct safetensors_out *tensors, int n)
{
    struct safetensors_writer w;
    TRY(safetensors_writer_begin(&w, path, tensors, n));
    for (int i = 0; i < n; i++)
        if (safetensors_writer_put(&w, tensors[i].data, safetensors_out_bytes(&tensors[i])) != 0) {
            safetensors_writer_abandon(&w);
            return -1;
        }
    return safetensors_writer_end(&w);
}

static const struct type_row types[] = {
    {"F32", 4, DTYPE_F32}, {"F16", 2, DTYPE_F16}, {"BF16", 2, DTYPE_BF16}, {"I8", 1, DTYPE_I8},
    {"I32", 4, DTYPE_I32}, {"I64", 8, DTYPE_I64}, {"F64", 8, -1},          {"I16", 2, -1},
    {"U8", 1, -1},         {"U16", 2, -1},        {"U32", 4, -1},          {"U64", 8, -1},
    {"BOOL", 1, -1},       {"F8_E4M3", 1, -1},    {"F8_E5M2", 1, -1},      {"F8_E8M0", 1, -1},
    {"C64", 8, -1},
};

static const struct type_row *type_find(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name))
            return &types[i];
    return NULL;
}
