/* attn_forward, attn_decode, attn_backward against float64: head sizes with tails, grouped heads, windows, both ways, ragged batches;
 * decoding from the cache gives the forward pass's bits. */
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

enum { BOTH_WAYS = -1 };

struct shape {
    int heads, kv_heads, head_dim, window; /* or BOTH_WAYS */
};

/* The small ones first. */
static const struct shape shapes[] = {
    {1, 1, 8, 0},          {3, 1, 24, 0},          {4, 2, 10, 5},   {2, 1, 64, 40}, {2, 2, 96, 17},
    {2, 1, 80, 1},         {1, 1, 8, BOTH_WAYS},   {4, 2, 24, BOTH_WAYS}, {2, 2, 64, BOTH_WAYS},
    {8, 2, 64, 0},         {12, 12, 64, 0},        {4, 1, 128, 0},  {6, 1, 80, 1},
    {12, 12, 64, BOTH_WAYS}, {4, 1, 128, BOTH_WAYS},
};

static int n_shapes(void)
{
    return ops_small() ? 9 : (int)(sizeof shapes / sizeof *shapes);
}

static const int lengths[] = {1, 2, 16, 5, 133, 17, 4, 64};
enum { SEQUENCES = 8, MAX_LENGTH = 300, LONG_ROWS = 5, LONG_CACHE = 262144 };

struct attention_case {
    struct attention a;
    struct batch b;
    float *q, *k, *v, *d_o;
    int64_t q_size, k_size;
};

static struct attention_case case_of(struct shape s, const int *length, int n_seqs)
{
    const int hd = ops_width(s.head_dim);
    struct attention_case c = {
        .a = {.heads = s.heads,
              .kv_heads = s.kv_heads,
              .head_dim = hd,
              .window = s.window == BOTH_WAYS ? 0 : s.window,
              .bidirectional = s.window == BOTH_WAYS,
              .scale = 1.0f / sqrtf((float)hd)},
        .b = ops_batch(length, n_seqs),
    };
    c.q_size = (int64_t)c.b.n_tokens * s.heads * hd;
    c.k_size = (int64_t)c.b.n_tokens * s.kv_heads * hd;
    c.q = ops_random(c.q_size, 1, 2);
    c.k = ops_random(c.k_size, 2, 2);
    c.v = ops_random(c.k_size, 3, 1);
    c.d_o = ops_random(c.q_size, 4, 1);
    return c;
}

static void case_free(struct attention_case *c)
{
    free(c->q);
    free(c->k);
    free(c->v);
    free(c->d_o);
    ops_batch_free(&c->b);
}

/* The same case with one sequence; the arrays stay the first one's. */
static struct attention_case one_of(const struct attention_case *c, int sequence)
{
    struct attention_case one = *c;
    const int length = c->b.start[sequence + 1] - c->b.start[sequence];
    const int64_t row = (int64_t)c->b.start[sequence] * c->a.head_dim;
    one.b = ops_batch(&length, 1);
    one.q += row * c->a.heads;
    one.d_o += row * c->a.heads;
    one.k += row * c->a.kv_heads;
    one.v += row * c->a.kv_heads;
    one.q_size = (int64_t)length * c->a.heads * c->a.head_dim;
    one.k_size = (int64_t)length * c->a.kv_heads * c->a.head_dim;
    return one;
}

static void run_forward(struct backend *be, void *context, void *out)
{
    const struct attention_case *c = context;
    const struct batch b = ops_in_batch(be, &c->b);
    act_t *o = ops_room_acts(be, c->q_size);
    be->ops->attn_forward(be, o, ops_in_acts(be, c->q, c->q_size), ops_in_acts(be, c->k, c->k_size),
                          ops_in_acts(be, c->v, c->k_size), &c->a, &b);
    ops_out_acts(be, out, o, c->q_size);
}

/* out: dq, dk, dv */
static void run_backward(struct backend *be, void *context, void *out)
{
    const struct attention_case *c = context;
    const struct batch b = ops_in_batch(be, &c->b);
    act_t *dq = ops_room_acts(be, c->q_size), *dk = ops_room_acts(be, c->k_size),
          *dv = ops_room_acts(be, c->k_size);
    be->ops->attn_backward(be, dq, dk, dv, ops_in_acts(be, c->d_o, c->q_size),
                           ops_in_acts(be, c->q, c->q_size), ops_in_acts(be, c->k, c->k_size),
                           ops_in_acts(be, c->v, c->k_size), &c->a, &b);
    float *parts = out;
    ops_out_acts(be, parts, dq, c->q_size);
    ops_out_acts(be, parts + c->q_size, dk, c->k_size);
    ops_out_acts(be, parts + c->q_size + c->k_size, dv, c->k_size);
}

