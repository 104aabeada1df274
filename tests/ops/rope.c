/* qkv_rope and its inverse against float64: all layouts, with norms of q and k, in place, and by rows. */
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

enum { POSITIONS = 64 };

struct rope {
    struct attention a;
    struct batch b;
    const float *x; /* [N][(nh + 2 nkv) hd]: q, k, v one after the other, or one projection */
    const float *normed; /* backward with norms: [N][(nh + nkv) hd], their inputs, q and k one after the other */
    const float *weight; /* [2][hd] of the norms of q and k; NULL: none */
    bool in_place, backward;
};

static int64_t floats(const struct rope *c)
{
    return (int64_t)c->b.n_tokens * (c->a.heads + 2 * c->a.kv_heads) * c->a.head_dim;
}

static struct norm norm_of(float *weight)
{
    return (struct norm){NORM_RMS, 1e-6f, weight, NULL, -1, -1};
}

/* out: q, k, v, or their gradients in the projections' layout */
static void run_rope(struct backend *be, void *context, void *out)
{
    const struct rope *c = context;
    const struct batch b = ops_in_batch(be, &c->b);
    const bool split = c->a.layout == QKV_SPLIT;
    const size_t table = (size_t)(c->a.max_positions * (c->a.rotary_dims / 2)) * sizeof(float);
    const int64_t row = (int64_t)b.n_tokens * c->a.head_dim, all = floats(c),
                  size[3] = {row * c->a.heads, row * c->a.kv_heads, row * c->a.kv_heads};
    struct attention a = c->a;
    a.rope_cos = table ? ops_in(be, c->a.rope_cos, table) : NULL;
    a.rope_sin = table ? ops_in(be, c->a.rope_sin, table) : NULL;
    struct norm norm[2];
    for (int part = 0; c->weight && part < 2; part++)
        norm[part] = norm_of(ops_in(be, c->weight + part * a.head_dim, (size_t)a.head_dim * sizeof(float)));
    a.q_norm = c->weight ? &norm[0] : NULL;
    a.k_norm = c->weight ? &norm[1] : NULL;
    const act_t *inputs[2] = {c->normed ? ops_in_acts(be, c->normed, size[0]) : NULL,
                              c->normed ? ops_in_acts(be, c->normed + size[0], size[1]) : NULL};
    /* q, k, v apart; of one projection for all the one array that holds all */
    const bool one_in = !split && !c->backward, one_out = !split && c->backward;
    act_t *x[3] = {NULL}, *y[3] = {NULL};
    int64_t at = 0;
    for (int part = 0; part < 3; at += size[part], part++) {
        if (part == 0 || !one_in)
            x[part] = ops_in_acts(be, c->x + at, one_in ? all : size[part]);
        if (part == 0 || !one_out)
            y[part] = c->in_place ? x[part] : ops_room_acts(be, one_out ? all : size[part]);
    }
    if (c->backward)
        be->ops->qkv_rope_backward(be, y[0], y[1], y[2], x[0], x[1], x[2], inputs[0], inputs[1], &a,
                                   &b);
    else
        be->ops->qkv_rope(be, y[0], y[1], y[2], x[0], x[1], x[2], &a, NULL, &b);
    if (one_out) {
        ops_out_acts(be, out, y[0], all);
        return;
    }
    float *next = out;
    for (int part = 0; part < 3; next += size[part], part++)
        ops_out_acts(be, next, y[part], size[part]);
}

/* Where head h of part 0 (q), 1 (k), 2 (v) of token n begins in the projections, in all. */
static size_t projection_at(const struct rope *c, int n, int part, int h)
{
    const struct attention *a = &c->a;
    const int before = (part > 0) * a->heads + (part > 1) * a->kv_heads;
    const size_t row = (size_t)n * (size_t)(a->heads + 2 * a->kv_heads);
    if (a->layout == QKV_INTERLEAVED)
        return (row + (size_t)(h * 3 + part)) * (size_t)a->head_dim;
    return (row + (size_t)(before + h)) * (size_t)a->head_dim;
}

/* Heads from the projections' layout to q | k | v, normed and rotated; or rotated back, through the norms and into that
 * layout. */
