/* norm_forward and norm_backward against float64, and their bits by rows, order and how they are run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/ops_check.h"
#include "support/reference_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct forward {
    int N, H;
    const float *x, *add1, *add2;
    const struct norm *n1, *n2;
    bool in_place;
};

static struct norm norm_in(struct backend *be, const struct norm *n, int H)
{
    struct norm in = *n;
    in.weight = ops_in(be, n->weight, (size_t)H * sizeof *n->weight);
    in.bias = ops_in(be, n->bias, (size_t)H * sizeof *n->bias);
    return in;
}

/* out: y1, y2, sum, sum by add, each [N][H] */
static void run_forward(struct backend *be, void *context, void *out)
{
    const struct forward *c = context;
    const int64_t all = (int64_t)c->N * c->H;
    const act_t *add1 = ops_in_acts(be, c->add1, all), *add2 = ops_in_acts(be, c->add2, all);
    act_t *x = ops_in_acts(be, c->x, all), *y1 = ops_room_acts(be, all), *y2 = NULL,
          *sum = c->in_place ? x : ops_room_acts(be, all);
    struct norm n1 = norm_in(be, c->n1, c->H), n2;
    if (c->n2) {
        n2 = norm_in(be, c->n2, c->H);
        y2 = ops_room_acts(be, all);
    }
    be->ops->norm_forward(be, y1, y2, sum, x, add1, add2, &n1, c->n2 ? &n2 : NULL, c->N, c->H);
    float *y = out;
    ops_out_acts(be, y, y1, all);
    if (y2)
        ops_out_acts(be, y + all, y2, all);
    ops_out_acts(be, y + 2 * all, sum, all);
    x = ops_in_acts(be, c->x, all);
    if (c->add1) {
        sum = c->in_place ? x : ops_room_acts(be, all);
        be->ops->add(be, sum, x, add1, add2, c->N, c->H);
    }
    ops_out_acts(be, y + 3 * all, sum, all);
}

struct norms {
    float *values; /* weight and bias of both */
    struct norm n1, n2;
};

static struct norms norms_of(enum norm_kind kind, int H, bool bias, float eps2)
{
    struct norms n = {.values = ops_random(4 * (int64_t)H, 7, 1)};
    n.n1 = (struct norm){kind, 1e-5f, n.values, bias ? n.values + H : NULL, -1, -1};
    n.n2 = (struct norm){kind, eps2, n.values + 2 * H, bias ? n.values + 3 * H : NULL, -1, -1};
    return n;
}

static void check_forward(enum norm_kind kind, int N, int H, int adds, bool two)
{
    const int64_t all = (int64_t)N * H;
    struct norms n = norms_of(kind, H, kind == NORM_LAYER, adds ? 1e-5f : 1e-3f);
    float *x = ops_random(all, 1, 3), *add = ops_random(2 * all, 2, 1);
    struct forward c = {
        N,    H, x, adds > 0 ? add : NULL, adds > 1 ? add + all : NULL, &n.n1, two ? &n.n2 : NULL,
        false};
    float *got = ops_same_bits(run_forward, &c, (size_t)all * 4 * sizeof *got);

    double *sum = malloc((size_t)H * sizeof *sum), *y = malloc((size_t)H * sizeof *y);
    for (int64_t row = 0; row < N; row++) {
        for (int i = 0; i < H; i++) {
            float s = x[row * H + i];
            s = adds > 0 ? s + add[row * H + i] : s;
            s = adds > 1 ? s + add[all + row * H + i] : s;
            sum[i] = s = ops_exact(s);
            assert_true(got[2 * all + row * H + i] == s && got[3 * all + row * H + i] == s);
        }
        reference_norm(y, sum, &n.n1, H);
        ops_close_acts("y1", got + row * H, y, H, 1e-5);
        reference_norm(y, sum, &n.n2, H);
        if (two)
            ops_close_acts("y2", got + all + row * H, y, H, 1e-5);
    }

    /* each row alone, from the last to the first */
    for (int64_t row = N - 1; row >= 0 && row >= N - 5; row--) {
        struct forward one = {1,
                              H,
                              x + row * H,
                              adds > 0 ? add + row * H : NULL,
                              adds > 1 ? add + all + row * H : NULL,
                              &n.n1,
                              c.n2,
                              true};
        float *alone = ops_once(run_forward, &one, (size_t)H * 4 * sizeof *alone, 2);
        assert_memory_equal(alone, got + row * H, (size_t)H * sizeof *alone);
        if (two)
            assert_memory_equal(alone + H, got + all + row * H, (size_t)H * sizeof *alone);
        free(alone);
    }
    free(x);
    free(add);
    free(got);
    free(sum);
    free(y);
    free(n.values);
}

