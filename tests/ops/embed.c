/* The ends of the model against float64: rows of tables, added to others or not, and the score head of one or more outputs; the
 * ways back; their bits by rows, batches and how they are run. */
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

/* --- embedding --- */

enum { TOKENS = 13, FIRST = 2 };

struct embed {
    const struct layer *table;
    const struct batch *b;
    const float *dx, *add; /* [N][H] */
};

/* out: int64 sum [3 + V * H], overflow, y [N][H], rows FIRST further on, added to add [N][H] */
static void run_embed(struct backend *be, void *context, void *out)
{
    const struct embed *c = context;
    const int H = c->table->shape.in;
    const int64_t n = 3 + (int64_t)c->table->shape.out * H, size = (int64_t)c->b->n_tokens * H;
    const struct batch b = ops_in_batch(be, c->b);
    struct linear table;
    layer_put(be, &table, NULL, c->table);
    act_t *y = ops_room_acts(be, size), *sum = ops_room_acts(be, size);
    be->ops->embed(be, y, &table, NULL, b.id, 0, b.n_tokens);
    be->ops->embed(be, sum, &table, ops_in_acts(be, c->add, size), b.position, FIRST, b.n_tokens);
    struct grads g = ops_grads(be, n, 100);
    if (be->ops->trains_weights)
        be->ops->embed_backward(be, ops_in_acts(be, c->dx, size), H, 3, &b, &g);
    float *floats = (float *)(void *)((int64_t *)out + n + 1);
    ops_out_grads(be, out, &g);
    ops_out_acts(be, floats, y, size);
    ops_out_acts(be, floats + size, sum, size);
}

static void test_embed(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const int length[] = {4, 9}, shape[][2] = {{11, 1}, {19, 7}, {50, 40}};
    for (int i = 0; i < 9; i++) {
        const int V = shape[i / 3][0], H = ops_width(shape[i / 3][1]);
        const int64_t n_trained = 3 + (int64_t)V * H;
        struct batch b = ops_batch(length, 2);
        int32_t id[TOKENS];
        for (int t = 0; t < TOKENS; t++)
            id[t] = t * t % V; /* some ids come twice */
        b.id = (int32_t *)memcpy((void *)(uintptr_t)b.id, id, sizeof id);
        struct layer table;
        layer_init(&table, V, H, types[i % 3], MATMUL_PLAIN, false, 0, 3);
        float *dx = ops_random(TOKENS * H, 8, 1), *add = ops_random(TOKENS * H, 9, 1);
        const struct embed c = {&table, &b, dx, add};
        const size_t bytes = (size_t)(n_trained + 1) * 8 + (size_t)H * TOKENS * 2 * 4;
        int64_t *got = ops_same_bits(run_embed, (void *)(uintptr_t)&c, bytes);
        const float *y = (const float *)(const void *)(got + n_trained + 1), *added = y + TOKENS * H;
        double *w = ops_allocate((int64_t)V * H, sizeof *w);
        int64_t *sum = ops_allocate(n_trained, sizeof *sum);
        reference_weights(w, &table.shape, table.rows);
        for (int t = 0; t < TOKENS; t++) {
            for (int k = 0; k < H; k++) {
                const double second = w[(b.position[t] + FIRST) * H + k] + add[t * H + k];
                assert_true(y[t * H + k] == w[id[t] * H + k]);
                assert_true(added[t * H + k] == ops_exact((float)second));
                if (ops_trains_weights())
                    sum[3 + id[t] * H + k] += (int64_t)rint((double)dx[t * H + k] * 0x1p48);
            }
        }
        assert_memory_equal(sum, got, (size_t)(n_trained + 1) * sizeof *sum);
        free(w);
        free(sum);
        free(got);
        free(dx);
        free(add);
        layer_free(&table);
        ops_batch_free(&b);
    }
}

/* --- score head --- */

enum { OFFSET = 2 }; /* of its gradients */

struct score {
    const float *w, *x, *dx, *dvalue; /* w [K][H], then the bias [K] where there is one */
    struct head_rows rows;
    const struct batch *b;
    int K, H;
    bool bias;
};

/* Trained numbers, and the gradients behind them: one of rubbish's place on either side, and overflow. */
static int64_t trained(const struct score *c)
{
    return (int64_t)c->K * c->H + (c->bias ? c->K : 0);
}

/* out: int64 sum [OFFSET + trained + 1], overflow, dx [N][H], value [n][K] */
static void run_score(struct backend *be, void *context, void *out)
{
    const struct score *c = context;
    const int n = c->rows.n, H = c->H, K = c->K;
    const int64_t size = (int64_t)c->b->n_tokens * H;
    const struct batch b = ops_in_batch(be, c->b);
    const struct head_rows rows = {n, ops_in(be, c->rows.row, (size_t)n * sizeof(int32_t)), NULL};
    const act_t *x = ops_in_acts(be, c->x, size);
    const float *w = ops_in(be, c->w, (size_t)trained(c) * sizeof *w),
                *dvalue = ops_in(be, c->dvalue, (size_t)(n * K) * sizeof *dvalue);
    float *value = ops_room(be, (size_t)(n * K) * sizeof *value);
    act_t *dx = ops_in_acts(be, c->dx, size);
    struct grads g = ops_grads(be, OFFSET + trained(c) + 1, 100);
    be->ops->score_head(be, value, w, c->bias ? w + K * H : NULL, K, x, H, &rows);
    be->ops->score_head_backward(be, dx, dvalue, w, K, x, H, &rows, &g, OFFSET, !c->bias, &b);
    float *floats = (float *)(void *)((int64_t *)out + g.n + 1);
    ops_out_grads(be, out, &g);
    ops_out_acts(be, floats, dx, size);
    ops_out(be, floats + size, value, (size_t)(n * K) * sizeof *value);
}