static void reference(double *y, const double *x, const struct rope *c)
{
    const struct attention *a = &c->a;
    const int hd = a->head_dim, N = c->b.n_tokens;
    const size_t q_size = (size_t)N * a->heads * hd, k_size = (size_t)N * a->kv_heads * hd;
    double turned[512], given[512], unused[2][512] = {{0}};
    for (int n = 0; n < N; n++) {
        for (int part = 0; part < 3; part++) {
            const int heads = part == 0 ? a->heads : a->kv_heads;
            const bool normed = c->weight && part < 2;
            const struct norm norm = norm_of(normed ? (float *)(uintptr_t)c->weight + part * hd : NULL);
            for (int h = 0; h < heads; h++) {
                size_t own =
                    (part > 0) * q_size + (part > 1) * k_size + ((size_t)n * heads + h) * hd;
                size_t projection = a->layout == QKV_SPLIT ? own : projection_at(c, n, part, h);
                const double *from = x + (c->backward ? own : projection);
                double *to = y + (c->backward ? projection : own);
                memcpy(turned, from, (size_t)hd * sizeof *y);
                if (normed && !c->backward)
                    reference_norm(turned, from, &norm, hd);
                if (part < 2)
                    reference_rope(turned, a, c->b.position[n], c->backward ? -1 : 1);
                memcpy(to, turned, (size_t)hd * sizeof *y);
                if (!normed || !c->backward)
                    continue;
                for (int d = 0; d < hd; d++)
                    given[d] = c->normed[own + (size_t)d];
                memset(to, 0, (size_t)hd * sizeof *to);
                reference_norm_backward(to, unused[0], unused[1], turned, given, &norm, hd);
            }
        }
    }
}

/* The last token alone: its row of the one projection for all. */
static void check_last_row(const struct rope *c, const float *got)
{
    static const int length = 1;
    struct rope one = *c;
    struct batch b = ops_batch(&length, 1);
    const int last = c->b.n_tokens - 1, hd = c->a.head_dim, row[3] = {c->a.heads * hd, c->a.kv_heads * hd, c->a.kv_heads * hd};
    const int width = row[0] + 2 * row[1];
    float *x = malloc((size_t)width * sizeof *x), *want = malloc((size_t)width * sizeof *want);
    ((int32_t *)(uintptr_t)b.position)[0] = c->b.position[last];
    one.b = b;
    int64_t at = 0;
    for (int part = 0, to = 0; part < 3; at += (int64_t)row[part] * c->b.n_tokens, to += row[part++])
        memcpy((c->backward ? x : want) + to, (c->backward ? c->x : got) + at + (int64_t)last * row[part],
               (size_t)row[part] * sizeof *x);
    memcpy(c->backward ? want : x, (c->backward ? got : c->x) + (int64_t)last * width, (size_t)width * sizeof *x);
    one.x = x;
    float *alone = ops_once(run_rope, &one, (size_t)width * sizeof *alone, 2);
    assert_memory_equal(alone, want, (size_t)width * sizeof *alone);
    free(alone);
    free(x);
    free(want);
    ops_batch_free(&b);
}

/* The last sequence alone, of projections apart with norms. */
static void check_rows_of_norms(const struct rope *c, const float *got)
{
    struct rope one = *c;
    const int start = c->b.start[c->b.n_seqs - 1], n = c->b.n_tokens - start, hd = c->a.head_dim;
    const int64_t row[3] = {c->a.heads * hd, c->a.kv_heads * hd, c->a.kv_heads * hd}, width = row[0] + 2 * row[1];
    float *x = malloc((size_t)(n * width) * sizeof *x), *normed = malloc((size_t)(n * width) * sizeof *normed),
          *want = malloc((size_t)(n * width) * sizeof *want);
    int64_t at = 0, to = 0;
    for (int part = 0; part < 3; at += row[part] * c->b.n_tokens, to += row[part++] * n) {
        const size_t bytes = (size_t)(n * row[part]) * sizeof *x;
        memcpy(x + to, c->x + at + start * row[part], bytes);
        memcpy(want + to, got + at + start * row[part], bytes);
        if (c->normed && part < 2)
            memcpy(normed + to, c->normed + at + start * row[part], bytes);
    }
    one.b = ops_batch(&n, 1);
    one.x = x;
    one.normed = c->normed ? normed : NULL;
    float *alone = ops_once(run_rope, &one, (size_t)(n * width) * sizeof *alone, 2);
    assert_memory_equal(alone, want, (size_t)(n * width) * sizeof *alone);
    free(alone);
    free(x);
    free(normed);
    free(want);
    ops_batch_free(&one.b);
}