enum { STEP_ROWS = 32 };

/* The rows of n tokens. */
static void set_rows(struct backend *be, act_t *device, const float *x, const int *token, int n,
                     int width)
{
    float *rows = malloc((size_t)n * (size_t)width * sizeof *rows);
    for (int i = 0; i < n; i++)
        memcpy(rows + i * width, x + (int64_t)token[i] * width, (size_t)width * sizeof *rows);
    ops_set_acts(be, device, rows, (int64_t)n * width);
    free(rows);
}

/* Writes keys and values token by token, all sequences at once, and decodes after each, as a program: o as attn_forward's.
 * Sequence s sits in slot SEQUENCES - s, whose cache holds rubbish before; idle rows sit in the last one. */
static void run_decode(struct backend *be, void *context, void *out)
{
    const struct attention_case *c = context;
    const int q_row = c->a.heads * c->a.head_dim, k_row = c->a.kv_heads * c->a.head_dim;
    const int multiple = be->ops->decode_multiple, slots = SEQUENCES + 2, max_tokens = 135;
    const struct kv_cache cache = {ops_room(be, be->ops->cache_bytes(be, &c->a, slots, max_tokens)),
                                   slots, max_tokens};
    act_t *q = ops_room_acts(be, STEP_ROWS * q_row), *o = ops_room_acts(be, STEP_ROWS * q_row),
          *k = ops_room_acts(be, STEP_ROWS * k_row), *v = ops_room_acts(be, STEP_ROWS * k_row);
    int ones[STEP_ROWS], token[STEP_ROWS];
    for (int i = 0; i < STEP_ROWS; i++)
        ones[i] = 1;
    struct batch host = ops_batch(ones, STEP_ROWS), b = ops_in_batch(be, &host);
    float *rows = malloc((size_t)(STEP_ROWS * q_row) * sizeof *rows);
    for (int t = 0;; t++) {
        int32_t position[STEP_ROWS] = {0}, slot[STEP_ROWS], n = 0;
        for (int s = 0; s < c->b.n_seqs; s++) {
            if (t >= c->b.start[s + 1] - c->b.start[s])
                continue;
            token[n] = c->b.start[s] + t;
            position[n] = t;
            slot[n++] = SEQUENCES - s;
        }
        if (n == 0)
            break;
        for (int i = n; i < STEP_ROWS; i++)
            slot[i] = slots - 1;
        be->ops->copy_in(be, (void *)(uintptr_t)b.position, position, sizeof position);
        be->ops->copy_in(be, (void *)(uintptr_t)b.slot, slot, sizeof slot);
        set_rows(be, q, c->q, token, n, q_row);
        set_rows(be, k, c->k, token, n, k_row);
        set_rows(be, v, c->v, token, n, k_row);
        b.n_tokens = b.n_seqs = (n + multiple - 1) / multiple * multiple;
        if (be->ops->program_begin(be, (uint64_t)b.n_seqs)) {
            be->ops->qkv_rope(be, q, k, v, q, k, v, &c->a, &cache, &b);
            be->ops->attn_decode(be, o, q, &c->a, &cache, &b);
            be->ops->program_end(be);
        }
        ops_out_acts(be, rows, o, (int64_t)n * q_row);
        for (int i = 0; i < n; i++)
            memcpy((float *)out + (int64_t)token[i] * q_row, rows + i * q_row,
                   (size_t)q_row * sizeof *rows);
    }
    free(rows);
    ops_batch_free(&host);
}

