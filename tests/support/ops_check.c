#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/ops_check.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the workspace is for: wide rows, and many. Wider ones on the CPU are of fewer tokens. */
static const struct shape {
    int tokens, width;
} large[] = {{256, 24576}, {1104, 2048}}, small[] = {{256, 2048}, {1104, 512}};
enum { MAX_SEQ = 1104, MAX_HEAD_DIM = 128, VOCAB = 50304, SMALL_VOCAB = 1024 };

bool ops_on_cuda(void)
{
    const char *device = getenv("RLHF_TEST_DEVICE");
    if (!device || !strcmp(device, "cpu"))
        return false;
    if (strcmp(device, "cuda") != 0)
        fail_msg("RLHF_TEST_DEVICE is %s, should be cpu or cuda", device);
    return true;
}

bool ops_small(void)
{
    return getenv("RLHF_TEST_SMALL") != NULL;
}

static void open_backend(struct backend *be, const char *isa, int threads, bool plan_only)
{
    const struct backend_choice cuda = {.device = "cuda", .threads = 1, .plan_only = plan_only};
    *be = (struct backend){0};
    if ((ops_on_cuda() ? backend_open(be, &cuda) : cpu_open(be, isa, threads)) != 0)
        fail_msg("%s", error_message());
}

/* The table stays when the backend is closed. */
static const struct backend_ops *table(void)
{
    static const struct backend_ops *ops;
    if (!ops) {
        struct backend be;
        open_backend(&be, NULL, 1, true);
        ops = be.ops;
        ops->close(&be);
    }
    return ops;
}

bool ops_trains_weights(void)
{
    return table()->trains_weights;
}

int ops_width(int n)
{
    const int multiple = table()->width_multiple;
    return (n + multiple - 1) / multiple * multiple;
}

void *ops_zeros(struct backend *be, size_t bytes)
{
    void *p = be->ops->region_alloc(be, "test", bytes > 0 ? bytes : 1);
    if (!p)
        fail_msg("no memory of the device for %zu bytes", bytes);
    return p;
}

static void set_workspace(struct backend *be)
{
    const struct shape *shape = ops_on_cuda() && !ops_small() ? large : small;
    const int vocab = ops_small() ? SMALL_VOCAB : VOCAB;
    size_t most = 0;
    for (int i = 0; i < 2; i++) {
        const size_t bytes = be->ops->workspace_bytes(be, shape[i].tokens, shape[i].width,
                                                      shape[i].width, MAX_SEQ, MAX_HEAD_DIM, vocab);
        most = bytes > most ? bytes : most;
    }
    be->ops->workspace_set(be, ops_zeros(be, most), most);
}

static void *run_one(const char *isa, int threads, ops_run *run, void *context, size_t bytes)
{
    struct backend be;
    void *out = calloc(1, bytes + 1);
    assert_non_null(out);
    open_backend(&be, isa, threads, false);
    set_workspace(&be);
    run(&be, context, out);
    if (be.ops->sync(&be) != 0)
        fail_msg("%s", error_message());
    be.ops->close(&be);
    return out;
}

/* Keeps the first run's bytes in first; later ones must be the same. */
static void compare_run(void **first, void *out, size_t bytes, const char *how, int threads)
{
    if (!*first) {
        *first = out;
        return;
    }
    const unsigned char *a = *first, *b = out;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            fail_msg("%s, threads %d: other bits than the first run, from byte %zu of %zu", how,
                     threads, i, bytes);
    free(out);
}

/* The shim takes the order of blocks and warps from the environment; on a card it says nothing. */
static void *cuda_same_bits(ops_run *run, void *context, size_t bytes)
{
    static const char *const order[] = {NULL, "1", "2"};
    void *first = NULL;
    for (int i = 0; i < 3; i++) {
        if (order[i])
            setenv("RLHF_SHIM_ORDER", order[i], 1);
        compare_run(&first, run_one(NULL, 1, run, context, bytes), bytes, "shuffled", i);
        unsetenv("RLHF_SHIM_ORDER");
    }
    return first;
}

