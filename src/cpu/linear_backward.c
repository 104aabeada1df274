/* Linear layers backward: dx from weights expanded tile by tile to float, adapters' (and masters') gradients contracted per
 * sequence in float, in token order, then added exactly. */
#include "cpu/fixed.h"
#include "cpu/linear.h"

/* w[o - first][0 .. 15] of inputs k .. k + 15 as floats, zeros beyond in; for outputs first .. end - 1, first a multiple of 16.
 * Whole panels: tile has room for end rounded up. */
static void expand_tile(float *tile, const struct linear *l, int first, int end, int k, int in)
{
    const int n = in - k < LANES ? in - k : LANES;
    float block[LANES * LANES] = {0}; /* [k][o] */
    for (int o = first; o < end; o += LANES) {
        float *to = tile + (int64_t)(o - first) * LANES;
        const char *panel = (const char *)l->weight + (size_t)(o / LANES) * CPU(panel_bytes)(l->dtype, in);
        if (l->dtype == DTYPE_F32 && n == LANES) {
            transpose16(to, LANES, (const float *)(const void *)panel + k * LANES, LANES);
            continue;
        }
        expand_panel(block, panel, l->dtype, k, n);
        transpose16(to, LANES, block, LANES);
        for (int j = 0; l->dtype == DTYPE_I8 && j < LANES && o + j < end; j++)
            v16_store(to + j * LANES, v16_mul(v16_load(to + j * LANES), v16_all(l->absmax[o + j] / 127.0f)));
    }
}

static void copy_tile(float *tile, const float *master, int first, int end, int k, int in)
{
    const int n = in - k < LANES ? in - k : LANES;
    for (int o = first; o < end; o++)
        v16_store(tile + (int64_t)(o - first) * LANES, v16_load_part(master + (int64_t)o * in + k, n));
}

/* Outputs first .. end - 1 of the sums for 16 inputs, all rows; sums begin at zero, or with what dx holds. */
static void transposed_tile(float *dx, bool add, const float *dy, const struct linear *l, const float *master, int out, int in,
                            int N, int tile, int first, int end)
{
    float w[K_BLOCK * LANES];
    const int k = tile * LANES, lanes = in - k < LANES ? in - k : LANES;
    if (master)
        copy_tile(w, master, first, end, k, in);
    else
        expand_tile(w, l, first, end, k, in);
    for (int row = 0; row < N; row += ROW_TILE) {
        const int R = N - row < ROW_TILE ? N - row : ROW_TILE;
        float *to = dx + (int64_t)row * in + k;
        v16 total[ROW_TILE];
        for (int r = 0; r < R; r++)
            total[r] = add ? v16_load_part(to + (int64_t)r * in, lanes) : v16_all(0.0f);
        product_tile(total, R, 1, DTYPE_F32, dy + (int64_t)row * out + first, out, w, LANES, 0, end - first);
        for (int r = 0; r < R; r++)
            v16_store_part(to + (int64_t)r * in, total[r], lanes);
    }
}

/* A thread takes several tiles at once: a block of dy stays in its cache for all of them. */
void CPU(product_transposed)(struct backend *be, float *dx, bool add, const float *dy, const struct linear *l,
                             const float *master, int out, int in, int N)
{
    const int tiles = (in + LANES - 1) / LANES, threads = cpu_state(be)->threads, share = (tiles + threads - 1) / threads;
#pragma omp parallel for schedule(static) num_threads(threads) if ((int64_t)N * out * in >= PARALLEL_PRODUCT)
    for (int from = 0; from < tiles; from += share) {
        const int to = from + share < tiles ? from + share : tiles;
        for (int first = 0; first < out; first += K_BLOCK)
            for (int tile = from; tile < to; tile++)
                transposed_tile(dx, add || first > 0, dy, l, master, out, in, N, tile, first,
                                first + K_BLOCK < out ? first + K_BLOCK : out);
    }
}

/* Rows i .. i + 3 and columns j .. j + 15 of the sum over tokens first .. end - 1, in order, of left[t][i] right[t][j]. */
static void contract_tile(v16 acc[4], const float *left, int I, int rows, const float *right, int J, int columns, int first, int end)
{
    for (int r = 0; r < 4; r++)
        acc[r] = v16_all(0.0f);
    if (rows == 4 && columns == LANES) {
        for (int t = first; t < end; t++) {
            const v16 x = v16_load(right + (int64_t)t * J);
            const float *a = left + (int64_t)t * I;
            for (int r = 0; r < 4; r++)
                acc[r] = v16_fma(v16_all(a[r]), x, acc[r]);
        }
        return;
    }
    for (int t = first; t < end; t++) {
        const v16 x = v16_load_part(right + (int64_t)t * J, columns);
        for (int r = 0; r < rows; r++)
            acc[r] = v16_fma(v16_all(left[(int64_t)t * I + r]), x, acc[r]);
    }
}

