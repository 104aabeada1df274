/* linear_backward against float64, and their bits by rows, order, batches and how they
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
    layers_put(be, &s, c->layer, c->n);
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
    double *sum = ops_allocate(c->n_trained, sizeof *sum), *want = ops_allocate(c->n_trained, sizeof *want);
    double *dx_want = ops_allocate(size, sizeof *dx_want), *dx_got = ops_double(dx, size);
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
            ops_close_largest("dW", sum + l->offset_weight, to.dw, (int64_t)l->out * l->in, 1e-5);
        if (to.dbias)
            ops_close_largest("dbias", sum + l->offset_bias, to.dbias, l->out, 1e-5);
        if (to.da)
            ops_close_largest("dA", sum + a->offset_a, to.da, (int64_t)a->r * l->in, rounded);
        if (to.db)
            ops_close_largest("dB", sum + a->offset_b, to.db, (int64_t)a->r * l->out, rounded);
    }
    if (!c->no_dx)
        ops_close_largest("dx", dx_got, dx_want, size, rounded);
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
    int64_t *total = ops_allocate(c->n_trained, sizeof *total);
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

static void check_backward(const struct layer_format *f, const int *length, int in, int out, int n,
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
    for (int f = ops_small() ? LAYER_BF16 : 0; f < LAYER_FORMATS; f++) {
        const bool masters = layer_formats[f].dtype == DTYPE_F32 && ops_trains_weights(),
                   floating = layer_formats[f].dtype != DTYPE_I8;
        for (int i = 0; i < 7; i++) {
            const int in = ops_width(shape[i][0]), out = ops_width(shape[i][1]), r = in < 8 ? 1 : 4;
            if (ops_small() && in * out > 5000)
                continue;
            check_backward(&layer_formats[f], length, in, out, 1 + i % 3, false, r, 0, i == 4);
            check_backward(&layer_formats[f], length, in, out, 1 + (i + 1) % 3, false, r, 0.25f, i == 3);
            check_backward(&layer_formats[f], length, in, out, 1 + (i + 2) % 3, masters,
                           floating && i % 2 ? r : 0, 0, i == 5);
        }
        check_backward(&layer_formats[f], many, 16, 8, 1, false, 4, f % 2 ? 0.25f : 0, false);
    }
}

/* The same of gradients: a sequence has the same among any others. Outputs of several blocks. */
static void test_backward_by_number_of_rows(void **state)
{
    (void)state;
    static const int length[] = {700, 1, 0, 329};
    check_backward(&layer_formats[LAYER_BF16], length, 72, 616, 2, false, 20, 0, false);
    check_backward(&layer_formats[LAYER_BF16], length, 72, 1112, 1, false, 1, 0.25f, false);
    check_backward(&layer_formats[LAYER_BF16 + 1], length, 136, 616, 1, false, 16, 0, false);
    check_backward(&layer_formats[LAYER_BF16 + 1], length, 40, 104, 3, false, 20, 0.25f, false);
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
        double *want = ops_allocate(n_trained, sizeof *want);
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
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_backward_by_number_of_rows),
        cmocka_unit_test(test_backward_refuses_large_contributions),
        cmocka_unit_test(test_backward_refuses_large_contributions_of_adapters),
        cmocka_unit_test(test_reference_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