void *ops_same_bits(ops_run *run, void *context, size_t bytes)
{
    static const char *const isa[] = {"plain", "avx2", "avx512"};
    static const int threads[] = {1, 2, 4};
    void *first = NULL;
    if (ops_on_cuda())
        return cuda_same_bits(run, context, bytes);
    for (int i = 0; i < 3; i++) {
        if (!cpu_ops(isa[i]))
            continue;
        for (int t = 0; t < 3; t++)
            compare_run(&first, run_one(isa[i], threads[t], run, context, bytes), bytes, isa[i],
                        threads[t]);
    }
    assert_non_null(first);
    return first;
}

void *ops_once(ops_run *run, void *context, size_t bytes, int threads)
{
    return run_one(NULL, threads, run, context, bytes);
}

void *ops_in(struct backend *be, const void *host, size_t bytes)
{
    if (!host)
        return NULL;
    void *p = ops_zeros(be, bytes);
    if (bytes > 0)
        be->ops->copy_in(be, p, host, bytes);
    return p;
}

static size_t acts_bytes(const struct backend *be, int64_t n)
{
    return (size_t)n * dtype_bytes(be->ops->act);
}

void ops_set_acts(struct backend *be, act_t *device, const float *x, int64_t n)
{
    if (be->ops->act == DTYPE_F32) {
        be->ops->copy_in(be, device, x, acts_bytes(be, n));
        return;
    }
    uint16_t *bits = malloc(acts_bytes(be, n) + 1);
    assert_non_null(bits);
    for (int64_t i = 0; i < n; i++)
        bits[i] = bf16_from_float(x[i]);
    be->ops->copy_in(be, device, bits, acts_bytes(be, n));
    free(bits);
}

act_t *ops_in_acts(struct backend *be, const float *x, int64_t n)
{
    if (!x)
        return NULL;
    act_t *acts = ops_zeros(be, acts_bytes(be, n));
    if (n > 0)
        ops_set_acts(be, acts, x, n);
    return acts;
}

void *ops_room(struct backend *be, size_t bytes)
{
    void *host = malloc(bytes + 1);
    assert_non_null(host);
    memset(host, 0xff, bytes);
    void *p = ops_in(be, host, bytes);
    free(host);
    return p;
}

act_t *ops_room_acts(struct backend *be, int64_t n)
{
    return ops_room(be, acts_bytes(be, n));
}

act_t *ops_part_acts(struct backend *be, const act_t *x, int64_t first)
{
    return (char *)(uintptr_t)x + acts_bytes(be, first);
}

void ops_out(struct backend *be, void *host, const void *device, size_t bytes)
{
    if (bytes > 0)
        be->ops->copy_out(be, host, device, bytes);
}

void ops_out_acts(struct backend *be, float *host, const act_t *device, int64_t n)
{
    void *acts = malloc(acts_bytes(be, n) + 1);
    assert_non_null(acts);
    ops_out(be, acts, device, acts_bytes(be, n));
    floats_from(host, acts, be->ops->act, n);
    free(acts);
}

struct batch ops_in_batch(struct backend *be, const struct batch *b)
{
    const size_t N = (size_t)b->n_tokens, S = (size_t)b->n_seqs;
    return (struct batch){.n_tokens = b->n_tokens,
                          .n_seqs = b->n_seqs,
                          .id = ops_in(be, b->id, N * sizeof *b->id),
                          .position = ops_in(be, b->position, N * sizeof *b->position),
                          .sequence = ops_in(be, b->sequence, N * sizeof *b->sequence),
                          .start = ops_in(be, b->start, (S + 1) * sizeof *b->start),
                          .slot = ops_in(be, b->slot, S * sizeof *b->slot),
                          .sample = ops_in(be, b->sample, S * sizeof *b->sample)};
}

struct grads ops_grads(struct backend *be, int64_t n, float limit)
{
    return (struct grads){
        .sum = ops_zeros(be, (size_t)n * sizeof(int64_t)),
        .n = n,
        .limit = limit,
        .overflow = ops_zeros(be, sizeof(int64_t)),
    };
}