static void test_forward(void **state)
{
    (void)state;
    for (int i = 0; i < n_shapes(); i++) {
        struct attention_case c = case_of(shapes[i], lengths, SEQUENCES);
        float *got = ops_same_bits(run_forward, &c, (size_t)c.q_size * sizeof *got);
        for (int s = 0; s < SEQUENCES; s++) {
            struct attention_case one = one_of(&c, s);
            const int64_t at = one.q - c.q;
            double *q = ops_double(one.q, one.q_size), *k = ops_double(one.k, one.k_size),
                   *v = ops_double(one.v, one.k_size), *o = ops_double(one.q, one.q_size);
            reference_attention(o, q, k, v, &c.a, lengths[s]);
            ops_close_acts("o", got + at, o, one.q_size, 1e-5);
            float *alone = ops_once(run_forward, &one, (size_t)one.q_size * sizeof *alone, 2);
            assert_memory_equal(alone, got + at, (size_t)one.q_size * sizeof *alone);
            free(alone);
            free(q);
            free(k);
            free(v);
            free(o);
            ops_batch_free(&one.b);
        }
        free(got);
        case_free(&c);
    }
}

static void test_decode_has_the_bits_of_forward(void **state)
{
    (void)state;
    for (int i = 0; i < n_shapes(); i++) {
        if (shapes[i].window == BOTH_WAYS)
            continue;
        struct attention_case c = case_of(shapes[i], lengths, SEQUENCES);
        float *forward = ops_once(run_forward, &c, (size_t)c.q_size * sizeof *forward, 2);
        float *decode = ops_same_bits(run_decode, &c, (size_t)c.q_size * sizeof *decode);
        assert_memory_equal(decode, forward, (size_t)c.q_size * sizeof *decode);
        free(forward);
        free(decode);
        case_free(&c);
    }
}

/* What a row sees decides it: later tokens do not, even if they are not numbers; on CUDA, where unseen values are
 * multiplied by 0, if they are very large ones. */
static void test_forward_of_a_prefix(void **state)
{
    (void)state;
    const int whole = 45, prefix = 22;
    const float rubbish = ops_on_cuda() ? 1e30f : NAN;
    for (int i = 0; i < n_shapes(); i++) {
        if (shapes[i].window == BOTH_WAYS)
            continue;
        struct attention_case c = case_of(shapes[i], &whole, 1), cut = c;
        const int64_t kv_at = (int64_t)prefix * c.a.kv_heads * c.a.head_dim;
        for (int64_t j = kv_at; j < c.k_size; j++)
            c.k[j] = c.v[j] = rubbish;
        cut.b = ops_batch(&prefix, 1);
        cut.q_size = (int64_t)prefix * c.a.heads * c.a.head_dim;
        cut.k_size = kv_at;
        const size_t bytes = (size_t)cut.q_size * sizeof(float);
        float *all = ops_once(run_forward, &c, (size_t)c.q_size * sizeof *all, 1);
        float *some = ops_once(run_forward, &cut, bytes, 1);
        assert_memory_equal(all, some, bytes);
        free(all);
        free(some);
        ops_batch_free(&cut.b);
        case_free(&c);
    }
}

static void test_backward(void **state)
{
    (void)state;
    for (int i = 0; i < n_shapes(); i++) {
        struct attention_case c = case_of(shapes[i], lengths, SEQUENCES);
        const size_t bytes = (size_t)(c.q_size + 2 * c.k_size) * sizeof(float);
        float *got = ops_same_bits(run_backward, &c, bytes);
        double *want = malloc(2 * bytes);
        for (int s = 0; s < SEQUENCES; s++) {
            struct attention_case one = one_of(&c, s);
            double *q = ops_double(one.q, one.q_size), *k = ops_double(one.k, one.k_size),
                   *v = ops_double(one.v, one.k_size), *d_o = ops_double(one.d_o, one.q_size);
            const float *own_dq = got + (one.q - c.q), *own_dk = got + c.q_size + (one.k - c.k),
                        *own_dv = got + c.q_size + c.k_size + (one.v - c.v);
            reference_attention_backward(want + (one.q - c.q), want + c.q_size + (one.k - c.k),
                                         want + c.q_size + c.k_size + (one.v - c.v), d_o, q, k, v,
                                         &c.a, lengths[s]);
            const size_t one_bytes = (size_t)(one.q_size + 2 * one.k_size) * sizeof(float);
            float *alone = ops_once(run_backward, &one, one_bytes, 2);
            assert_memory_equal(alone, own_dq, (size_t)one.q_size * 4);
            assert_memory_equal(alone + one.q_size, own_dk, (size_t)one.k_size * 4);
            assert_memory_equal(alone + one.q_size + one.k_size, own_dv, (size_t)one.k_size * 4);
            free(alone);
            free(q);
            free(k);
            free(v);
            free(d_o);
            ops_batch_free(&one.b);
        }
        if (c.a.window == 1) { /* dq, dk: differences of equal terms */
            for (int64_t j = 0; j < c.q_size + c.k_size; j++)
                assert_true(fabsf(got[j]) < ops_bound_acts(1e-5));
        } else {
            ops_close_sums("dq", got, want, c.q_size, 1e-5);
            ops_close_sums("dk", got + c.q_size, want + c.q_size, c.k_size, 1e-5);
        }
        ops_close_sums("dv", got + c.q_size + c.k_size, want + c.q_size + c.k_size, c.k_size, 1e-5);
        free(want);
        free(got);
        case_free(&c);
    }
}

