/* The accumulators and the update: grads_zero, grads_norm, adamw, hash, and the CPU's helper that adds floats to the
 * accumulators. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/fixed.h"
#include "support/ops_check.h"
#include "support/reference_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct update {
    int64_t n;
    const float *p, *m, *v;
    int64_t *sum;
    struct adamw how;
};

static struct grads grads_in(struct backend *be, const int64_t *sum, int64_t n)
{
    struct grads g = ops_grads(be, n, 1);
    be->ops->copy_in(be, g.sum, sum, (size_t)n * sizeof *sum);
    return g;
}

/* out: p, m, v */
static void run_adamw(struct backend *be, void *context, void *out)
{
    const struct update *c = context;
    const size_t bytes = (size_t)c->n * sizeof(float);
    const struct grads g = grads_in(be, c->sum, c->n);
    float *p = ops_in(be, c->p, bytes), *m = ops_in(be, c->m, bytes), *v = ops_in(be, c->v, bytes);
    be->ops->adamw(be, p, m, v, &g, &c->how);
    float *parts = out;
    ops_out(be, parts, p, bytes);
    ops_out(be, parts + c->n, m, bytes);
    ops_out(be, parts + 2 * c->n, v, bytes);
}

static void test_adamw(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 15, 4097, 70001};
    for (int i = 0; i < (ops_small() ? 3 : 4); i++) {
        const int64_t n = sizes[i];
        float *x = ops_random(3 * n, 1, 1), *gradient = ops_random(n, 2, 0.1f);
        struct update c = {n,
                           x,
                           x + n,
                           x + 2 * n,
                           calloc((size_t)n, 8),
                           {1e-2, 0.9, 0.999, 1e-8, 0.01, 1 - 0.81, 1 - 0.999 * 0.999, 0.37}};
        for (int64_t j = 0; j < n; j++) {
            x[2 * n + j] = fabsf(x[2 * n + j]);
            c.sum[j] = fixed_of(gradient[j]);
        }
        float *got = ops_same_bits(run_adamw, &c, (size_t)n * 3 * sizeof *got);
        double *want = ops_double(x, 3 * n);
        for (int64_t j = 0; j < n; j++)
            reference_adamw(want + j, want + n + j, want + 2 * n + j, (double)c.sum[j] * 0x1p-48,
                            &c.how);
        for (int part = 0; part < 3; part++)
            ops_close("p, m, v", got + part * n, want + part * n, n, 1e-6);

        /* a range of the vector: the same bits */
        const int64_t from = n / 3;
        struct update rest = {n - from, c.p + from, c.m + from, c.v + from, c.sum + from, c.how};
        float *part = ops_once(run_adamw, &rest, (size_t)(n - from) * 3 * sizeof *part, 2);
        for (int j = 0; j < 3; j++)
            assert_memory_equal(part + j * (n - from), got + j * n + from,
                                (size_t)(n - from) * sizeof *part);
        free(part);
        free(got);
        free(want);
        free(x);
        free(gradient);
        free(c.sum);
    }
}

static void test_adamw_leaves_unused_elements_alone(void **state)
{
    (void)state;
    const int64_t n = 1000;
    float *p = ops_random(n, 3, 1), *zeros = calloc((size_t)n, sizeof *zeros);
    p[7] = -0.0f;
    struct update c = {
        n, p, zeros, zeros, calloc((size_t)n, 8), {1e-2, 0.9, 0.999, 1e-8, 0, 0.1, 0.001, 1}};
    float *got = ops_same_bits(run_adamw, &c, (size_t)n * 3 * sizeof *got);
    assert_memory_equal(got, p, (size_t)n * sizeof *p);
    assert_memory_equal(got + n, zeros, (size_t)n * sizeof *p);
    assert_memory_equal(got + 2 * n, zeros, (size_t)n * sizeof *p);
    free(got);
    free(p);
    free(zeros);
    free(c.sum);
}

/* out: grads_norm, then the accumulators after grads_zero, overflow last */
static void run_norm(struct backend *be, void *context, void *out)
{
    const struct update *c = context;
    struct grads g = grads_in(be, c->sum, c->n);
    be->ops->copy_in(be, g.overflow, &(int64_t){5}, sizeof *g.overflow);
    *(double *)out = be->ops->grads_norm(be, &g);
    be->ops->grads_zero(be, &g);
    ops_out_grads(be, (int64_t *)out + 1, &g);
}

