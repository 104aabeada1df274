/* The head against float64: log-probabilities and the way back; their bits by rows, batches and how they are run. */
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

/* A head of V tokens over H inputs. */
static void head_init(struct layer *y, int V, int H, enum dtype dtype, float scale)
{
    layer_init(y, V, H, dtype, MATMUL_PLAIN, false, 0, 3);
    for (int64_t i = 0; i < (int64_t)V * H; i++)
        y->rows[i] *= scale;
}

/* z [V] of one row */
static void reference_logits(double *z, const struct layer *y, const float *x)
{
    const struct linear_pass pass = {.adapter = -1};
    reference_linear(z, &y->shape, y->rows, x, 1, &pass);
}

/* --- log-probabilities --- */

struct logprob {
    const struct layer *head;
    const float *x; /* [N][H] */
    int N;
    struct head_rows rows;
    float temperature;
};

static struct head_rows rows_in(struct backend *be, const struct head_rows *rows)
{
    const size_t bytes = (size_t)rows->n * sizeof(int32_t);
    return (struct head_rows){rows->n, ops_in(be, rows->row, bytes),
                              ops_in(be, rows->target, bytes)};
}

/* out: logprob, entropy, lse [n] each, logits [n][V] */
static void run_logprob(struct backend *be, void *context, void *out)
{
    const struct logprob *c = context;
    const int n = c->rows.n, H = c->head->shape.in;
    const size_t logits_bytes = (size_t)n * (size_t)c->head->shape.out * sizeof(float);
    const struct head_rows rows = rows_in(be, &c->rows);
    const act_t *x = ops_in_acts(be, c->x, (int64_t)c->N * H);
    float *y = ops_room(be, (size_t)n * 3 * sizeof *y), *logits = ops_room(be, logits_bytes);
    struct linear head;
    layer_put(be, &head, NULL, c->head);
    be->ops->head_logprob(be, y, y + n, y + 2 * n, NULL, &head, x, H, &rows, c->temperature);
    be->ops->head_logits(be, logits, &head, x, H, &rows);
    ops_out(be, out, y, (size_t)n * 3 * sizeof *y);
    ops_out(be, (float *)out + 3 * n, logits, logits_bytes);
}

static void check_logprob(int V, int H, int N, int n, enum dtype dtype, float temperature)
{
    struct layer head;
    head_init(&head, V, H, dtype, 3);
    float *x = ops_random((int64_t)N * H, 2, 1);
    int32_t *row = ops_allocate(n, sizeof *row), *target = ops_allocate(n, sizeof *target);
    for (int i = 0; i < n; i++) {
        row[i] = i * 7 % N;
        target[i] = i == 0 ? V - 1 : i * 13 % V;
    }
    struct logprob c = {&head, x, N, {n, row, target}, temperature};
    float *got = ops_same_bits(run_logprob, &c, (size_t)n * (3 + (size_t)V) * sizeof *got);

    double *z = ops_allocate(V, sizeof *z);
    for (int i = 0; i < n; i++) {
        reference_logits(z, &head, x + (int64_t)row[i] * H);
        ops_close("logits", got + 3 * n + (int64_t)i * V, z, V, 1e-5);
        const struct reference_statistics want = reference_head(z, V, target[i], temperature);
        double largest = 0; /* the logits' size is the error's scale */
        for (int v = 0; v < V; v++)
            largest = fmax(largest, fabs(z[v]) / temperature);
        const double bound = 2e-6 * (largest + log(V) + 0.1);
        assert_true(fabs(got[i] - want.logprob) <= bound);
        assert_true(fabs(got[n + i] - want.entropy) <= bound * (1 + largest));
        assert_true(fabs(got[2 * n + i] - want.lse) <= bound);

        struct logprob one = c;
        one.rows = (struct head_rows){1, row + i, target + i};
        float *alone = ops_once(run_logprob, &one, (3 + (size_t)V) * sizeof *alone, 2);
        for (int j = 0; j < 3; j++)
            assert_memory_equal(&alone[j], &got[j * n + i], sizeof *alone);
        assert_memory_equal(alone + 3, got + 3 * n + (int64_t)i * V, (size_t)V * sizeof *alone);
        free(alone);
    }
    free(z);
    free(row);
    free(target);
    free(x);
    free(got);
    layer_free(&head);
}

static void test_logprob(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int t = 0; t < 3; t++) {
        check_logprob(1, ops_width(1), 1, 1, types[t], 1);
        check_logprob(2, ops_width(7), 3, 4, types[t], 1);
        check_logprob(33, ops_width(20), 9, 5, types[t], 0.7f);
        check_logprob(50, 16, 10, ops_small() ? 20 : 130, types[t],
                      1); /* more than are done at once */
        check_logprob(515, 40, 4, 3, types[t], 1.3f);
        if (!ops_small())
            check_logprob(1003, 520, 4, 3, types[t], 1.3f);
    }
    if (!ops_small())
        check_logprob(20011, 136, 2, 2, DTYPE_BF16, 1);
}

