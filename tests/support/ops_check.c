#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/ops_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t workspace_bytes = (size_t)16 << 20;

static void *run_one(const char *isa, int threads, ops_run *run, void *context, size_t bytes)
{
    struct backend be = {0};
    assert_int_equal(cpu_open(&be, isa, threads), 0);
    void *workspace = aligned_alloc(64, workspace_bytes), *out = calloc(1, bytes + 1);
    assert_non_null(workspace);
    assert_non_null(out);
    be.ops->workspace_set(&be, workspace, workspace_bytes);
    run(&be, context, out);
    assert_int_equal(be.ops->sync(&be), 0);
    be.ops->close(&be);
    free(workspace);
    return out;
}

void *ops_same_bits(ops_run *run, void *context, size_t bytes)
{
    static const char *const isa[] = {"plain", "avx2", "avx512"};
    static const int threads[] = {1, 2, 4};
    void *first = NULL;
    for (int i = 0; i < 3; i++) {
        if (!cpu_ops(isa[i]))
            continue;
        for (int t = 0; t < 3; t++) {
            void *out = run_one(isa[i], threads[t], run, context, bytes);
            if (first && memcmp(first, out, bytes) != 0)
                fail_msg("%s with %d threads gives other bits than plain with 1", isa[i],
                         threads[t]);
            if (first)
                free(out);
            else
                first = out;
        }
    }
    assert_non_null(first);
    return first;
}

void *ops_once(ops_run *run, void *context, size_t bytes, int threads)
{
    return run_one(NULL, threads, run, context, bytes);
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
        x[i] = sum * scale * 1.7320508f; /* the sum of four has variance 1/3 */
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