static void test_grads_norm_and_zero(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 17, 4096, 4099, 20000, 4200003};
    for (int i = 0; i < (ops_small() ? 5 : 6); i++) {
        const int64_t n = sizes[i];
        float *x = ops_random(n, 4, 3);
        struct update c = {.n = n, .sum = calloc((size_t)n, 8)};
        double want = 0;
        for (int64_t j = 0; j < n; j++) {
            c.sum[j] = fixed_of(x[j]);
            want += ((double)c.sum[j] * 0x1p-48) * ((double)c.sum[j] * 0x1p-48);
        }
        double *got = ops_same_bits(run_norm, &c, (size_t)(n + 2) * 8);
        assert_true(fabs(got[0] - want) <= 1e-12 * want);
        for (int64_t j = 0; j <= n; j++)
            assert_int_equal(((int64_t *)(void *)got)[1 + j], 0);
        free(got);
        free(x);
        free(c.sum);
    }
}

struct bytes {
    const char *bytes;
    size_t n, first; /* the hashed ones lie first bytes behind the start of a piece of memory */
};

/* out: uint64 hash */
static void run_hash(struct backend *be, void *context, void *out)
{
    const struct bytes *c = context;
    char *room = ops_zeros(be, c->first + c->n);
    be->ops->copy_in(be, room + c->first, c->bytes, c->n);
    const uint64_t hash = be->ops->hash(be, room + c->first, c->n);
    memcpy(out, &hash, sizeof hash);
}

static uint64_t hash_of(const char *bytes, size_t n)
{
    struct bytes c = {bytes, n, 0};
    uint64_t *got = ops_same_bits(run_hash, &c, sizeof *got), hash = *got;
    free(got);
    c.first = 4;
    got = ops_once(run_hash, &c, sizeof *got, 1);
    assert_true(*got == hash);
    free(got);
    return hash;
}

/* Another byte anywhere, or one more, is another hash; where the bytes lie does not matter. */
static void test_hash(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 8, 31, 4096, 65536, 200011};
    for (int i = 0; i < 6; i++) {
        const size_t n = sizes[i], places[] = {0, n / 2, n - 1};
        char *bytes = calloc(n + 1, 1);
        const uint64_t zeros = hash_of(bytes, n);
        assert_true(hash_of(bytes, n) == zeros);
        assert_true(hash_of(bytes, n + 1) != zeros);
        for (int j = 0; j < 3; j++) {
            bytes[places[j]] = 1;
            assert_true(hash_of(bytes, n) != zeros);
            bytes[places[j]] = 0;
        }
        free(bytes);
    }
}

/* of the CPU's sources */
static void test_grads_add(void **state)
{
    (void)state;
    enum { N = 200 };
    if (ops_on_cuda())
        skip();
    int64_t sum[N + 1] = {0};
    struct grads g = {sum, N, 16384, sum + N};
    float v[N];
    for (int round = 0; round < 200; round++) { /* from far below half a unit to the limit */
        for (int i = 0; i < N; i++) {
            const uint32_t word =
                rng_word(rng_key(1, RNG_TEST, 0, 0), (uint32_t)round, 0, 0, (uint32_t)i);
            v[i] = ldexpf((float)(word >> 8) / 8388608 - 1, (int)(word & 63) - 49);
        }
        memset(sum, 0, sizeof sum);
        grads_add(&g, 0, v, N);
        for (int i = 0; i < N; i++)
            assert_true(sum[i] == llrint((double)v[i] * 0x1p48));
    }
    v[0] = ldexpf(1, -49); /* halves go to even */
    v[1] = ldexpf(3, -49);
    v[2] = -ldexpf(5, -49);
    v[3] = nextafterf(16384, 0);
    memset(sum, 0, sizeof sum);
    grads_add(&g, 0, v, 4);
    assert_true(sum[0] == 0 && sum[1] == 2 && sum[2] == -2);
    assert_true(sum[3] == (int64_t)((double)v[3] * 0x1p48) && sum[N] == 0);
    assert_true(fixed_double(sum[3]) == (double)sum[3] && fixed_double(-sum[3]) == -(double)sum[3]);
    assert_true(fixed_double(INT64_MIN) == -0x1p63 && fixed_double(0) == 0);

    memset(sum, 0, sizeof sum);
    memset(v, 0, sizeof v);
    v[150] = NAN;
    v[90] = -16384;
    v[91] = 1;
    v[60] = INFINITY;
    grads_add(&g, 0, v + 80, 80); /* elements 10 and 70 */
    assert_int_equal(sum[N], 11);
    grads_add(&g, 100, v + 50, 50);
    assert_int_equal(sum[N], 11);
    assert_true(sum[10] == 0 && sum[70] == 0 && sum[11] == (int64_t)1 << 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adamw_leaves_unused_elements_alone),
        cmocka_unit_test(test_grads_norm_and_zero),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_grads_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