/* A backend may multiply few rows by other kernels than many: a row has the same bits among any number. */
static void test_logprob_by_number_of_rows(void **state)
{
    (void)state;
    enum { N = 600, V = 51, H = 40 };
    static const int number[] = {1, 9, 17, 33, 65, 130};
    struct layer head;
    head_init(&head, V, H, DTYPE_BF16, 3);
    float *x = ops_random(N * H, 2, 1);
    int32_t row[N], target[N];
    for (int i = 0; i < N; i++) {
        row[i] = N - 1 - i;
        target[i] = i * 13 % V;
    }
    struct logprob c = {&head, x, N, {N, row, target}, 0.9f};
    float *all = ops_once(run_logprob, &c, N * (3 + V) * sizeof *all, 2);
    for (int i = 0; i < (int)(sizeof number / sizeof *number); i++) {
        const int n = number[i];
        c.rows.n = n;
        float *got = ops_once(run_logprob, &c, (size_t)n * (3 + V) * sizeof *got, 2);
        for (int j = 0; j < 3; j++)
            assert_memory_equal(got + j * n, all + j * N, (size_t)n * sizeof *got);
        assert_memory_equal(got + 3 * n, all + 3 * N, (size_t)n * V * sizeof *got);
        free(got);
    }
    free(all);
    free(x);
    layer_free(&head);
}

/* Logits far apart: one token has it all, the entropy is 0. */
static void test_logprob_of_a_sure_row(void **state)
{
    (void)state;
    enum { V = 40 };
    static const int32_t row[] = {0, 0}, target[] = {17, 3};
    const int H = ops_width(1);
    struct layer head;
    head_init(&head, V, H, DTYPE_F32, 0);
    for (int v = 0; v < V; v++)
        head.rows[v * H] = v == 17 ? 500 : -500;
    float *x = ops_allocate(H, sizeof *x);
    x[0] = 1;
    struct logprob c = {&head, x, 1, {2, row, target}, 1};
    float *got = ops_same_bits(run_logprob, &c, 2 * (3 + V) * sizeof *got);
    assert_true(got[0] == 0);
    assert_true(got[1] == -1000);
    assert_true(got[2] == 0 && got[3] == 0);
    assert_true(got[4] == 500 && got[5] == 500);
    free(got);
    free(x);
    layer_free(&head);
}

/* --- log-probabilities, backward --- */

struct backward {
    const struct layer *head;
    const float *x, *dx, *dlogprob, *dentropy;
    struct head_rows rows;
    float temperature;
    const struct batch *b;
    int64_t n_trained;
    float limit;
    bool by_slope; /* by the slopes that the forward pass kept */
};

/* out: int64 sum [n_trained], overflow, dx [N][H] */
static void run_backward(struct backend *be, void *context, void *out)
{
    const struct backward *c = context;
    const int n = c->rows.n, H = c->head->shape.in;
    const int64_t size = (int64_t)c->b->n_tokens * H;
    const size_t bytes = (size_t)n * sizeof(float);
    const struct batch b = ops_in_batch(be, c->b);
    const struct head_rows rows = rows_in(be, &c->rows);
    const float *dlogprob = ops_in(be, c->dlogprob, bytes),
                *dentropy = ops_in(be, c->dentropy, bytes);
    const act_t *x = ops_in_acts(be, c->x, size);
    act_t *dx = ops_in_acts(be, c->dx, size),
          *slope = c->by_slope ? ops_room_acts(be, (int64_t)n * H) : NULL;
    float *logprob = ops_room(be, bytes), *entropy = ops_room(be, bytes),
          *lse = ops_room(be, bytes);
    struct linear head;
    layer_put(be, &head, NULL, c->head);
    struct grads g = ops_grads(be, c->n_trained, c->limit);
    be->ops->head_logprob(be, logprob, entropy, lse, slope, &head, x, H, &rows, c->temperature);
    if (slope)
        be->ops->head_slope_backward(be, dx, dlogprob, slope, H, &rows);
    else
        be->ops->head_logprob_backward(be, dx, dlogprob, dentropy, lse, entropy, &head, x, H, &rows,
                                       c->temperature, &g, &b);
    ops_out_grads(be, out, &g);
    ops_out_acts(be, (float *)(void *)((int64_t *)out + c->n_trained + 1), dx, size);
}

static size_t backward_bytes(const struct backward *c)
{
    return (size_t)(c->n_trained + 1) * sizeof(int64_t) +
           (size_t)c->b->n_tokens * (size_t)c->head->shape.in * sizeof(float);
}