static void check_rope(int heads, int kv_heads, int head_dim, int rotary, enum qkv_layout layout, bool norms)
{
    const int hd = ops_width(head_dim);
    static const int length[] = {3, 1, 60, 29};
    float *table = malloc((size_t)POSITIONS * (size_t)(rotary + 1) * sizeof *table);
    float *sine = table + POSITIONS * (rotary / 2);
    for (int t = 0; t < POSITIONS; t++) {
        for (int i = 0; i < rotary / 2; i++) {
            table[t * (rotary / 2) + i] = (float)cos(t * pow(10000, -2.0 * i / rotary));
            sine[t * (rotary / 2) + i] = (float)sin(t * pow(10000, -2.0 * i / rotary));
        }
    }
    struct rope c = {.a = {.heads = heads,
                           .kv_heads = kv_heads,
                           .head_dim = hd,
                           .rotary_dims = rotary,
                           .max_positions = POSITIONS,
                           .layout = layout,
                           .scale = 1,
                           .rope_cos = table,
                           .rope_sin = sine},
                     .b = ops_batch(length, 4)};
    const int64_t size = floats(&c);
    float *x = ops_random(size, 3, 1), *normed = ops_random(size, 4, 1), *weight = ops_random(2 * hd, 5, 1);
    double *wide = ops_double(x, size), *want = malloc((size_t)size * sizeof *want);
    c.x = x;
    c.weight = norms ? weight : NULL;
    for (int backward = 0; backward < 2; backward++) {
        c.backward = backward;
        c.normed = norms && backward ? normed : NULL;
        c.in_place = false;
        float *got = ops_same_bits(run_rope, &c, (size_t)size * sizeof *got);
        reference(want, wide, &c);
        ops_close_acts(backward ? "dqkv" : "qkv", got, want, size, norms ? 1e-5 : 1e-6);
        if (norms)
            check_rows_of_norms(&c, got);
        if (layout == QKV_SPLIT && !c.normed) {
            c.in_place = true;
            float *same = ops_once(run_rope, &c, (size_t)size * sizeof *got, 2);
            assert_memory_equal(same, got, (size_t)size * sizeof *got);
            free(same);
        }
        if (layout != QKV_SPLIT)
            check_last_row(&c, got);
        free(got);
    }
    ops_batch_free(&c.b);
    free(table);
    free(x);
    free(normed);
    free(weight);
    free(wide);
    free(want);
}

static void test_split(void **state)
{
    (void)state;
    check_rope(1, 1, 8, 8, QKV_SPLIT, false);
    check_rope(4, 2, 24, 24, QKV_SPLIT, false);
    check_rope(6, 1, 10, 6, QKV_SPLIT, false);
    check_rope(12, 12, 64, 0, QKV_SPLIT, false);
    if (!ops_small())
        check_rope(32, 8, 128, 128, QKV_SPLIT, false);
}

static void test_interleaved(void **state)
{
    (void)state;
    check_rope(2, 2, 8, 2, QKV_INTERLEAVED, false);
    check_rope(8, 8, 96, 24, QKV_INTERLEAVED, false);
    if (!ops_small())
        check_rope(16, 16, 64, 64, QKV_INTERLEAVED, false);
}

static void test_fused(void **state)
{
    (void)state;
    check_rope(1, 1, 8, 8, QKV_FUSED, false);
    check_rope(4, 2, 24, 0, QKV_FUSED, false);
    check_rope(12, 12, 64, 0, QKV_FUSED, false);
}

static void test_norms_of_q_and_k(void **state)
{
    (void)state;
    check_rope(1, 1, 8, 8, QKV_SPLIT, true);
    check_rope(4, 2, 24, 12, QKV_SPLIT, true);
    check_rope(3, 1, 80, 0, QKV_SPLIT, true);
    if (!ops_small())
        check_rope(16, 8, 128, 128, QKV_SPLIT, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_fused),
        cmocka_unit_test(test_norms_of_q_and_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