/* Every head size that has kernels of its own and the sizes between; lengths about the tiles' and the splits' borders; groups
 * of more heads than a tile has rows. */
struct border_case {
    struct shape shape;
    int length[3], n_seqs;
};

static const struct border_case borders[] = {
    {{1, 1, 96, 0}, {63, 129, 1}, 3},  {{2, 1, 128, 0}, {65, 1, 64}, 3},
    {{20, 1, 8, 0}, {65, 257, 64}, 3}, {{1, 1, 64, 70}, {300, 65, 1}, 3},
    {{2, 2, 80, 0}, {64, 129}, 2},     {{1, 1, 256, 100}, {129, 33}, 2},
    {{2, 1, 40, 0}, {300, 63, 5}, 3},  {{1, 1, 136, 0}, {65, 300}, 2},
    {{1, 1, 192, 64}, {129, 257}, 2},  {{2, 1, 64, 256}, {300, 257, 1}, 3},
    {{2, 2, 64, BOTH_WAYS}, {129, 1, 64}, 3}, {{3, 1, 96, BOTH_WAYS}, {300, 65}, 2},
    {{1, 1, 128, BOTH_WAYS}, {63, 257}, 2},   {{1, 1, 8, BOTH_WAYS}, {65, 128, 300}, 3},
    {{2, 1, 24, 20}, {300, 65}, 2},           {{1, 1, 136, BOTH_WAYS}, {33, 129}, 2},
};

/* Decodes every token of the batch at once, as if each were a sequence's last: they share the slot of their sequence, which a
 * pass over the whole batch has filled. */
static void run_decode_at_once(struct backend *be, void *context, void *out)
{
    const struct attention_case *c = context;
    const int N = c->b.n_tokens, multiple = be->ops->decode_multiple;
    const int rows = (N + multiple - 1) / multiple * multiple, slots = c->b.n_seqs + 1;
    struct kv_cache cache = {NULL, slots, MAX_LENGTH};
    cache.data = ops_room(be, be->ops->cache_bytes(be, &c->a, slots, MAX_LENGTH));
    const struct batch all = ops_in_batch(be, &c->b);
    const int64_t q_row = c->q_size / N;
    act_t *q = ops_room_acts(be, rows * q_row), *o = ops_room_acts(be, rows * q_row);
    ops_set_acts(be, q, c->q, c->q_size);
    be->ops->qkv_rope(be, q, ops_room_acts(be, c->k_size), ops_room_acts(be, c->k_size), q,
                      ops_in_acts(be, c->k, c->k_size), ops_in_acts(be, c->v, c->k_size), &c->a,
                      &cache, &all);
    int *ones = malloc((size_t)rows * sizeof *ones);
    for (int i = 0; i < rows; i++)
        ones[i] = 1;
    struct batch host = ops_batch(ones, rows);
    int32_t *position = (int32_t *)(uintptr_t)host.position,
            *slot = (int32_t *)(uintptr_t)host.slot;
    for (int i = 0; i < rows; i++) {
        position[i] = i < N ? c->b.position[i] : 0;
        slot[i] = i < N ? c->b.slot[c->b.sequence[i]] : slots - 1;
    }
    const struct batch single = ops_in_batch(be, &host);
    be->ops->attn_decode(be, o, q, &c->a, &cache, &single);
    ops_out_acts(be, out, o, c->q_size);
    ops_batch_free(&host);
    free(ones);
}

/* Rows of x [tokens][width] in the order of the batch's sequences turned round. */
static float *turned_round(const float *x, int64_t size, const struct attention_case *c)
{
    const int64_t width = size / c->b.n_tokens;
    float *y = malloc((size_t)size * sizeof *y), *to = y;
    for (int s = c->b.n_seqs - 1; s >= 0; s--) {
        const int64_t n = (c->b.start[s + 1] - c->b.start[s]) * width;
        memcpy(to, x + c->b.start[s] * width, (size_t)n * sizeof *y);
        to += n;
    }
    return y;
}