static void compare_backward(const struct backward *c, const int64_t *got)
{
    const int V = c->head->shape.out, H = c->head->shape.in;
    const int64_t size = (int64_t)c->b->n_tokens * H, weights = (int64_t)V * H;
    const float *dx = (const float *)(const void *)(got + c->n_trained + 1);
    double *dx_want = ops_double(c->dx, size), *dx_got = ops_double(dx, size);
    double *dw = ops_allocate(weights, sizeof *dw), *dw_got = ops_allocate(weights, sizeof *dw_got);
    double *z = ops_allocate(2 * V, sizeof *z), *dz = z + V, *w = ops_allocate(weights, sizeof *w);
    reference_weights(w, &c->head->shape, c->head->rows);
    for (int i = 0; i < c->rows.n; i++) {
        const int64_t row = c->rows.row[i];
        reference_logits(z, c->head, c->x + row * H);
        reference_head_backward(dz, z, V, c->rows.target[i], c->temperature, c->dlogprob[i],
                                c->dentropy ? c->dentropy[i] : 0);
        for (int64_t v = 0; v < V; v++) {
            for (int k = 0; k < H; k++) {
                dx_want[row * H + k] += dz[v] * w[v * H + k];
                dw[v * H + k] += dz[v] * c->x[row * H + k];
            }
        }
    }
    ops_close_largest("dx", dx_got, dx_want, size, ops_bound_acts(1e-5));
    for (int64_t i = 0; c->n_trained > 0 && i < weights; i++)
        dw_got[i] = (double)got[c->head->shape.offset_weight + i] * 0x1p-48;
    if (c->n_trained > 0)
        ops_close_largest("dW", dw_got, dw, weights, 1e-5);
    assert_int_equal(got[c->n_trained], 0);
    free(dx_want);
    free(dx_got);
    free(dw);
    free(dw_got);
    free(z);
    free(w);
}

/* Sequence by sequence, the last first: the same dx, and the same sums in all. */
static void check_sequences(const struct backward *c, const int64_t *got)
{
    const int64_t H = c->head->shape.in;
    const float *dx = (const float *)(const void *)(got + c->n_trained + 1);
    int64_t *total = ops_allocate(c->n_trained, sizeof *total);
    int end = c->rows.n;
    for (int s = c->b->n_seqs - 1; s >= 0; s--) {
        const int start = c->b->start[s], length = c->b->start[s + 1] - start;
        int32_t *row = ops_allocate(length, sizeof *row);
        int first = end;
        while (first > 0 && c->rows.row[first - 1] >= start)
            first--;
        for (int i = first; i < end; i++)
            row[i - first] = c->rows.row[i] - start;
        struct batch one = ops_batch(&length, 1);
        struct backward alone = *c;
        alone.b = &one;
        alone.x = c->x + start * H;
        alone.dx = c->dx + start * H;
        alone.dlogprob = c->dlogprob + first;
        alone.dentropy = c->dentropy ? c->dentropy + first : NULL;
        alone.rows = (struct head_rows){end - first, row, c->rows.target + first};
        int64_t *part = ops_once(run_backward, &alone, backward_bytes(&alone), 2);
        assert_memory_equal(part + c->n_trained + 1, dx + start * H,
                            (size_t)(length * H) * sizeof *dx);
        for (int64_t i = 0; i < c->n_trained; i++)
            total[i] += part[i];
        free(part);
        free(row);
        ops_batch_free(&one);
        end = first;
    }
    assert_memory_equal(total, got, (size_t)c->n_trained * sizeof *total);
    free(total);
}

static void check_backward(const int length[4], int V, int H, enum dtype dtype, float temperature,
                           bool entropy, bool master, bool by_slope)
{
    struct batch b = ops_batch(length, 4);
    const int64_t N = b.n_tokens;
    struct layer head;
    head_init(&head, V, H, dtype, 2);
    if (master) {
        head.shape.master = head.rows;
        head.shape.offset_weight = 5;
    }
    float *x = ops_random(N * H, 2, 1), *dx = ops_random(N * H, 4, 0.1f),
          *d = ops_random(2 * N, 6, 1);
    int32_t *row = ops_allocate(N, sizeof *row), *target = ops_allocate(N, sizeof *target), n = 0;
    for (int32_t i = 0; i < N; i++) {
        if (i % 5 == 3) /* not asked for: dx stays */
            continue;
        d[n] = n % 7 == 2 ? 0 : d[n];
        d[N + n] = n % 7 == 2 || n % 3 == 1 ? 0 : d[N + n];
        row[n] = i;
        target[n++] = i * 11 % V;
    }
    struct backward c = {
        .head = &head,
        .x = x,
        .dx = dx,
        .dlogprob = d,
        .dentropy = entropy ? d + N : NULL,
        .rows = {n, row, target},
        .temperature = temperature,
        .b = &b,
        .n_trained = master ? 5 + (int64_t)V * H : 0,
        .limit = 64,
        .by_slope = by_slope,
    };
    int64_t *got = ops_same_bits(run_backward, &c, backward_bytes(&c));
    compare_backward(&c, got);
    check_sequences(&c, got);
    const float *dx_got = (const float *)(const void *)(got + c.n_trained + 1);
    for (int64_t i = 3; i < N; i += 5) /* rows that are not asked for */
        assert_memory_equal(dx_got + i * H, dx + i * H, (size_t)H * sizeof *dx);
    for (int64_t i = 2; i < n; i += 7) /* rows without a gradient */
        assert_memory_equal(dx_got + row[i] * H, dx + row[i] * H, (size_t)H * sizeof *dx);
    free(got);
    free(x);
    free(dx);
    free(d);
    free(row);
    free(target);
    layer_free(&head);
    ops_batch_free(&b);
}