static void test_forward(void **state)
{
    (void)state;
    /* widths of every share of a row that CUDA gives to a thread; the last two are large */
    static const int shape[][2] = {{1, 1},    {3, 7},    {2, 16},    {3, 24},   {5, 33},
                                   {4, 136},  {130, 64}, {3, 392},   {5, 1000}, {2, 2050},
                                   {2, 4104}, {1, 8200}, {1, 16392}, {90, 768}, {3, 6144}};
    for (int i = 0; i < (ops_small() ? 13 : 15); i++) {
        const int N = shape[i][0], H = ops_width(shape[i][1]);
        for (int adds = 0; adds < 3; adds++) {
            check_forward(NORM_LAYER, N, H, adds, adds != 1);
            check_forward(NORM_RMS, N, H, adds, adds != 2);
        }
    }
}

struct backward {
    int H;
    const float *dx, *dy1, *dy2, *x;
    const struct norm *n1, *n2;
    const struct batch *b;
    int64_t n_trained;
    float limit;
};

/* out: int64 sum [n_trained], overflow, dx [N][H] */
static void run_backward(struct backend *be, void *context, void *out)
{
    const struct backward *c = context;
    const int64_t all = (int64_t)c->b->n_tokens * c->H;
    const struct batch b = ops_in_batch(be, c->b);
    const struct norm n1 = norm_in(be, c->n1, c->H),
                      n2 = c->n2 ? norm_in(be, c->n2, c->H) : (struct norm){0};
    struct grads g = ops_grads(be, c->n_trained, c->limit);
    act_t *dx = ops_in_acts(be, c->dx, all);
    be->ops->norm_backward(be, dx, ops_in_acts(be, c->dy1, all), ops_in_acts(be, c->dy2, all),
                           ops_in_acts(be, c->x, all), &n1, c->n2 ? &n2 : NULL, c->H, &g, &b);
    ops_out_grads(be, out, &g);
    ops_out_acts(be, (float *)(void *)((int64_t *)out + c->n_trained + 1), dx, all);
}

static void check_backward(enum norm_kind kind, const int *length, int n_seqs, int H, bool two,
                           bool trained)
{
    struct batch b = ops_batch(length, n_seqs);
    const int64_t all = (int64_t)b.n_tokens * H, n_trained = trained ? 4 * (int64_t)H : 0;
    struct norms n = norms_of(kind, H, kind == NORM_LAYER, 1e-3f);
    if (trained) {
        n.n1.offset_weight = 0;
        n.n1.offset_bias = H;
        n.n2.offset_weight = 2 * H;
        n.n2.offset_bias = 3 * H;
    }
    float *v = ops_random(4 * all, 3, 1);
    struct backward c = {
        H,  v,         v + all, two ? v + 2 * all : NULL, v + 3 * all, &n.n1, two ? &n.n2 : NULL,
        &b, n_trained, 64};
    const size_t bytes = (size_t)(n_trained + 1) * 8 + (size_t)all * 4;
    int64_t *got = ops_same_bits(run_backward, &c, bytes);
    float *dx = (float *)(void *)(got + n_trained + 1);

    double *dy = ops_double(v, 4 * all), *want = ops_double(v, all),
           *dw = calloc((size_t)H * 4, sizeof *dw);
    for (int64_t row = 0; row < b.n_tokens; row++) {
        const double *x = dy + 3 * all + row * H;
        reference_norm_backward(want + row * H, dw, dw + H, dy + all + row * H, x, &n.n1, H);
        if (two)
            reference_norm_backward(want + row * H, dw + 2 * H, dw + 3 * H, dy + 2 * all + row * H,
                                    x, &n.n2, H);
    }
    /* of few columns, dx is a small difference of large terms */
    ops_close_acts("dx", dx, want, all, H < 16 ? 1e-4 : 1e-5);
    if (trained) {
        float *sums = malloc((size_t)H * 4 * sizeof *sums);
        for (int i = 0; i < 4 * H; i++) {
            const bool bias = i / H % 2 == 1;
            sums[i] = (float)((double)got[i] * 0x1p-48);
            if (bias && kind == NORM_RMS)
                assert_int_equal(got[i], 0);
            dw[i] = bias && kind == NORM_RMS ? 0 : dw[i];
        }
        ops_close("dweight, dbias", sums, dw, 4 * H, 2e-5);
        assert_int_equal(got[n_trained], 0);
        free(sums);
    }

    /* sequence by sequence, the last first: same dx, same sums */
    int64_t *total = calloc((size_t)n_trained + 1, sizeof *total);
    for (int s = n_seqs - 1; s >= 0; s--) {
        struct batch one = ops_batch(length + s, 1);
        const int64_t at = (int64_t)b.start[s] * H, size = (int64_t)length[s] * H;
        struct backward alone = c;
        alone.b = &one;
        alone.dx = c.dx + at;
        alone.dy1 = c.dy1 + at;
        alone.dy2 = two ? c.dy2 + at : NULL;
        alone.x = c.x + at;
        int64_t *part =
            ops_once(run_backward, &alone, (size_t)(n_trained + 1) * 8 + (size_t)size * 4, 2);
        assert_memory_equal(part + n_trained + 1, dx + at, (size_t)size * 4);
        for (int64_t i = 0; i < n_trained; i++)
            total[i] += part[i];
        free(part);
        ops_batch_free(&one);
    }
    assert_memory_equal(total, got, (size_t)n_trained * 8);
    free(total);
    free(v);
    free(got);
    free(dy);
    free(want);
    free(dw);
    free(n.values);
    ops_batch_free(&b);
}