void ops_out_grads(struct backend *be, int64_t *host, const struct grads *g)
{
    ops_out(be, host, g->sum, (size_t)g->n * sizeof *host);
    ops_out(be, host + g->n, g->overflow, sizeof *host);
}

float ops_exact(float x)
{
    return ops_on_cuda() ? bf16_to_float(bf16_from_float(x)) : x;
}

float *ops_random(int64_t n, unsigned seed, float scale)
{
    float *x = malloc((size_t)n * sizeof *x + 1);
    assert_non_null(x);
    const struct rng_key key = rng_key(seed, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < n; i++) {
        uint32_t word[4];
        float sum = -2;
        rng_draw(word, key, (uint32_t)i, (uint32_t)(i >> 32), 0, 0);
        for (int j = 0; j < 4; j++)
            sum += rng_uniform(word[j]);
        x[i] = ops_exact(sum * scale * 1.7320508f); /* the sum of four has variance 1/3 */
    }
    return x;
}

double *ops_double(const float *x, int64_t n)
{
    double *y = malloc((size_t)n * sizeof *y + 1);
    assert_non_null(y);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
    return y;
}

void ops_close(const char *what, const float *got, const double *want, int64_t n, double bound)
{
    double square = 0;
    for (int64_t i = 0; i < n; i++)
        square += want[i] * want[i];
    const double size = n > 0 ? sqrt(square / (double)n) : 0;
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs(got[i] - want[i]);
        if (!(error <= bound * (fabs(want[i]) + size)))
            fail_msg("%s: element %lld is %.9g, should be %.9g (error %.2g of %.2g allowed)", what,
                     (long long)i, got[i], want[i], error, bound * (fabs(want[i]) + size));
    }
}

double ops_bound_acts(double bound)
{
    return ops_on_cuda() ? fmax(bound, 1e-2) : bound;
}

void ops_close_acts(const char *what, const float *got, const double *want, int64_t n, double bound)
{
    ops_close(what, got, want, n, ops_bound_acts(bound));
}

void ops_close_sums(const char *what, const float *got, const double *want, int64_t n, double bound)
{
    if (!ops_on_cuda()) {
        ops_close(what, got, want, n, bound);
        return;
    }
    const double rounded = ops_bound_acts(bound);
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (!(error <= rounded * rounded * size))
        fail_msg("%s: error of %.2g, relative to all", what, sqrt(error / size));
    ops_close(what, got, want, n, 5 * rounded);
}

void ops_close_largest(const char *what, const double *got, const double *want, int64_t n,
                       double bound)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= bound * largest))
            fail_msg("%s: element %lld is %.9g, should be %.9g (largest %.3g)", what, (long long)i,
                     got[i], want[i], largest);
}

void *ops_allocate(int64_t n, size_t size)
{
    void *p = calloc((size_t)n + 1, size);
    assert_non_null(p);
    return p;
}

struct batch ops_batch(const int *length, int n_seqs)
{
    int N = 0;
    for (int s = 0; s < n_seqs; s++)
        N += length[s];
    int32_t *numbers = calloc((size_t)(3 * N + 2 * n_seqs + 1), sizeof *numbers);
    int64_t *sample = calloc((size_t)n_seqs, sizeof *sample);
    assert_non_null(numbers);
    assert_non_null(sample);
    int32_t *id = numbers, *position = id + N, *sequence = position + N, *start = sequence + N,
            *slot = start + n_seqs + 1;
    for (int s = 0, n = 0; s < n_seqs; s++) {
        for (int t = 0; t < length[s]; t++, n++) {
            position[n] = t;
            sequence[n] = s;
        }
        start[s + 1] = n;
        slot[s] = s;
        sample[s] = s;
    }
    return (struct batch){.n_tokens = N,
                          .n_seqs = n_seqs,
                          .id = id,
                          .position = position,
                          .sequence = sequence,
                          .start = start,
                          .slot = slot,
                          .sample = sample};
}

void ops_batch_free(struct batch *b)
{
    free((void *)(uintptr_t)b->id);
    free((void *)(uintptr_t)b->sample);
    memset(b, 0, sizeof *b);
}
