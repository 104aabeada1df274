/* linear_put_rows and linear_forward against float64, and their bits by rows, order, batches and how they
 * are run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/layer.h"
#include "support/ops_check.h"
#include "support/reference_linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- storing --- */

/* out: rows as they are read back, then absmax */
static void run_put(struct backend *be, void *context, void *out)
{
    const struct layer *y = context;
    struct linear l;
    struct lora a;
    layer_put(be, &l, &a, y);
    float *rows = out;
    be->ops->linear_get_rows(be, &l, rows, 0, l.out);
    if (l.absmax)
        ops_out(be, rows + (int64_t)l.out * l.in, l.absmax, (size_t)l.out * sizeof *rows);
}

/* An int8 layer whose first row begins with n numbers; the rest of it is zeros. */
static void layer_of_row(struct layer *y, const float *row, int n)
{
    layer_init(y, ops_width(1), ops_width(n), DTYPE_I8, MATMUL_DEQUANT, false, 0, 1);
    memset(y->rows, 0, (size_t)y->shape.out * (size_t)y->shape.in * sizeof *y->rows);
    memcpy(y->rows, row, (size_t)n * sizeof *row);
}

static float *put_and_get(struct layer *y)
{
    return ops_same_bits(run_put, y,
                         (size_t)y->shape.out * (size_t)(y->shape.in + 1) * sizeof(float));
}

static void test_put_rows_golden(void **state)
{
    (void)state;
    static const float row[] = {0.5f, -1.27f, 0.013f, 0.9f};
    static const int code[] = {50, -127, 1, 90};
    struct layer y;
    layer_of_row(&y, row, 4);
    float *got = put_and_get(&y);
    assert_true(got[y.shape.out * y.shape.in] == 1.27f);
    for (int k = 0; k < 4; k++)
        assert_true(got[k] == (float)code[k] * (1.27f / 127.0f));
    free(got);
    layer_free(&y);
}

/* A half-way value goes to the even code. */
static void test_put_rows_ties(void **state)
{
    (void)state;
    static const float row[] = {127, 0.5f, 1.5f, -2.5f, -0.5f, 62.5f, 63.5f};
    static const float code[] = {127, 0, 2, -2, 0, 62, 64};
    struct layer y;
    layer_of_row(&y, row, 7);
    float *got = put_and_get(&y);
    for (int k = 0; k < 7; k++)
        assert_true(got[k] == code[k]);
    free(got);
    layer_free(&y);
}

/* Rows of zeros, and of numbers too small for 127 / absmax to be finite, become zeros. */
static void test_put_rows_tiny(void **state)
{
    (void)state;
    static const float row[] = {0, 1e-40f, 0, 1e-40f, 0};
    struct layer y;
    layer_of_row(&y, row, 5);
    float *got = put_and_get(&y);
    for (int k = 0; k < y.shape.out * y.shape.in; k++)
        assert_true(fabsf(got[k]) <= 1e-40f);
    free(got);
    layer_free(&y);
}

static void check_put_rows(const struct layer_format *f, int out, int in, enum dtype source)
{
    struct layer y;
    layer_init(&y, out, in, f->dtype, f->matmul, false, 0, 5);
    const int64_t all = (int64_t)out * in;
    for (int64_t j = 0; j < all; j++)
        y.rows[j] *= 1.2345f; /* in need of rounding */
    layer_source(&y, source);
    float *got = put_and_get(&y);
    double *want = ops_allocate(all, sizeof *want);
    reference_weights(want, &y.shape, y.rows);
    for (int64_t j = 0; j < all; j++) {
        assert_true(fabs(got[j] - want[j]) <= 1.2e-7 * fabs(want[j]));
        if (f->dtype == DTYPE_I8) { /* no code is off by more than a half */
            const double unit = got[all + j / in] / 127.0;
            assert_true(fabs(got[j] - y.rows[j]) <= 0.50002 * unit);
        }
    }
    free(got);
    free(want);
    layer_free(&y);
}