/* The same case with its sequences in the opposite order. */
static struct attention_case turned_case(const struct attention_case *c)
{
    struct attention_case y = *c;
    int length[SEQUENCES];
    for (int s = 0; s < c->b.n_seqs; s++)
        length[c->b.n_seqs - 1 - s] = c->b.start[s + 1] - c->b.start[s];
    y.b = ops_batch(length, c->b.n_seqs);
    y.q = turned_round(c->q, c->q_size, c);
    y.d_o = turned_round(c->d_o, c->q_size, c);
    y.k = turned_round(c->k, c->k_size, c);
    y.v = turned_round(c->v, c->k_size, c);
    return y;
}

static void check_forward_and_decode(struct attention_case *c, struct attention_case *turned)
{
    const size_t bytes = (size_t)c->q_size * sizeof(float);
    float *got = ops_once(run_forward, c, bytes, 2),
          *other = ops_once(run_forward, turned, bytes, 1);
    float *decoded = c->a.bidirectional ? NULL : ops_once(run_decode_at_once, c, bytes, 2),
          *expected = turned_round(got, c->q_size, c);
    assert_memory_equal(other, expected, bytes);
    if (decoded)
        assert_memory_equal(decoded, got, bytes);
    double *q = ops_double(c->q, c->q_size), *k = ops_double(c->k, c->k_size),
           *v = ops_double(c->v, c->k_size), *o = ops_double(c->q, c->q_size);
    for (int s = 0; s < c->b.n_seqs; s++) {
        const int64_t q_at = c->b.start[s] * (c->q_size / c->b.n_tokens),
                      k_at = c->b.start[s] * (c->k_size / c->b.n_tokens);
        reference_attention(o + q_at, q + q_at, k + k_at, v + k_at, &c->a,
                            c->b.start[s + 1] - c->b.start[s]);
    }
    ops_close_acts("o", got, o, c->q_size, 1e-5);
    free(got);
    free(other);
    free(decoded);
    free(expected);
    free(q);
    free(k);
    free(v);
    free(o);
}

static void check_backward(struct attention_case *c, struct attention_case *turned)
{
    const int64_t size[3] = {c->q_size, c->k_size, c->k_size};
    const size_t bytes = (size_t)(c->q_size + 2 * c->k_size) * sizeof(float);
    float *got = ops_once(run_backward, c, bytes, 2),
          *other = ops_once(run_backward, turned, bytes, 1);
    double *q = ops_double(c->q, c->q_size), *k = ops_double(c->k, c->k_size),
           *v = ops_double(c->v, c->k_size), *d_o = ops_double(c->d_o, c->q_size),
           *want = malloc(2 * bytes);
    double *dk = want + c->q_size, *dv = dk + c->k_size;
    for (int s = 0; s < c->b.n_seqs; s++) {
        const int64_t q_at = c->b.start[s] * (c->q_size / c->b.n_tokens),
                      k_at = c->b.start[s] * (c->k_size / c->b.n_tokens);
        reference_attention_backward(want + q_at, dk + k_at, dv + k_at, d_o + q_at, q + q_at,
                                     k + k_at, v + k_at, &c->a, c->b.start[s + 1] - c->b.start[s]);
    }
    int64_t at = 0;
    for (int i = 0; i < 3; at += size[i++]) {
        static const char *const name[] = {"dq", "dk", "dv"};
        float *expected = turned_round(got + at, size[i], c);
        assert_memory_equal(other + at, expected, (size_t)size[i] * sizeof *expected);
        ops_close_acts(name[i], got + at, want + at, size[i], 3e-5); /* sums of up to 5140 terms */
        free(expected);
    }
    free(got);
    free(other);
    free(q);
    free(k);
    free(v);
    free(d_o);
    free(want);
}

static void test_borders_of_tiles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof borders / sizeof *borders; i++) {
        struct attention_case c = case_of(borders[i].shape, borders[i].length, borders[i].n_seqs);
        struct attention_case turned = turned_case(&c);
        check_forward_and_decode(&c, &turned);
        check_backward(&c, &turned);
        case_free(&turned);
        case_free(&c);
    }
}