static void test_backward(void **state)
{
    (void)state;
    static const int widths[] = {1, 7, 16, 24, 33, 64, 136, 392, 1000, 2050, 4104, 8200, 16392};
    static const int many[] = {5, 1, 40, 17}, few[] = {2, 1};
    for (int i = 0; i < 13; i++) {
        const int H = ops_width(widths[i]), *length = H < 200 ? many : few;
        for (int mode = 0; mode < (ops_trains_weights() ? 4 : 2); mode++) {
            check_backward(NORM_LAYER, length, H < 200 ? 4 : 2, H, mode & 1, mode & 2);
            check_backward(NORM_RMS, length, H < 200 ? 4 : 2, H, mode & 1, mode & 2);
        }
    }
}

/* The reference's derivative is its forward's central difference. */
static void test_reference_slope(void **state)
{
    (void)state;
    enum { H = 11 };
    for (int kind = NORM_LAYER; kind <= NORM_RMS; kind++) {
        struct norms n = norms_of(kind, H, true, 1e-5f);
        float *v = ops_random(2 * H, 9, 1);
        double *x = ops_double(v, 2 * H), *dy = x + H, dx[H] = {0}, rest[2 * H] = {0}, y[2][H];
        reference_norm_backward(dx, rest, rest + H, dy, x, &n.n1, H);
        for (int i = 0; i < H; i++) {
            const double middle = x[i], step = 1e-6;
            double slope = 0;
            x[i] = middle + step;
            reference_norm(y[0], x, &n.n1, H);
            x[i] = middle - step;
            reference_norm(y[1], x, &n.n1, H);
            x[i] = middle;
            for (int j = 0; j < H; j++)
                slope += dy[j] * (y[0][j] - y[1][j]) / (2 * step);
            assert_true(fabs(slope - dx[i]) < 1e-7 * (1 + fabs(slope)));
        }
        free(v);
        free(x);
        free(n.values);
    }
}

/* A contribution at the limit or not finite is left out and named by the lowest index. */
static void test_backward_refuses_large_contributions(void **state)
{
    (void)state;
    enum { H = 40 };
    if (!ops_trains_weights())
        skip();
    const int length[] = {2, 3};
    struct batch b = ops_batch(length, 2);
    struct norms n = norms_of(NORM_LAYER, H, true, 1e-5f);
    n.n1.offset_weight = 10;
    n.n1.offset_bias = 10 + H;
    float *v = ops_random(3 * 5 * H, 5, 1);
    float *dy = v + 5 * H;
    dy[3 * H + 21] = 100;      /* second sequence: bias 21, and perhaps weight 21 */
    dy[0 * H + 33] = INFINITY; /* first sequence */
    struct backward c = {H, v, dy, NULL, v + 10 * H, &n.n1, NULL, &b, 10 + 2 * H, 50};
    int64_t *got = ops_same_bits(run_backward, &c, (10 + 2 * H + 1) * 8 + 5 * H * 4);
    const int64_t overflow = got[10 + 2 * H];
    assert_true(overflow == 1 + 10 + 21 || overflow == 1 + 10 + 33);
    float first = 0;
    for (int row = 0; row < 2; row++)
        first += dy[row * H + 21];
    assert_true(got[10 + H + 21] ==
                (int64_t)((double)first * 0x1p48)); /* only the first sequence's */
    free(got);
    free(v);
    free(n.values);
    ops_batch_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_reference_slope),
        cmocka_unit_test(test_backward_refuses_large_contributions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