static void test_put_rows(void **state)
{
    (void)state;
    static const enum dtype sources[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const int shape[][2] = {{1, 1}, {5, 7}, {17, 33}, {16, 512}, {24, 40}, {50, 1030}};
    for (int f = 0; f < LAYER_FORMATS; f++)
        for (int i = 0; i < (ops_small() ? 5 : 6); i++)
            for (int from = 0; from < 3; from++)
                check_put_rows(&layer_formats[f], ops_width(shape[i][0]), ops_width(shape[i][1]),
                               sources[from]);
}

/* --- forward --- */

struct forward {
    const struct layer *layer; /* [n] */
    int n, N;
    const float *x;
    struct linear_pass pass;
};

/* out: y of each sibling */
static void run_forward(struct backend *be, void *context, void *out)
{
    const struct forward *c = context;
    const struct batch b = c->pass.batch ? ops_in_batch(be, c->pass.batch) : (struct batch){0};
    struct linear_pass pass = c->pass;
    pass.batch = pass.batch ? &b : NULL;
    struct siblings s;
    layers_put(be, &s, c->layer, c->n);
    act_t *y[SIBLINGS];
    for (int i = 0; i < c->n; i++)
        y[i] = ops_room_acts(be, (int64_t)c->N * s.linear[i].out);
    be->ops->linear_forward(be, y, s.address, c->n,
                            ops_in_acts(be, c->x, (int64_t)c->N * s.linear[0].in), c->N, &pass);
    float *next = out;
    for (int i = 0; i < c->n; i++) {
        ops_out_acts(be, next, y[i], (int64_t)c->N * s.linear[i].out);
        next += (int64_t)c->N * s.linear[i].out;
    }
}

static size_t forward_bytes(const struct forward *c)
{
    size_t n = 0;
    for (int i = 0; i < c->n; i++)
        n += (size_t)c->layer[i].shape.out * (size_t)c->N * sizeof(float);
    return n;
}

/* Row n of c is row from[n] of whole; every row must have the same bits in both. */
static void check_rows(const struct forward *c, const float *got, const int32_t *from,
                       const struct forward *whole, const float *all)
{
    for (int i = 0; i < c->n; i++) {
        const int64_t out = c->layer[i].shape.out;
        for (int n = 0; n < c->N; n++)
            if (memcmp(got + n * out, all + from[n] * out, (size_t)out * sizeof *got) != 0)
                fail_msg("row %d of sibling %d has other bits as row %d of %d", from[n], i, n,
                         c->N);
        got += c->N * out;
        all += whole->N * out;
    }
}

/* The rows of whole in another order, as a batch of their own. */
static void check_rows_of(const struct forward *whole, const float *all, const int32_t *from, int N)
{
    const struct batch *b = whole->pass.batch;
    const int64_t in = whole->layer->shape.in;
    int32_t *position = ops_allocate(N, sizeof *position), *sequence = ops_allocate(N, sizeof *sequence);
    float *x = ops_allocate(N * in, sizeof *x);
    for (int n = 0; n < N; n++) {
        position[n] = b->position[from[n]];
        sequence[n] = b->sequence[from[n]];
        memcpy(x + n * in, whole->x + from[n] * in, (size_t)in * sizeof *x);
    }
    struct batch permuted = *b;
    permuted.n_tokens = N;
    permuted.position = position;
    permuted.sequence = sequence;
    struct forward c = *whole;
    c.N = N;
    c.x = x;
    c.pass.batch = &permuted;
    float *got = ops_once(run_forward, &c, forward_bytes(&c), 2);
    check_rows(&c, got, from, whole, all);
    free(got);
    free(x);
    free(position);
    free(sequence);
}

static void check_row_invariance(const struct forward *c, const float *got)
{
    int64_t *order = ops_allocate(c->N, sizeof *order);
    int32_t *from = ops_allocate(c->N, sizeof *from);
    rng_permutation(order, c->N, rng_key(3, RNG_TEST, 0, 0), 0);
    for (int n = 0; n < c->N; n++)
        from[n] = (int32_t)order[n];
    check_rows_of(c, got, from, c->N);
    check_rows_of(c, got, from, c->N / 2); /* a part of them */
    for (int32_t n = 0; n < c->N; n += 1 + c->N / 8)
        check_rows_of(c, got, &n, 1);
    free(order);
    free(from);
}

static void check_forward(const struct layer_format *f, int N, int in, int out, int n, bool bias, int r,
                          float dropout)
{
    const int length[] = {N / 3, N / 4, N - N / 3 - N / 4};
    struct batch b = ops_batch(length, 3);
    struct layer y[SIBLINGS];
    layers_init(y, n, f, in, out, bias, r, dropout);
    float *x = ops_random((int64_t)N * in, 2, 1.5f);
    struct forward c = {y, n, N, x, {r ? 0 : -1, dropout > 0, 7, &b}};
    float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
    const float *at = got;
    for (int i = 0; i < n; i++) {
        const int64_t all = (int64_t)N * y[i].shape.out;
        double *want = ops_allocate(all, sizeof *want);
        reference_linear(want, &y[i].shape, y[i].rows, x, N, &c.pass);
        ops_close_acts(f->name, at, want, all, 1e-5);
        at += all;
        free(want);
    }
    check_row_invariance(&c, got);
    free(got);
    free(x);
    for (int i = 0; i < n; i++)
        layer_free(&y[i]);
    ops_batch_free(&b);
}

/* Base alone, with an adapter, with its dropout. */
static void check_forward_case(const struct layer_format *f, int which, int i, int N, int in, int out,
                               int r)
{
    check_forward(f, N, in, out, 1 + (i + which) % 3, (i + which) & 1, which > 0 ? r : 0,
                  which > 1 ? 0.25f : 0);
}

/* Numbers of rows on both sides of where an implementation may take another way. */
static void test_forward(void **state)
{
    (void)state;
    static const int shape[][3] = {{1, 1, 1},     {3, 7, 5},      {6, 33, 17},   {2, 512, 65},
                                   {9, 513, 100}, {13, 1100, 31}, {1, 1025, 90}, {70, 96, 48},
                                   {5, 24, 40},   {20, 40, 24},   {40, 24, 16},  {70, 24, 16},
                                   {1030, 16, 8}},
                     rank[] = {8, 1, 16, 5};
    for (int f = ops_small() ? LAYER_BF16 : 0; f < LAYER_FORMATS; f++) {
        for (int i = 0; i < (int)(sizeof shape / sizeof *shape); i++) {
            const int N = shape[i][0], in = ops_width(shape[i][1]), out = ops_width(shape[i][2]),
                      r = in < rank[i % 4] ? 1 : rank[i % 4];
            if (ops_small() && N < 1000 && N * in * out > 50000)
                continue;
            for (int which = 0; which < 3; which++)
                if (!ops_small() || N < 20 || which == (f + i) % 3)
                    check_forward_case(&layer_formats[f], which, i, N, in, out, r);
        }
    }
}

/* A backend may multiply few rows by other kernels than many: a row has the same bits among any number. Inputs of several blocks. */
static void test_forward_by_number_of_rows(void **state)
{
    (void)state;
    enum { N = 1030 };
    static const int number[] = {1, 7, 8, 9, 16, 17, 33, 64, 65, 130, 520};
    static const int length[] = {700, 1, N - 701};
    struct batch b = ops_batch(length, 3);
    int32_t from[N];
    for (int n = 0; n < N; n++)
        from[n] = N - 1 - n;
    for (int f = LAYER_BF16; f <= LAYER_BF16 + 1; f++) { /* llm.int8: below */
        const int in = f == LAYER_BF16 + 1 ? 1112 : 616;
        const float dropout = f & 1 ? 0.25f : 0;
        struct layer y;
        layers_init(&y, 1, &layer_formats[f], in, 24, true, 20, dropout);
        float *x = ops_random((int64_t)N * in, 2, 1.5f);
        const struct forward c = {&y, 1, N, x, {0, true, 7, &b}};
        float *got = ops_once(run_forward, (void *)(uintptr_t)&c, forward_bytes(&c), 2);
        double *want = ops_allocate(N * 24, sizeof *want);
        reference_linear(want, &y.shape, y.rows, x, N, &c.pass);
        ops_close_acts(layer_formats[f].name, got, want, N * 24, 1e-5);
        for (int i = 0; i < (int)(sizeof number / sizeof *number); i++)
            check_rows_of(&c, got, from, number[i]);
        free(got);
        free(want);
        free(x);
        layer_free(&y);
    }
    ops_batch_free(&b);
}

/* An adapter that the pass does not name changes nothing. */
static void test_forward_without_the_adapter(void **state)
{
    (void)state;
    enum { N = 5 };
    const int out = ops_width(20), in = ops_width(30);
    struct layer with, without;
    layer_init(&with, out, in, DTYPE_F32, MATMUL_PLAIN, true, 4, 1);
    without = with;
    without.adapter = (struct lora){0};
    without.shape.adapter[0] = NULL;
    float *x = ops_random(N * in, 2, 1);
    const int length[] = {N};
    const size_t bytes = (size_t)(N * out) * sizeof(float);
    struct batch b = ops_batch(length, 1);
    float *got[3];
    for (int i = 0; i < 3; i++) {
        struct forward c = {i == 1 ? &without : &with, 1, N, x, {i == 0 ? -1 : 0, true, 1, &b}};
        got[i] = ops_once(run_forward, &c, bytes, 1);
    }
    assert_memory_equal(got[0], got[1], bytes);
    assert_memory_not_equal(got[0], got[2], bytes);
    for (int i = 0; i < 3; i++)
        free(got[i]);
    free(x);
    layer_free(&with);
    ops_batch_free(&b);
}

/* y of whole numbers with a largest magnitude of 127, which are their own codes, is their sum times 127 * 127 / 127^2: in
 * float that factor is off by one rounding at most. Of bf16 the sum is asked for as far as that shows it. */
static bool is_sum(float y, int64_t sum)
{
    if (!ops_on_cuda())
        return y == (float)sum * (16129.0f * (1.0f / 16129.0f));
    const double away = 2.5e-7 * fabs((double)sum);
    return y >= ops_exact((float)((double)sum - away)) &&
           y <= ops_exact((float)((double)sum + away));
}

static float whole(float x)
{
    return fminf(fmaxf(rintf(x), -127), 127);
}

static const int exact_inputs[] = {1, 3, 64, 257, 1100, 24576};
enum { EXACT_ROWS = 3 };

static void check_exact_sums(const struct layer *y, const float *x)
{
    const int out = y->shape.out, in = y->shape.in;
    struct forward c = {y, 1, EXACT_ROWS, x, {.adapter = -1}};
    float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
    for (int n = 0; n < EXACT_ROWS; n++) {
        for (int o = 0; o < out; o++) {
            int64_t sum = 0;
            for (int k = 0; k < in; k++)
                sum += (int64_t)x[n * in + k] * (int64_t)y->rows[o * in + k];
            if (!is_sum(got[n * out + o], sum))
                fail_msg("%d inputs: output %d of row %d is %.9g, should be %lld", in, o, n,
                         got[n * out + o], (long long)sum);
        }
    }
    free(got);
}

/* The last row and the last output are 127 throughout: the largest sum there can be. */
static void test_llm_int8_sums_are_exact(void **state)
{
    (void)state;
    for (int i = 0; i < (ops_small() ? 5 : 6); i++) {
        const int in = ops_width(exact_inputs[i]), out = ops_width(19);
        struct layer y;
        layer_init(&y, out, in, DTYPE_I8, MATMUL_LLM_INT8, false, 0, 1);
        float *x = ops_random((int64_t)EXACT_ROWS * in, 4, 50);
        for (int j = 0; j < EXACT_ROWS * in; j++)
            x[j] = j / in == EXACT_ROWS - 1 || j % in == in - 1 ? 127 : whole(x[j]);
        for (int64_t j = 0; j < (int64_t)out * in; j++)
            y.rows[j] = j / in == out - 1 ? 127
                        : j % in == 0     ? -127
                                          : whole(y.rows[j] * sqrtf((float)in) * 50);
        check_exact_sums(&y, x);
        free(x);
        layer_free(&y);
    }
}

/* Large sums that cancel: the inputs' second half is the first with the other sign, and the weights repeat, but for one.
 * What is left is below 256, which bf16 holds. */
static void test_llm_int8_sums_cancel(void **state)
{
    (void)state;
    for (int i = 1; i < (ops_small() ? 5 : 6); i++) {
        const int half = ops_width(exact_inputs[i]), in = 2 * half, out = ops_width(19);
        struct layer y;
        layer_init(&y, out, in, DTYPE_I8, MATMUL_LLM_INT8, false, 0, 1);
        float *x = ops_random((int64_t)EXACT_ROWS * in, 4, 50);
        for (int n = 0; n < EXACT_ROWS; n++)
            for (int k = 0; k < half; k++) {
                x[n * in + k] = n == EXACT_ROWS - 1 || k == 0 ? 127 : whole(x[n * in + k]);
                x[n * in + half + k] = -x[n * in + k];
            }
        for (int64_t o = 0; o < out; o++) {
            float *row = y.rows + o * in;
            for (int k = 0; k < half; k++)
                row[k] = row[half + k] =
                    o == out - 1 || k == 0 ? 127 : whole(row[k] * sqrtf((float)in) * 50);
            row[half + 1 + o % (half - 1)] -= row[half + 1 + o % (half - 1)] > 0 ? 1 : -2;
        }
        check_exact_sums(&y, x);
        free(x);
        layer_free(&y);
    }
}

/* A row that holds a value which is not finite does not come out finite; other rows do not notice. */
static void test_llm_int8_keeps_what_is_not_finite(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const int in = ops_width(37), out = ops_width(18);
    for (int i = 0; i < 6; i++) {
        struct layer y;
        layer_init(&y, out, in, DTYPE_I8, MATMUL_LLM_INT8, i & 1, 0, 1);
        y.shape.outlier_threshold = i < 3 ? 0 : 3;
        float *x = ops_random(2 * in, 4, 1);
        x[in + 20] = bad[i % 3];
        struct forward c = {&y, 1, 2, x, {.adapter = -1}};
        float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
        for (int o = 0; o < out; o++) {
            assert_true(isfinite(got[o]));
            assert_false(isfinite(got[out + o]));
        }
        free(got);
        free(x);
        layer_free(&y);
    }
}

/* Rows too small for 127 / absmax to be finite give the bias. */
static void test_llm_int8_tiny_rows(void **state)
{
    (void)state;
    const int in = ops_width(9), out = ops_width(3);
    struct layer y;
    layer_init(&y, out, in, DTYPE_I8, MATMUL_LLM_INT8, true, 0, 1);
    float *x = ops_allocate(2 * in, sizeof *x);
    x[in + 4] = 1e-40f;
    struct forward c = {&y, 1, 2, x, {.adapter = -1}};
    float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
    for (int i = 0; i < 2 * out; i++)
        assert_true(got[i] == y.shape.bias[i % out]);
    free(got);
    free(x);
    layer_free(&y);
}

/* A row's bits do not depend on how many come with it, nor on the kernels that a number of rows takes. */
static void test_llm_int8_any_number_of_rows(void **state)
{
    (void)state;
    static const int count[] = {1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 100};
    enum { COUNTS = sizeof count / sizeof *count, N = 130 };
    const int length[] = {N / 2, N - N / 2}, in = ops_width(520);
    struct batch b = ops_batch(length, 2);
    struct layer y[2];
    int32_t from[N];
    layers_init(y, 2, &layer_formats[LAYER_FORMATS - 1], in, ops_width(48), true, 4, 0);
    float *x = ops_random((int64_t)N * in, 2, 1.5f);
    struct forward c = {y, 2, N, x, {0, false, 7, &b}};
    float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
    for (int n = 0; n < N; n++)
        from[n] = n;
    for (int i = 0; i < COUNTS; i++)
        check_rows_of(&c, got, from + N - count[i], count[i]);
    free(got);
    free(x);
    for (int i = 0; i < 2; i++)
        layer_free(&y[i]);
    ops_batch_free(&b);
}

/* Rows by turns of nothing but outliers, of none, of every third, of the last input alone, and two without one in common. */
static bool is_outlier(int n, int k, int in)
{
    switch (n % 6) {
    case 0:
        return true;
    case 1:
        return false;
    case 2:
        return k % 3 == 0;
    case 3:
        return k == in - 1;
    default:
        return k % 2 == n % 2;
    }
}

static void test_llm_int8_many_outliers(void **state)
{
    (void)state;
    static const int rows[] = {6, 76};
    const int in = ops_width(1032), out = ops_width(40);
    for (int i = 0; i < 2; i++) {
        const int N = rows[i];
        struct batch b = ops_batch(&N, 1);
        struct layer y;
        layer_init(&y, out, in, DTYPE_I8, MATMUL_LLM_INT8, true, 0, 1);
        y.shape.outlier_threshold = 3;
        float *x = ops_random((int64_t)N * in, 2, 0.5f);
        for (int j = 0; j < N * in; j++)
            x[j] = ops_exact(is_outlier(j / in, j % in, in) ? copysignf(3 + fabsf(x[j]), x[j])
                                                            : fminf(fmaxf(x[j], -2), 2));
        struct forward c = {&y, 1, N, x, {-1, false, 7, &b}};
        float *got = ops_same_bits(run_forward, &c, forward_bytes(&c));
        double *want = ops_allocate((int64_t)N * out, sizeof *want);
        reference_linear(want, &y.shape, y.rows, x, N, &c.pass);
        ops_close_acts("outliers", got, want, (int64_t)N * out, 1e-5);
        check_row_invariance(&c, got);
        free(want);
        free(got);
        free(x);
        layer_free(&y);
        ops_batch_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_rows_golden),
        cmocka_unit_test(test_put_rows_ties),
        cmocka_unit_test(test_put_rows_tiny),
        cmocka_unit_test(test_put_rows),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_forward_by_number_of_rows),
        cmocka_unit_test(test_forward_without_the_adapter),
        cmocka_unit_test(test_llm_int8_sums_are_exact),
        cmocka_unit_test(test_llm_int8_sums_cancel),
        cmocka_unit_test(test_llm_int8_keeps_what_is_not_finite),
        cmocka_unit_test(test_llm_int8_tiny_rows),
        cmocka_unit_test(test_llm_int8_any_number_of_rows),
        cmocka_unit_test(test_llm_int8_many_outliers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
