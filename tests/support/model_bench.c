#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/model_bench.h"

#include "error.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bench_done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

const char *bench_file(const struct bench *b, const char *file)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", b->path, file);
    return path;
}

bool bench_rounded(const struct bench *b)
{
    return b->be.ops->act == DTYPE_BF16;
}

void bench_backend(struct backend *be, int threads)
{
    const char *device = getenv("RLHF_TEST_DEVICE");
    struct backend_choice choice = {.device = device ? device : "cpu", .threads = threads ? threads : 2};
    bench_done(backend_open(be, &choice));
}

void bench_locate(struct bench *b, const char *name)
{
    const char *srcdir = getenv("srcdir");
    memset(b, 0, sizeof *b);
    b->rounded_outputs = 2e-2;
    b->rounded_gradients = 5e-2;
    if (*name == '/')
        snprintf(b->path, sizeof b->path, "%s", name);
    else
        snprintf(b->path, sizeof b->path, "%s/tests/reference/%s", srcdir ? srcdir : ".", name);
}

void bench_describe(struct bench *b, const char *name, const struct bench_options *o)
{
    bench_locate(b, name);
    bench_done(hf_folder_open(&b->folder, b->path, o->use));
    bench_backend(&b->be, o->threads);
    const enum dtype file = (enum dtype)hf_folder_find(&b->folder, ROLE_EMBEDDING, 0, 0, false)->dtype, type = o->train_all ? DTYPE_F32 : file;
    const struct model_options options = {.dtype = type, .file_dtype = type, .train_all = o->train_all};
    model_init(&b->model, &b->folder.arch, &b->be, &options);
}

static void layout(struct bench *b, const struct bench_options *o)
{
    const struct arch *a = &b->folder.arch;
    const int decoded = decode_rows(&b->be, SEQUENCES);
    const struct model_shape shape = {.batch_tokens = TOKENS,
                                      .batch_seqs = decoded,
                                      .head_rows = TOKENS,
                                      .slots = a->bidirectional ? 0 : SEQUENCES,
                                      .cache_tokens = a->bidirectional ? 0 : LONGEST,
                                      .kept_layers = o->kept_layers ? o->kept_layers : a->layers};
    model_layout(&b->model, &b->arena, &shape);
    micro_batch_layout(&b->mb, &b->model, &b->arena);
}

void bench_load(struct bench *b, const struct bench_options *o)
{
    layout(b, o);
    bench_done(arena_place(&b->arena, &b->be, NULL));
    layout(b, o);
    arena_freeze(&b->arena);
    model_fill_tables(&b->model);
    bench_done(weights_read(&b->model, &b->folder));
}

void bench_close(struct bench *b)
{
    model_free(&b->model);
    b->be.ops->close(&b->be);
    peft_close(&b->adapter);
    hf_folder_close(&b->folder);
}

float *bench_acts(struct bench *b, const act_t *x, int64_t n)
{
    const enum dtype type = b->be.ops->act;
    void *raw = malloc((size_t)n * dtype_bytes(type));
    float *floats = malloc((size_t)n * sizeof *floats);
    assert_non_null(raw);
    assert_non_null(floats);
    b->be.ops->copy_out(&b->be, raw, x, (size_t)n * dtype_bytes(type));
    floats_from(floats, raw, type, n);
    free(raw);
    return floats;
}

json_t *bench_json(const struct bench *b, const char *file)
{
    json_t *root = document_read(bench_file(b, file));
    assert_non_null(root);
    return root;
}

double bench_number(const json_t *root, const char *key)
{
    return json_number_value(json_object_get(root, key));
}

int bench_ids(const json_t *root, int32_t ids[SEQUENCES][LONGEST], int n[SEQUENCES])
{
    const json_t *list = json_object_get(root, "ids");
    int sequences = (int)json_array_size(list);
    for (int s = 0; s < sequences; s++) {
        n[s] = (int)json_array_size(json_array_get(list, (size_t)s));
        for (int t = 0; t < n[s]; t++)
            ids[s][t] = (int32_t)json_integer_value(json_array_get(json_array_get(list, (size_t)s), (size_t)t));
    }
    return sequences;
}

float *bench_floats(const struct safetensors *s, const char *name, int64_t n)
{
    const struct safetensors_entry *e = safetensors_find(s, name);
    if (!e)
        fail_msg("no tensor %s", name);
    assert_int_equal(e->n, n);
    float *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    bench_done(safetensors_floats(values, e, 0, n));
    return values;
}

void bench_bounds(struct bench *b, const json_t *root)
{
    const json_t *error = json_object_get(root, "bfloat16_error"); /* of torch's own: ours may be somewhat larger */
    b->rounded_outputs = fmax(b->rounded_outputs, 1.5 * json_number_value(json_array_get(error, 0)));
    b->rounded_gradients = fmax(b->rounded_gradients, 1.5 * json_number_value(json_array_get(error, 1)));
}

/* The error's norm in units of the values'. */
static double distance(const float *got, const float *want, int64_t n)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return sqrt(difference / norm);
}

void bench_expect(const struct bench *b, const char *what, const float *got, const float *want, int64_t n)
{
    if (bench_rounded(b) && !(distance(got, want, n) <= b->rounded_outputs))
        fail_msg("%s: differs by %.3g of its norm", what, distance(got, want, n));
    for (int64_t i = 0; i < n && !bench_rounded(b); i++)
        if (!(fabs((double)got[i] - want[i]) <= 1e-4 + 1e-5 * fabs((double)want[i])))
            fail_msg("%s[%lld]: %.7g, reference %.7g", what, (long long)i, (double)got[i], (double)want[i]);
}

void bench_expect_gradient(struct bench *b, const char *name, int64_t offset, const float *want, int64_t n)
{
    int64_t *sum = malloc((size_t)n * sizeof *sum);
    float *got = malloc((size_t)n * sizeof *got);
    assert_non_null(sum);
    assert_non_null(got);
    b->be.ops->copy_out(&b->be, sum, b->model.trainable.grads.sum + offset, (size_t)n * sizeof *sum);
    for (int64_t i = 0; i < n; i++)
        got[i] = (float)((double)sum[i] * 0x1p-48);
    if (!(distance(got, want, n) <= (bench_rounded(b) ? b->rounded_gradients : 1e-4)))
        fail_msg("%s: gradient differs by %.3g of its norm", name, distance(got, want, n));
    free(sum);
    free(got);
}