static int64_t counters(const struct score *c)
{
    return OFFSET + trained(c) + 2;
}

static size_t score_bytes(const struct score *c)
{
    const int64_t floats = (int64_t)c->b->n_tokens * c->H + c->rows.n * c->K;
    return (size_t)counters(c) * 8 + (size_t)floats * 4;
}

/* Each sequence alone: the same values and dx; the sums add up. */
static void check_score_sequences(const struct score *c, const int64_t *got, const float *dx,
                                  const float *value)
{
    const int64_t n_counters = counters(c);
    int64_t *total = ops_allocate(n_counters, sizeof *total);
    for (int s = c->b->n_seqs - 1; s >= 0; s--) {
        const int64_t H = c->H, start = c->b->start[s];
        const int length = c->b->start[s + 1] - (int)start;
        int first = 0, n = 0, row[256];
        for (int i = 0; i < c->rows.n; i++) {
            const int at = c->rows.row[i] - (int)start;
            first += at < 0;
            if (at >= 0 && at < length)
                row[n++] = at;
        }
        struct batch one = ops_batch(&length, 1);
        struct score alone = *c;
        alone.x = c->x + start * H;
        alone.dx = c->dx + start * H;
        alone.dvalue = c->dvalue + first * c->K;
        alone.rows = (struct head_rows){n, row, NULL};
        alone.b = &one;
        int64_t *part = ops_once(run_score, &alone, score_bytes(&alone), 2);
        const float *part_dx = (const float *)(const void *)(part + n_counters);
        assert_memory_equal(part_dx, dx + start * H, (size_t)(length * H) * sizeof *dx);
        assert_memory_equal(part_dx + length * H, value + first * c->K,
                            (size_t)(n * c->K) * sizeof *value);
        for (int64_t i = 0; i < n_counters; i++)
            total[i] += part[i];
        free(part);
        ops_batch_free(&one);
    }
    assert_memory_equal(total, got, (size_t)n_counters * sizeof *total);
    free(total);
}

static void check_score(int H, int K, bool bias)
{
    static const int length[] = {5, 1, 200};
    struct batch b = ops_batch(length, 3);
    const int64_t N = b.n_tokens;
    float *v = ops_random((2 * N + K) * H + K + N * K, 3, 1);
    int32_t row[206], n = 0;
    for (int i = 0; i < N; i++)
        if (i % 4 != 1)
            row[n++] = i;
    const struct score c = {.w = v + 2 * N * H,
                            .x = v,
                            .dx = v + N * H,
                            .dvalue = v + (2 * N + K) * H + K,
                            .rows = {n, row, NULL},
                            .b = &b,
                            .K = K,
                            .H = H,
                            .bias = bias};
    int64_t *got = ops_same_bits(run_score, (void *)(uintptr_t)&c, score_bytes(&c));
    const float *dx = (const float *)(const void *)(got + counters(&c)), *value = dx + N * H;
    double *want = ops_allocate((int64_t)n * K, sizeof *want), *dx_want = ops_double(c.dx, N * H);
    double *dw = ops_allocate((int64_t)K * (H + 1), sizeof *dw), *dw_got = ops_allocate(trained(&c), sizeof *dw_got);
    for (int i = 0; i < n * K; i++) {
        const int at = row[i / K], k = i % K;
        want[i] = bias ? c.w[K * H + k] : 0;
        dw[K * H + k] += c.dvalue[i];
        for (int h = 0; h < H; h++) {
            want[i] += (double)c.w[k * H + h] * c.x[at * H + h];
            dx_want[at * H + h] += (double)c.dvalue[i] * c.w[k * H + h];
            dw[k * H + h] += (double)c.dvalue[i] * c.x[at * H + h];
        }
    }
    for (int64_t i = 0; i < trained(&c); i++)
        dw_got[i] = (double)got[OFFSET + i] * 0x1p-48;
    ops_close("value", value, want, (int64_t)n * K, 1e-5);
    ops_close_acts("dx", dx, dx_want, N * H, 1e-5);
    ops_close_largest("dw and dbias", dw_got, dw, trained(&c), 1e-5);
    assert_int_equal(got[0] | got[1] | got[counters(&c) - 2] | got[counters(&c) - 1], 0);
    check_score_sequences(&c, got, dx, value);
    free(got);
    free(want);
    free(dx_want);
    free(dw);
    free(dw_got);
    free(v);
    ops_batch_free(&b);
}

static void test_score_head(void **state)
{
    (void)state;
    static const int H[] = {1, 7, 16, 33, 768, 2056}, K[] = {1, 2, 5};
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 3; k++)
            check_score(ops_width(H[i]), K[k], (i + k) % 2 == 0);
    check_score(ops_width(33), 1, false);
    check_score(ops_width(64), 2, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_score_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
