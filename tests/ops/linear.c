/* linear_put_rows, linear_forward and linear_backward against float64, and their bits by rows, order, batches and how they
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

enum { SIBLINGS = 3 };

/* Formats of weights. */
static const struct format {
    const char *name;
    enum dtype dtype;
    enum matmul matmul;
    float threshold;
} formats[] = {
    {"F32", DTYPE_F32, MATMUL_PLAIN, 0},
    {"F16", DTYPE_F16, MATMUL_PLAIN, 0},
    {"BF16", DTYPE_BF16, MATMUL_PLAIN, 0},
    {"int8 dequantised", DTYPE_I8, MATMUL_DEQUANT, 0},
    {"LLM.int8()", DTYPE_I8, MATMUL_LLM_INT8, 0},
    {"LLM.int8() with outliers", DTYPE_I8, MATMUL_LLM_INT8, 3},
};
enum { BF16 = 2, FORMATS = sizeof formats / sizeof *formats };

static void *allocate(int64_t n, size_t size)
{
    void *p = calloc((size_t)n + 1, size);
    assert_non_null(p);
    return p;
}

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

static void check_put_rows(const struct format *f, int out, int in, enum dtype source)
{
    struct layer y;
    layer_init(&y, out, in, f->dtype, f->matmul, false, 0, 5);
    const int64_t all = (int64_t)out * in;
    for (int64_t j = 0; j < all; j++)
        y.rows[j] *= 1.2345f; /* in need of rounding */
    layer_source(&y, source);
    float *got = put_and_get(&y);
    double *want = allocate(all, sizeof *want);
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
    for (int f = 0; f < FORMATS; f++)
        for (int i = 0; i < (ops_small() ? 5 : 6); i++)
            for (int from = 0; from < 3; from++)
                check_put_rows(&formats[f], ops_width(shape[i][0]), ops_width(shape[i][1]),
                               sources[from]);
}

/* --- forward --- */

struct forward {
    const struct layer *layer; /* [n] */
    int n, N;
    const float *x;
    struct linear_pass pass;
};

/* The layers in memory of the backend. */
struct siblings {
    struct linear linear[SIBLINGS], *address[SIBLINGS];
    struct lora adapter[SIBLINGS];
};

static void siblings_put(struct backend *be, struct siblings *s, const struct layer *from, int n)
{
    for (int i = 0; i < n; i++) {
        layer_put(be, &s->linear[i], &s->adapter[i], &from[i]);
        s->address[i] = &s->linear[i];
    }
}