static void test_logprob_backward(void **state)
{
    (void)state;
    static const int length[] = {7, 1, 90, 12}; /* 90: more rows than are done at once */
    static const int many[] = {530, 1, 0, 40}, shape[][2] = {{2, 1}, {33, 7}, {64, 20}, {530, 18}};
    for (int i = 0; i < (ops_small() ? 3 : 4); i++) {
        const int V = shape[i][0], H = ops_width(shape[i][1]);
        const bool master = ops_trains_weights();
        check_backward(length, V, H, DTYPE_F32, 1, false, false, false);
        check_backward(length, V, H, DTYPE_F32, 0.7f, true, master, false);
        check_backward(length, V, H, DTYPE_F32, 1, false, master, false);
        check_backward(length, V, H, DTYPE_F16, 1.3f, true, false, false);
        check_backward(length, V, H, DTYPE_BF16, 1, true, false, false);
        check_backward(length, V, H, DTYPE_F32, 0.7f, false, false, true);
        check_backward(length, V, H, DTYPE_F16, 1, false, false, true);
    }
    check_backward(many, 51, ops_width(33), DTYPE_BF16, 1, true, false, false);
}

/* A contribution of the limit's size is left out; the lowest of its elements is named. */
static void test_logprob_backward_refuses_large_contributions(void **state)
{
    (void)state;
    enum { V = 20, H = 3 };
    if (!ops_trains_weights())
        skip();
    static const int length[] = {2};
    static const int32_t row[] = {0, 1}, target[] = {4, 9};
    static const float d[] = {0, 1e6f}, dx[2 * H];
    struct batch b = ops_batch(length, 1);
    struct layer head;
    head_init(&head, V, H, DTYPE_F32, 0);
    head.shape.master = head.rows; /* zeros: p is 1 / V */
    head.shape.offset_weight = 2;
    const float x[2 * H] = {1, 1, 1, 0, 1, 1e-6f};
    struct backward c = {&head, x, dx, d, NULL, {2, row, target}, 1, &b, 2 + V * H, 100, false};
    int64_t *got = ops_same_bits(run_backward, &c, backward_bytes(&c));
    assert_int_equal(got[2 + V * H], 1 + 2 + 1); /* token 0, second input */
    assert_int_equal(got[2 + 9 * H], 0);
    assert_int_equal(got[2 + 9 * H + 1], 0);
    assert_true(fabs((double)got[2 + 9 * H + 2] * 0x1p-48 - 0.95) < 1e-5);
    free(got);
    layer_free(&head);
    ops_batch_free(&b);
}

/* The reference's derivative is the central difference. */
static void test_reference_slope(void **state)
{
    (void)state;
    enum { V = 9 };
    float *x = ops_random(V, 1, 2);
    double *z = ops_double(x, V), dz[V];
    reference_head_backward(dz, z, V, 3, 0.7, 1.3, -0.4);
    for (int v = 0; v < V; v++) {
        const double middle = z[v], step = 1e-5;
        struct reference_statistics side[2];
        for (int i = 0; i < 2; i++) {
            z[v] = middle + (i ? step : -step);
            side[i] = reference_head(z, V, 3, 0.7);
        }
        z[v] = middle;
        const double slope = (1.3 * (side[1].logprob - side[0].logprob) -
                              0.4 * (side[1].entropy - side[0].entropy)) /
                             (2 * step);
        assert_true(fabs(slope - dz[v]) < 1e-8);
    }
    free(x);
    free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprob),
        cmocka_unit_test(test_logprob_by_number_of_rows),
        cmocka_unit_test(test_logprob_of_a_sure_row),
        cmocka_unit_test(test_logprob_backward),
        cmocka_unit_test(test_logprob_backward_refuses_large_contributions),
        cmocka_unit_test(test_reference_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
