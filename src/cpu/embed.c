/* Rows of the embedding, and the score head (of values, rewards, classes). */
#include "cpu/fixed.h"
#include "cpu/linear.h"

void CPU(embed)(struct backend *be, float *y, const struct linear *table, const float *add, const int32_t *row, int first, int N)
{
    const int H = table->in;
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)N * H >= PARALLEL_MIN)
    for (int n = 0; n < N; n++) {
        float *to = y + (int64_t)n * H;
        CPU(weight_row)(to, table, row[n] + first);
        for (int k = 0; add && k < H; k++)
            to[k] += add[(int64_t)n * H + k];
    }
}

void CPU(embed_backward)(struct backend *be, const float *dx, int H, int64_t offset, const struct batch *b, struct grads *g)
{
    (void)be;
    for (int n = 0; n < b->n_tokens; n++)
        grads_add(g, offset + (int64_t)b->id[n] * H, dx + (int64_t)n * H, H);
}

void CPU(score_head)(struct backend *be, float *value, const float *w, const float *bias, int K, const float *x, int H,
                     const struct head_rows *rows)
{
    (void)be;
    for (int i = 0; i < rows->n; i++) {
        const float *row = x + (int64_t)rows->row[i] * H;
        for (int c = 0; c < K; c++) {
            const float *weight = w + (int64_t)c * H;
            v16 sum = v16_all(0.0f);
            for (int k = 0; k < H; k += LANES) {
                const int n = H - k < LANES ? H - k : LANES;
                sum = v16_fma(v16_load_part(row + k, n), v16_load_part(weight + k, n), sum);
            }
            value[(int64_t)i * K + c] = bias ? v16_sum(sum) + bias[c] : v16_sum(sum);
        }
    }
}

/* The gradient of class c from rows [first, end), which are one sequence's: one contribution. */
static void add_class(struct grads *g, int64_t offset, int64_t bias_offset, const float *dvalue, int c, int K, const float *x, int H,
                      const int32_t *row, int first, int end)
{
    for (int k = 0; k < H; k += LANES) {
        const int n = H - k < LANES ? H - k : LANES;
        float sum[LANES];
        v16 acc = v16_all(0.0f);
        for (int i = first; i < end; i++)
            acc = v16_fma(v16_all(dvalue[(int64_t)i * K + c]), v16_load_part(x + (int64_t)row[i] * H + k, n), acc);
        v16_store(sum, acc);
        grads_add(g, offset + (int64_t)c * H + k, sum, n);
    }
    if (bias_offset < 0)
        return;
    float bias = 0.0f;
    for (int i = first; i < end; i++)
        bias += dvalue[(int64_t)i * K + c];
    grads_add(g, bias_offset + c, &bias, 1);
}

/* Rows are in the order of sequences: each run of rows of one sequence is one contribution. */
void CPU(score_head_backward)(struct backend *be, float *dx, const float *dvalue, const float *w, int K, const float *x, int H,
                              const struct head_rows *rows, struct grads *g, int64_t offset, bool no_bias, const struct batch *b)
{
    (void)be;
    const int64_t bias_offset = no_bias ? -1 : offset + (int64_t)K * H;
    for (int first = 0, end; first < rows->n; first = end) {
        for (end = first; end < rows->n && b->sequence[rows->row[end]] == b->sequence[rows->row[first]]; end++) {
            float *d = dx + (int64_t)rows->row[end] * H;
            for (int c = 0; c < K; c++)
                for (int k = 0; k < H; k++)
                    d[k] = fmaf(dvalue[(int64_t)end * K + c], w[(int64_t)c * H + k], d[k]);
        }
        for (int c = 0; c < K; c++)
            add_class(g, offset, bias_offset, dvalue, c, K, x, H, rows->row, first, end);
    }
}
