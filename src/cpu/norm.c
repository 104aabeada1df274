/* Layer norm and RMS norm with the residual sum in front, and their derivatives.
 *
 *   layer: xhat = (x - mean) / sqrt(mean((x - mean)^2) + eps);  RMS: xhat = x / sqrt(mean(x^2) + eps);  y = xhat w + b
 *   g = dy w;  dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(..)      (RMS without mean(g))
 *
 * Sums over a row: 16 lanes by column, then the fixed tree; the last lanes of an odd row add zeros. A norm's own gradients
 * are summed per sequence in token order, by columns, and go to the exact accumulators. */
#include "cpu/fixed.h"
#include "cpu/ops.h"

struct moments {
    float mean, scale; /* xhat = (x - mean) * scale */
};

static inline v16 load(const float *p, int n)
{
    return v16_load_part(p, n < LANES ? n : LANES);
}

static inline void store(float *p, v16 x, int n)
{
    v16_store_part(p, x, n < LANES ? n : LANES);
}

/* sum = x + add1 + add2; each add may be NULL, sum may be x */
static void row_add(float *sum, const float *x, const float *add1, const float *add2, int H)
{
    if (sum == x && !add1 && !add2)
        return;
    for (int i = 0; i < H; i += LANES) {
        const int m = H - i;
        v16 y = load(x + i, m);
        if (add1)
            y = v16_add(y, load(add1 + i, m));
        if (add2)
            y = v16_add(y, load(add2 + i, m));
        store(sum + i, y, m);
    }
}

static struct moments row_moments(const float *x, enum norm_kind kind, float eps, int H)
{
    v16 sum = v16_all(0), squares = v16_all(0);
    float mean = 0;
    if (kind == NORM_LAYER) {
        for (int i = 0; i < H; i += LANES)
            sum = v16_add(sum, load(x + i, H - i));
        mean = v16_sum(sum) / (float)H;
    }
    const v16 shift = v16_all(mean);
    const int whole = H / LANES * LANES;
    for (int i = 0; i < whole; i += LANES) {
        v16 d = v16_sub(v16_load(x + i), shift);
        squares = v16_fma(d, d, squares);
    }
    if (whole < H) {
        float rest[LANES];
        v16_store(rest, v16_sub(v16_load_part(x + whole, H - whole), shift));
        v16 d = v16_load_part(rest, H - whole);
        squares = v16_fma(d, d, squares);
    }
    return (struct moments){mean, 1.0f / sqrtf(v16_sum(squares) / (float)H + eps)};
}

static void row_forward(float *y, const float *x, const struct norm *n, struct moments s, int H)
{
    const v16 mean = v16_all(s.mean), scale = v16_all(s.scale);
    for (int i = 0; i < H; i += LANES) {
        const int m = H - i;
        v16 xhat = v16_mul(v16_sub(load(x + i, m), mean), scale), w = load(n->weight + i, m);
        store(y + i, n->bias ? v16_fma(xhat, w, load(n->bias + i, m)) : v16_mul(xhat, w), m);
    }
}

void CPU(norm_forward)(struct backend *be, float *y1, float *y2, float *sum, const float *x,
                       const float *add1, const float *add2, const struct norm *n1,
                       const struct norm *n2, int N, int H)
{
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * H >= PARALLEL_MIN)
    for (int row = 0; row < N; row++) {
        const int64_t at = (int64_t)row * H;
        row_add(sum + at, x + at, add1 ? add1 + at : NULL, add2 ? add2 + at : NULL, H);
        struct moments s = row_moments(sum + at, n1->kind, n1->eps, H);
        row_forward(y1 + at, sum + at, n1, s, H);
        if (y2) {
            if (n2->kind != n1->kind || n2->eps != n1->eps)
                s = row_moments(sum + at, n2->kind, n2->eps, H);
            row_forward(y2 + at, sum + at, n2, s, H);
        }
    }
}

void CPU(norm_row)(float *y, const float *x, const struct norm *n, int H)
{
    row_forward(y, x, n, row_moments(x, n->kind, n->eps, H), H);
}

void CPU(add)(struct backend *be, float *y, const float *x, const float *add1, const float *add2,
              int N, int H)
{
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * H >= PARALLEL_MIN)
    for (int row = 0; row < N; row++) {
        const int64_t at = (int64_t)row * H;
        row_add(y + at, x + at, add1 + at, add2 ? add2 + at : NULL, H);
    }
}

