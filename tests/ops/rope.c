/* qkv_rope and its inverse against float64: both layouts, in place, and by rows. */
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
    const float *x; /* [N][(nh + 2 nkv) hd]: q, k, v one after the other, or interleaved */
    bool in_place, backward;
};

static int64_t floats(const struct rope *c)
{
    return (int64_t)c->b.n_tokens * (c->a.heads + 2 * c->a.kv_heads) * c->a.head_dim;
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
    a.rope_cos = ops_in(be, c->a.rope_cos, table);
    a.rope_sin = ops_in(be, c->a.rope_sin, table);
    /* q, k, v apart; of interleaved projections the one array that holds all */
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
        be->ops->qkv_rope_backward(be, y[0], y[1], y[2], x[0], x[1], x[2], NULL, NULL, &a, &b);
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

/* Copies of heads from the projections' layout to q | k | v, rotated; or rotated back and into that layout. */
static void reference(double *y, const double *x, const struct rope *c)
{
    const struct attention *a = &c->a;
    const int hd = a->head_dim, N = c->b.n_tokens;
    const size_t q_size = (size_t)N * a->heads * hd, k_size = (size_t)N * a->kv_heads * hd;
    for (int n = 0; n < N; n++) {
        for (int part = 0; part < 3; part++) {
            const int heads = part == 0 ? a->heads : a->kv_heads;
            for (int h = 0; h < heads; h++) {
                size_t own =
                    (part > 0) * q_size + (part > 1) * k_size + ((size_t)n * heads + h) * hd;
                size_t projection =
                    a->layout == QKV_SPLIT ? own : (((size_t)n * a->heads + h) * 3 + part) * hd;
                double *to = y + (c->backward ? projection : own);
                memcpy(to, x + (c->backward ? own : projection), (size_t)hd * sizeof *y);
                if (part < 2)
                    reference_rope(to, a, c->b.position[n], c->backward ? -1 : 1);
            }
        }
    }
}

static void check_rope(int heads, int kv_heads, int head_dim, int rotary, enum qkv_layout layout)
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
    float *x = ops_random(size, 3, 1);
    double *wide = ops_double(x, size), *want = malloc((size_t)size * sizeof *want);
    c.x = x;
    for (int backward = 0; backward < 2; backward++) {
        c.backward = backward;
        c.in_place = false;
        float *got = ops_same_bits(run_rope, &c, (size_t)size * sizeof *got);
        reference(want, wide, &c);
        ops_close_acts(backward ? "dqkv" : "qkv", got, want, size, 1e-6);
        if (layout == QKV_SPLIT) {
            c.in_place = true;
            float *same = ops_once(run_rope, &c, (size_t)size * sizeof *got, 2);
            assert_memory_equal(same, got, (size_t)size * sizeof *got);
            free(same);
        } else {
            struct rope one = c; /* the last token alone: its row of the interleaved projections */
            struct batch b = ops_batch(length + 1, 1);
            const int last = c.b.n_tokens - 1, width = 3 * heads * hd, row = heads * hd;
            ((int32_t *)(uintptr_t)b.position)[0] = c.b.position[last];
            one.b = b;
            float *q = malloc((size_t)width * sizeof *q);
            for (int part = 0; part < 3; part++) /* backward: q, k, v rows; forward: one row */
                memcpy(q + part * row,
                       backward ? x + (part * c.b.n_tokens + last) * row
                                : x + last * width + part * row,
                       (size_t)row * sizeof *q);
            one.x = q;
            float *alone = ops_once(run_rope, &one, (size_t)width * sizeof *alone, 2);
            for (int part = 0; part < 3; part++)
                assert_memory_equal(alone + part * row,
                                    backward ? got + last * width + part * row
                                             : got + (part * c.b.n_tokens + last) * row,
                                    (size_t)row * sizeof *alone);
            free(alone);
            free(q);
            ops_batch_free(&b);
        }
        free(got);
    }
    ops_batch_free(&c.b);
    free(table);
    free(x);
    free(wide);
    free(want);
}

static void test_split(void **state)
{
    (void)state;
    check_rope(1, 1, 8, 8, QKV_SPLIT);
    check_rope(4, 2, 24, 24, QKV_SPLIT);
    check_rope(6, 1, 10, 6, QKV_SPLIT);
    check_rope(12, 12, 64, 0, QKV_SPLIT);
    if (!ops_small())
        check_rope(32, 8, 128, 128, QKV_SPLIT);
}

static void test_interleaved(void **state)
{
    (void)state;
    check_rope(2, 2, 8, 2, QKV_INTERLEAVED);
    check_rope(8, 8, 96, 24, QKV_INTERLEAVED);
    if (!ops_small())
        check_rope(16, 16, 64, 64, QKV_INTERLEAVED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_interleaved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