/* Scores that are not divided by the root of the head size (GPT-Neo). */
static void test_another_scale(void **state)
{
    (void)state;
    static const int length[] = {70, 1, 257};
    struct attention_case c = case_of((struct shape){4, 2, 24, 40}, length, 3);
    for (int64_t i = 0; i < c.q_size; i++)
        c.q[i] *= 0.25f;
    c.a.scale = 1;
    struct attention_case turned = turned_case(&c);
    check_forward_and_decode(&c, &turned);
    check_backward(&c, &turned);
    case_free(&turned);
    case_free(&c);
}

/* A cache so long that what its splits leave does not fit the scratch for all sequences at once. */
static void run_decode_in_turns(struct backend *be, void *context, void *out)
{
    const struct attention_case *c = context;
    const int ones[LONG_ROWS] = {1, 1, 1, 1, 1};
    struct batch host = ops_batch(ones, LONG_ROWS);
    const struct kv_cache cache = {
        ops_room(be, be->ops->cache_bytes(be, &c->a, LONG_ROWS, LONG_CACHE)), LONG_ROWS,
        LONG_CACHE};
    const struct batch b = ops_in_batch(be, &host);
    act_t *q = ops_in_acts(be, c->q, c->q_size), *k = ops_in_acts(be, c->k, c->k_size),
          *v = ops_in_acts(be, c->v, c->k_size);
    be->ops->qkv_rope(be, q, k, v, q, k, v, &c->a, &cache, &b);
    be->ops->attn_decode(be, q, q, &c->a, &cache, &b);
    ops_out_acts(be, out, q, c->q_size);
    ops_batch_free(&host);
}

/* Each attends to its first token alone: o = v. */
static void test_decode_with_a_long_cache(void **state)
{
    (void)state;
    const int ones[LONG_ROWS] = {1, 1, 1, 1, 1};
    struct attention_case c = case_of((struct shape){16, 1, 8, 0}, ones, LONG_ROWS);
    float *got = ops_once(run_decode_in_turns, &c, (size_t)c.q_size * sizeof *got, 1);
    double *want = ops_double(c.q, c.q_size);
    for (int64_t i = 0; i < c.q_size; i++)
        want[i] = c.v[i / (16 * 8) * 8 + i % 8];
    ops_close_acts("o", got, want, c.q_size, 1e-6);
    free(want);
    free(got);
    case_free(&c);
}

/* The reference's derivatives are central differences of its forward. */
static void check_reference_slope(struct shape shape)
{
    const int T = 5;
    struct attention_case c = case_of(shape, &T, 1);
    const int64_t nq = c.q_size, nk = c.k_size;
    double *x = malloc((size_t)(nq + 2 * nk) * sizeof *x),
           *d = malloc((size_t)(nq + 2 * nk) * sizeof *d), *d_o = ops_double(c.d_o, nq),
           *o[2] = {malloc((size_t)nq * 8), malloc((size_t)nq * 8)};
    for (int64_t i = 0; i < nq + 2 * nk; i++)
        x[i] = i < nq ? c.q[i] : i < nq + nk ? c.k[i - nq] : c.v[i - nq - nk];
    reference_attention_backward(d, d + nq, d + nq + nk, d_o, x, x + nq, x + nq + nk, &c.a, T);
    for (int64_t i = 0; i < nq + 2 * nk; i++) {
        const double middle = x[i], step = 1e-6;
        double slope = 0;
        for (int side = 0; side < 2; side++) {
            x[i] = middle + (side ? step : -step);
            reference_attention(o[side], x, x + nq, x + nq + nk, &c.a, T);
        }
        x[i] = middle;
        for (int64_t j = 0; j < nq; j++)
            slope += d_o[j] * (o[1][j] - o[0][j]) / (2 * step);
        assert_true(fabs(slope - d[i]) < 1e-7 * (1 + fabs(slope)));
    }
    free(x);
    free(d);
    free(d_o);
    free(o[0]);
    free(o[1]);
    case_free(&c);
}

static void test_reference_slope(void **state)
{
    (void)state;
    check_reference_slope((struct shape){4, 2, 3, 3});
    check_reference_slope((struct shape){4, 2, 3, BOTH_WAYS});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_decode_has_the_bits_of_forward),
        cmocka_unit_test(test_forward_of_a_prefix),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_borders_of_tiles),
        cmocka_unit_test(test_another_scale),
        cmocka_unit_test(test_decode_with_a_long_cache),
        cmocka_unit_test(test_reference_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