static void row_backward(float *dx, const float *dy, const float *x, const struct norm *n,
                         struct moments s, int H)
{
    const v16 mean = v16_all(s.mean), scale = v16_all(s.scale);
    v16 sum_g = v16_all(0), sum_gx = v16_all(0);
    for (int i = 0; i < H; i += LANES) {
        const int m = H - i;
        v16 xhat = v16_mul(v16_sub(load(x + i, m), mean), scale);
        v16 g = v16_mul(load(dy + i, m), load(n->weight + i, m)); /* zero past the end */
        sum_g = v16_add(sum_g, g);
        sum_gx = v16_fma(g, xhat, sum_gx);
    }
    const v16 mean_g = v16_all(n->kind == NORM_LAYER ? v16_sum(sum_g) / (float)H : 0.0f);
    const v16 minus_gx = v16_all(-(v16_sum(sum_gx) / (float)H));
    for (int i = 0; i < H; i += LANES) {
        const int m = H - i;
        v16 xhat = v16_mul(v16_sub(load(x + i, m), mean), scale);
        v16 g = v16_mul(load(dy + i, m), load(n->weight + i, m));
        v16 centred = v16_fma(xhat, minus_gx, v16_sub(g, mean_g));
        store(dx + i, v16_fma(centred, scale, load(dx + i, m)), m);
    }
}

void CPU(norm_row_backward)(float *dx, const float *dy, const float *x, const struct norm *n, int H)
{
    row_backward(dx, dy, x, n, row_moments(x, n->kind, n->eps, H), H);
}

/* Columns column .. column + 15 of dweight and dbias, sequence by sequence. */
static void column_gradients(const float *dy, const float *x, const struct norm *n,
                             const struct moments *s, int column, int H, struct grads *g,
                             const struct batch *b)
{
    const int m = H - column < LANES ? H - column : LANES;
    for (int seq = 0; seq < b->n_seqs; seq++) {
        v16 dweight = v16_all(0), dbias = v16_all(0);
        for (int row = b->start[seq]; row < b->start[seq + 1]; row++) {
            const int64_t at = (int64_t)row * H + column;
            v16 d = load(dy + at, m);
            v16 xhat =
                v16_mul(v16_sub(load(x + at, m), v16_all(s[row].mean)), v16_all(s[row].scale));
            dweight = v16_fma(d, xhat, dweight);
            dbias = v16_add(dbias, d);
        }
        float sums[LANES];
        if (n->offset_weight >= 0) {
            v16_store(sums, dweight);
            grads_add(g, n->offset_weight + column, sums, m);
        }
        if (n->bias && n->offset_bias >= 0) {
            v16_store(sums, dbias);
            grads_add(g, n->offset_bias + column, sums, m);
        }
    }
}

size_t CPU(norm_workspace)(int max_tokens)
{
    return (size_t)max_tokens * sizeof(struct moments);
}

static void backward(struct backend *be, float *dx, const float *dy, const float *x,
                     const struct norm *n, int H, struct grads *g, const struct batch *b)
{
    const int N = b->n_tokens;
    const bool trained = n->offset_weight >= 0 || (n->bias && n->offset_bias >= 0);
    struct moments *kept =
        trained ? (struct moments *)(void *)cpu_scratch(be, 0, CPU(norm_workspace)(N)) : NULL;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * H >= PARALLEL_MIN)
    for (int row = 0; row < N; row++) {
        const int64_t at = (int64_t)row * H;
        struct moments s = row_moments(x + at, n->kind, n->eps, H);
        row_backward(dx + at, dy + at, x + at, n, s, H);
        if (trained)
            kept[row] = s;
    }
    if (!trained)
        return;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * H >= PARALLEL_MIN)
    for (int column = 0; column < H; column += LANES)
        column_gradients(dy, x, n, kept, column, H, g, b);
}

void CPU(norm_backward)(struct backend *be, float *dx, const float *dy1, const float *dy2,
                        const float *x, const struct norm *n1, const struct norm *n2, int H,
                        struct grads *g, const struct batch *b)
{
    backward(be, dx, dy1, x, n1, H, g, b);
    if (dy2)
        backward(be, dx, dy2, x, n2, H, g, b);
}