void CPU(contract)(struct backend *be, const float *left, int I, const float *right, int J, float scale, const int32_t *start,
                   int n_seqs, struct grads *g, int64_t offset)
{
    enum { WIDTH = 256 };
    const int64_t work = (int64_t)(start[n_seqs] - start[0]) * I * J;
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if (work >= PARALLEL_PRODUCT)
    for (int i = 0; i < I; i += 4) {
        const int rows = I - i < 4 ? I - i : 4;
        for (int s = 0; s < n_seqs; s++) {
            for (int from = 0; from < J; from += WIDTH) {
                const int width = J - from < WIDTH ? J - from : WIDTH;
                float sum[4][WIDTH];
                for (int j = 0; j < width; j += LANES) {
                    const int n = width - j < LANES ? width - j : LANES;
                    v16 acc[4];
                    contract_tile(acc, left + i, I, rows, right + from + j, J, n, start[s], start[s + 1]);
                    for (int r = 0; r < rows; r++)
                        v16_store(sum[r] + j, v16_mul(acc[r], v16_all(scale)));
                }
                for (int r = 0; r < rows; r++)
                    grads_add(g, offset + (int64_t)(i + r) * J + from, sum[r], width);
            }
        }
    }
}

static void bias_gradient(const float *dy, int out, const struct batch *b, struct grads *g, int64_t offset)
{
    for (int s = 0; s < b->n_seqs; s++) {
        for (int o = 0; o < out; o += LANES) {
            const int n = out - o < LANES ? out - o : LANES;
            float sum[LANES];
            v16 acc = v16_all(0.0f);
            for (int t = b->start[s]; t < b->start[s + 1]; t++)
                acc = v16_add(acc, v16_load_part(dy + (int64_t)t * out + o, n));
            v16_store(sum, acc);
            grads_add(g, offset + o, sum, n);
        }
    }
}

/* dA, dB, and dx += mask(dh A) / (1 - p), with h = A u, dh = scale dy B. */
static void adapter_backward(struct backend *be, float *dx, const struct linear *l, const struct lora *a, const float *dy,
                             const float *x, int N, const struct linear_pass *pass, struct grads *g)
{
    float *u = cpu_scratch(be, 0, (size_t)N * 2 * (size_t)(l->in + a->r) * sizeof *u), *du = u + (int64_t)N * l->in;
    float *h = du + (int64_t)N * l->in, *dh = h + (int64_t)N * a->r;
    const float *dropped = CPU(dropped)(be, u, x, l->in, N, a, pass);
    const struct linear A = {.out = a->r, .in = l->in, .dtype = DTYPE_F32, .weight = a->a_packed};
    CPU(head_product)(be, h, dropped, &A, N);
    CPU(product_transposed)(be, dh, false, dy, NULL, a->b, l->out, a->r, N);
    for (int64_t i = 0; i < (int64_t)N * a->r; i++)
        dh[i] *= a->scale;
    CPU(contract)(be, dy, l->out, h, a->r, a->scale, pass->batch->start, pass->batch->n_seqs, g, a->offset_b);
    CPU(contract)(be, dh, a->r, dropped, l->in, 1.0f, pass->batch->start, pass->batch->n_seqs, g, a->offset_a);
    if (!dx)
        return;
    if (dropped == x) {
        CPU(product_transposed)(be, dx, true, dh, NULL, a->a, a->r, l->in, N);
        return;
    }
    CPU(product_transposed)(be, du, false, dh, NULL, a->a, a->r, l->in, N);
    CPU(dropped)(be, u, du, l->in, N, a, pass); /* the same mask and factor */
    for (int64_t i = 0; i < (int64_t)N * l->in; i++)
        dx[i] += u[i];
}

void CPU(linear_backward)(struct backend *be, float *dx, struct linear *const *l, const float *const *dy, int n_linears,
                          const float *x, int N, const struct linear_pass *pass, struct grads *g)
{
    for (int i = 0; i < n_linears && dx; i++)
        CPU(product_transposed)(be, dx, i > 0, dy[i], l[i], l[i]->master, l[i]->out, l[i]->in, N);
    for (int i = 0; i < n_linears; i++) {
        if (l[i]->master)
            CPU(contract)(be, dy[i], l[i]->out, x, l[i]->in, 1.0f, pass->batch->start, pass->batch->n_seqs, g, l[i]->offset_weight);
        if (l[i]->master && l[i]->bias)
            bias_gradient(dy[i], l[i]->out, pass->batch, g, l[i]->offset_bias);
        if (pass->adapter >= 0 && l[i]->adapter[pass->adapter])
            adapter_backward(be, dx, l[i], l[i]->adapter[pass->adapter], dy[i], x, N, pass, g);
    }
}