/* out: y of each sibling */
static void run_forward(struct backend *be, void *context, void *out)
{
    const struct forward *c = context;
    const struct batch b = c->pass.batch ? ops_in_batch(be, c->pass.batch) : (struct batch){0};
    struct linear_pass pass = c->pass;
    pass.batch = pass.batch ? &b : NULL;
    struct siblings s;
    siblings_put(be, &s, c->layer, c->n);
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

/* Siblings of about the widths out, out + 3, 2 * out. */
static void layers_init(struct layer *y, int n, const struct format *f, int in, int out, bool bias,
                        int r, float dropout)
{
    for (int i = 0; i < n; i++) {
        const int width = i == 0 ? out : i == 1 ? out + 3 : 2 * out;
        layer_init(&y[i], ops_width(width), in, f->dtype, f->matmul, bias || i == 1, i == 1 ? 0 : r,
                   20 + 2 * (unsigned)i);
        y[i].shape.outlier_threshold = f->threshold;
        y[i].adapter.dropout = dropout;
        y[i].adapter.key = rng_key(9, RNG_DROPOUT, 4, (uint32_t)i);
    }
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
    int32_t *position = allocate(N, sizeof *position), *sequence = allocate(N, sizeof *sequence);
    float *x = allocate(N * in, sizeof *x);
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
    int64_t *order = allocate(c->N, sizeof *order);
    int32_t *from = allocate(c->N, sizeof *from);
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

static void check_forward(const struct format *f, int N, int in, int out, int n, bool bias, int r,
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
        double *want = allocate(all, sizeof *want);
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
static void check_forward_case(const struct format *f, int which, int i, int N, int in, int out,
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
    for (int f = ops_small() ? BF16 : 0; f < FORMATS; f++) {
        for (int i = 0; i < (int)(sizeof shape / sizeof *shape); i++) {
            const int N = shape[i][0], in = ops_width(shape[i][1]), out = ops_width(shape[i][2]),
                      r = in < rank[i % 4] ? 1 : rank[i % 4];
            if (ops_small() && N < 1000 && N * in * out > 50000)
                continue;
            for (int which = 0; which < 3; which++)
                if (!ops_small() || N < 20 || which == (f + i) % 3)
                    check_forward_case(&formats[f], which, i, N, in, out, r);
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
    for (int f = BF16; f <= BF16 + 1; f++) { /* llm.int8: below */
        const int in = f == BF16 + 1 ? 1112 : 616;
        const float dropout = f & 1 ? 0.25f : 0;
        struct layer y;
        layers_init(&y, 1, &formats[f], in, 24, true, 20, dropout);
        float *x = ops_random((int64_t)N * in, 2, 1.5f);
        const struct forward c = {&y, 1, N, x, {0, true, 7, &b}};
        float *got = ops_once(run_forward, (void *)(uintptr_t)&c, forward_bytes(&c), 2);
        double *want = allocate(N * 24, sizeof *want);
        reference_linear(want, &y.shape, y.rows, x, N, &c.pass);
        ops_close_acts(formats[f].name, got, want, N * 24, 1e-5);
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
    float *x = allocate(2 * in, sizeof *x);
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
    layers_init(y, 2, &formats[FORMATS - 1], in, ops_width(48), true, 4, 0);
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
        double *want = allocate((int64_t)N * out, sizeof *want);
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

/* --- backward --- */

struct backward {
    const struct layer *layer; /* [n] */
    int n;
    const float *dy[SIBLINGS], *x;
    const struct batch *b;
    struct linear_pass pass; /* its batch is b */
    bool no_dx;
    int64_t n_trained;
    float limit;
};

/* out: int64 sum [n_trained], overflow, dx [N][in] */
static void run_backward(struct backend *be, void *context, void *out)
{
    const struct backward *c = context;
    const struct batch b = ops_in_batch(be, c->b);
    const int64_t N = b.n_tokens, size = N * c->layer->shape.in;
    struct siblings s;
    siblings_put(be, &s, c->layer, c->n);
    const act_t *dy[SIBLINGS];
    for (int i = 0; i < c->n; i++)
        dy[i] = ops_in_acts(be, c->dy[i], N * s.linear[i].out);
    act_t *dx = c->no_dx ? NULL : ops_room_acts(be, size); /* written, not added to */
    struct grads g = ops_grads(be, c->n_trained, c->limit);
    struct linear_pass pass = c->pass;
    pass.batch = &b;
    be->ops->linear_backward(be, dx, s.address, dy, c->n, ops_in_acts(be, c->x, size), b.n_tokens,
                             &pass, &g);
    ops_out_grads(be, out, &g);
    if (dx)
        ops_out_acts(be, (float *)(void *)((int64_t *)out + c->n_trained + 1), dx, size);
}

static size_t backward_bytes(const struct backward *c)
{
    return (size_t)(c->n_trained + 1) * sizeof(int64_t) +
           (size_t)c->b->n_tokens * (size_t)c->layer->shape.in * sizeof(float);
}

/* |got - want| <= bound * the largest |want| */
static void check_gradient(const char *what, const double *got, const double *want, int64_t n,
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

/* Places the layers' gradients one after the other, from element 1; returns the number of elements. */
static int64_t place_gradients(struct layer *y, int n, bool masters)
{
    int64_t next = 1;
    for (int i = 0; i < n; i++) {
        struct linear *l = &y[i].shape;
        struct lora *a = &y[i].adapter;
        if (masters) {
            l->master = y[i].rows;
            l->offset_weight = next;
            next += (int64_t)l->out * l->in;
            l->offset_bias = l->bias ? next : -1;
            next += l->bias ? l->out : 0;
        }
        if (a->r) {
            a->offset_a = next;
            a->offset_b = next + (int64_t)a->r * l->in;
            next = a->offset_b + (int64_t)a->r * l->out;
        }
    }
    return next;
}

static void compare_backward(const struct backward *c, const int64_t *got)
{
    const int64_t size = (int64_t)c->b->n_tokens * c->layer->shape.in;
    const float *dx = (const float *)(const void *)(got + c->n_trained + 1);
    double *sum = allocate(c->n_trained, sizeof *sum), *want = allocate(c->n_trained, sizeof *want);
    double *dx_want = allocate(size, sizeof *dx_want), *dx_got = ops_double(dx, size);
    for (int64_t i = 0; i < c->n_trained; i++)
        sum[i] = (double)got[i] * 0x1p-48;
    const double rounded = ops_bound_acts(1e-5); /* A x and B^T dy may be held as activations */
    struct linear_pass pass = c->pass;
    pass.batch = c->b;
    for (int i = 0; i < c->n; i++) {
        const struct linear *l = &c->layer[i].shape;
        const struct lora *a = &c->layer[i].adapter;
        const struct reference_gradients to = {
            .dx = dx_want,
            .da = a->r ? want + a->offset_a : NULL,
            .db = a->r ? want + a->offset_b : NULL,
            .dw = l->master ? want + l->offset_weight : NULL,
            .dbias = l->master && l->bias ? want + l->offset_bias : NULL,
        };
        reference_linear_backward(&to, l, c->layer[i].rows, c->dy[i], c->x, c->b->n_tokens, &pass);
        if (to.dw)
            check_gradient("dW", sum + l->offset_weight, to.dw, (int64_t)l->out * l->in, 1e-5);
        if (to.dbias)
            check_gradient("dbias", sum + l->offset_bias, to.dbias, l->out, 1e-5);
        if (to.da)
            check_gradient("dA", sum + a->offset_a, to.da, (int64_t)a->r * l->in, rounded);
        if (to.db)
            check_gradient("dB", sum + a->offset_b, to.db, (int64_t)a->r * l->out, rounded);
    }
    if (!c->no_dx)
        check_gradient("dx", dx_got, dx_want, size, rounded);
    assert_int_equal(got[0], 0);            /* before the first gradient */
    assert_int_equal(got[c->n_trained], 0); /* overflow */
    free(sum);
    free(want);
    free(dx_want);
    free(dx_got);
}

/* Sequence by sequence, the last first: the same dx, and the same sums in all. */
static void check_sequences(const struct backward *c, const int64_t *got)
{
    const int64_t in = c->layer->shape.in;
    const float *dx = (const float *)(const void *)(got + c->n_trained + 1);
    int64_t *total = allocate(c->n_trained, sizeof *total);
    for (int s = c->b->n_seqs - 1; s >= 0; s--) {
        const int first = c->b->start[s], length = c->b->start[s + 1] - first;
        if (length == 0) /* no batch of its own */
            continue;
        struct batch one = ops_batch(&length, 1), named = one;
        named.sample = c->b->sample + s;
        struct backward alone = *c;
        alone.b = &named;
        alone.x = c->x + first * in;
        for (int i = 0; i < c->n; i++)
            alone.dy[i] = c->dy[i] + (int64_t)first * c->layer[i].shape.out;
        int64_t *part = ops_once(run_backward, &alone, backward_bytes(&alone), 2);
        assert_memory_equal(part + c->n_trained + 1, dx + first * in,
                            (size_t)(length * in) * sizeof *dx);
        for (int64_t i = 0; i < c->n_trained; i++)
            total[i] += part[i];
        free(part);
        ops_batch_free(&one);
    }
    assert_memory_equal(total, got, (size_t)c->n_trained * sizeof *total);
    free(total);
}

static void check_backward(const struct format *f, const int *length, int in, int out, int n,
                           bool masters, int r, float dropout, bool no_dx)
{
    struct batch b = ops_batch(length, 4);
    struct layer y[SIBLINGS];
    layers_init(y, n, f, in, out, true, r, dropout);
    const int64_t N = b.n_tokens;
    const int64_t widest = ops_width(2 * out + 3);
    float *x = ops_random(N * in, 31, 1), *dy = ops_random(N * 3 * widest, 32, 1);
    struct backward c = {.layer = y,
                         .n = n,
                         .x = x,
                         .b = &b,
                         .pass = {r ? 0 : -1, dropout > 0, 11, NULL},
                         .no_dx = no_dx,
                         .n_trained = place_gradients(y, n, masters),
                         .limit = 4096};
    for (int i = 0; i < n; i++)
        c.dy[i] = dy + N * i * widest;
    int64_t *got = ops_same_bits(run_backward, &c, backward_bytes(&c));
    compare_backward(&c, got);
    check_sequences(&c, got);
    free(got);
    free(x);
    free(dy);
    for (int i = 0; i < n; i++)
        layer_free(&y[i]);
    ops_batch_free(&b);
}

static void test_backward(void **state)
{
    (void)state;
    static const int length[] = {5, 1, 0, 19}, many[] = {700, 1, 0, 330};
    static const int shape[][2] = {{1, 1},    {7, 5},    {33, 17}, {96, 48},
                                   {65, 600}, {513, 31}, {24, 40}};
    for (int f = ops_small() ? BF16 : 0; f < FORMATS; f++) {
        const bool masters = formats[f].dtype == DTYPE_F32 && ops_trains_weights(),
                   floating = formats[f].dtype != DTYPE_I8;
        for (int i = 0; i < 7; i++) {
            const int in = ops_width(shape[i][0]), out = ops_width(shape[i][1]), r = in < 8 ? 1 : 4;
            if (ops_small() && in * out > 5000)
                continue;
            check_backward(&formats[f], length, in, out, 1 + i % 3, false, r, 0, i == 4);
            check_backward(&formats[f], length, in, out, 1 + (i + 1) % 3, false, r, 0.25f, i == 3);
            check_backward(&formats[f], length, in, out, 1 + (i + 2) % 3, masters,
                           floating && i % 2 ? r : 0, 0, i == 5);
        }
        check_backward(&formats[f], many, 16, 8, 1, false, 4, f % 2 ? 0.25f : 0, false);
    }
}

/* The same of gradients: a sequence has the same among any others. Outputs of several blocks. */
static void test_backward_by_number_of_rows(void **state)
{
    (void)state;
    static const int length[] = {700, 1, 0, 329};
    check_backward(&formats[BF16], length, 72, 616, 2, false, 20, 0, false);
    check_backward(&formats[BF16], length, 72, 1112, 1, false, 1, 0.25f, false);
    check_backward(&formats[BF16 + 1], length, 136, 616, 1, false, 16, 0, false);
    check_backward(&formats[BF16 + 1], length, 40, 104, 3, false, 20, 0.25f, false);
}

/* A contribution of the limit's size or not finite is left out, and the lowest such element named. */
static void test_backward_refuses_large_contributions(void **state)
{
    (void)state;
    enum { IN = 20, OUT = 18, N = 2 };
    static const int length[] = {1, 1};
    if (!ops_trains_weights())
        skip();
    struct batch b = ops_batch(length, 2);
    struct layer y;
    layer_init(&y, OUT, IN, DTYPE_F32, MATMUL_PLAIN, true, 0, 1);
    const int64_t n_trained = place_gradients(&y, 1, true), weight = y.shape.offset_weight,
                  bias = y.shape.offset_bias;
    float x[N * IN], dy[N * OUT] = {0};
    for (int i = 0; i < N * IN; i++)
        x[i] = 1;
    const struct {
        float value; /* of the first sequence's dy[12], and of the second's dy[15] */
        float at;    /* x[7] of the first sequence */
        int64_t refused;
    } cases[] = {
        {7.99f, 1, 0},
        {8, 1, 1 + weight + 12 * IN}, /* all of output 12, and bias 12 */
        {-8, 1, 1 + weight + 12 * IN},
        {1, 8, 1 + weight + 12 * IN + 7},  /* one element */
        {1, NAN, 1 + weight + 0 * IN + 7}, /* 0 * NaN: of every output */
        {INFINITY, 1, 1 + weight + 12 * IN},
        {NAN, 1, 1 + weight + 12 * IN},
    };
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        dy[12] = cases[i].value;
        dy[OUT + 15] = cases[i].value;
        x[7] = cases[i].at;
        struct backward c = {.layer = &y,
                             .n = 1,
                             .dy = {dy},
                             .x = x,
                             .b = &b,
                             .pass = {.adapter = -1},
                             .n_trained = n_trained,
                             .limit = 8};
        int64_t *got = ops_same_bits(run_backward, &c, backward_bytes(&c));
        assert_int_equal(got[n_trained], cases[i].refused);
        for (int k = 0; k < IN; k++) {
            const bool refused = !(fabsf(cases[i].value * (k == 7 ? cases[i].at : 1)) < 8);
            const double want = refused ? 0 : (double)cases[i].value * (k == 7 ? cases[i].at : 1);
            assert_true((double)got[weight + 12 * IN + k] == want * 0x1p48);
        }
        const double want = fabsf(cases[i].value) < 8 ? cases[i].value : 0;
        assert_true((double)got[bias + 15] == want * 0x1p48);
        free(got);
    }
    layer_free(&y);
    ops_batch_free(&b);
}

/* Adds a contribution as the accumulators do; returns whether it was refused. */
static bool contribute(double *sum, float value, float limit)
{
    if (!(fabsf(value) < limit))
        return true;
    *sum += value;
    return false;
}

/* The same of an adapter, A of 1/8 and B of 1/4: h = A x is 3 where x is all ones. */
static void test_backward_refuses_large_contributions_of_adapters(void **state)
{
    (void)state;
    enum { IN = 24, OUT = 16, N = 2 };
    static const int length[] = {1, 1};
    static const struct {
        float value; /* of the first sequence's dy[12], and of the second's dy[15] */
        float at;    /* x[7] of the first sequence */
    } cases[] = {{2, 1}, {4, 1}, {40, 1}, {8, 8}, {1, NAN}, {INFINITY, 1}, {NAN, 1}};
    struct batch b = ops_batch(length, 2);
    struct layer y;
    layer_init(&y, OUT, IN, DTYPE_F32, MATMUL_PLAIN, false, 1, 1);
    y.adapter.scale = 1;
    const int64_t n_trained = place_gradients(&y, 1, false), A = y.adapter.offset_a,
                  B = y.adapter.offset_b;
    for (int k = 0; k < IN; k++)
        y.adapter.a[k] = 0.125f;
    for (int o = 0; o < OUT; o++)
        y.adapter.b[o] = 0.25f;
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        float x[N * IN], dy[N * OUT] = {0};
        for (int k = 0; k < N * IN; k++)
            x[k] = 1;
        dy[12] = dy[OUT + 15] = cases[i].value;
        x[7] = cases[i].at;
        struct backward c = {.layer = &y,
                             .n = 1,
                             .dy = {dy},
                             .x = x,
                             .b = &b,
                             .pass = {.adapter = 0},
                             .n_trained = n_trained,
                             .limit = 8};
        int64_t *got = ops_same_bits(run_backward, &c, backward_bytes(&c));
        double *want = allocate(n_trained, sizeof *want);
        int64_t refused = 0;
        for (int64_t j = n_trained - 1; j >= A; j--) {
            for (int n = 0; n < N; n++) {
                float h = 0, dh = 0;
                for (int k = 0; k < IN; k++)
                    h += 0.125f * x[n * IN + k];
                for (int o = 0; o < OUT; o++)
                    dh += 0.25f * dy[n * OUT + o];
                const float value = j >= B ? dy[n * OUT + (j - B)] * h : dh * x[n * IN + (j - A)];
                if (contribute(&want[j], value, 8))
                    refused = 1 + j;
            }
            assert_true((double)got[j] == want[j] * 0x1p48);
        }
        assert_int_equal(got[n_trained], refused);
        free(got);
        free(want);
    }
    layer_free(&y);
    ops_batch_free(&b);
}

/* The reference's gradients are its forward's central differences. */
static void test_reference_slope(void **state)
{
    (void)state;
    enum { IN = 6, OUT = 4, N = 3, R = 2 };
    static const int length[] = {N};
    struct batch b = ops_batch(length, 1);
    struct layer y;
    layer_init(&y, OUT, IN, DTYPE_F32, MATMUL_PLAIN, true, R, 1);
    y.adapter.dropout = 0.3f;
    const struct linear_pass pass = {0, true, 2, &b};
    float *x = ops_random(N * IN, 2, 1), *dy = ops_random(N * OUT, 3, 1);
    double dx[N * IN] = {0}, da[R * IN] = {0}, db[R * OUT] = {0}, dw[OUT * IN] = {0},
                  dbias[OUT] = {0};
    const struct reference_gradients to = {dx, da, db, dw, dbias};
    reference_linear_backward(&to, &y.shape, y.rows, dy, x, N, &pass);
    const struct {
        float *at;
        const double *gradient;
        int n;
    } part[] = {{x, dx, N * IN},
                {y.adapter.a, da, R * IN},
                {y.adapter.b, db, R * OUT},
                {y.rows, dw, OUT * IN},
                {y.shape.bias, dbias, OUT}};
    for (int p = 0; p < 5; p++) {
        for (int i = 0; i < part[p].n; i++) {
            float *at = &part[p].at[i], middle = *at;
            double value[2][N * OUT], slope = 0, step[2];
            for (int side = 0; side < 2; side++) {
                *at = middle + (side ? 0x1p-7f : -0x1p-7f);
                step[side] = *at;
                reference_linear(value[side], &y.shape, y.rows, x, N, &pass);
            }
            *at = middle;
            for (int j = 0; j < N * OUT; j++)
                slope += dy[j] * (value[1][j] - value[0][j]) / (step[1] - step[0]);
            assert_true(fabs(slope - part[p].gradient[i]) < 1e-10 * (1 + fabs(slope)));
        }
    }
    free(x);
    free(dy);
    layer_free(&y);
    ops_batch_free(&b);
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
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_backward_by_number_of_rows),
        cmocka_unit_test(test_backward_refuses_large_contributions),
        cmocka_unit_test(test_backward_refuses_large_contributions_of_adapters),
        cmocka_unit_test(test_reference_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
