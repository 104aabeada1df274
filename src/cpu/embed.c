/* Rows of the embedding, and the scalar (value) head. */
#include "cpu/fixed.h"
#include "cpu/linear.h"

void CPU(embed)(struct backend *be, float *y, const struct linear *table, const struct batch *b)
{
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)b->n_tokens * table->in >= PARALLEL_MIN)
    for (int n = 0; n < b->n_tokens; n++)
        CPU(weight_row)(y + (int64_t)n * table->in, table, b->id[n]);
}

void CPU(embed_backward)(struct backend *be, const float *dx, int H, int64_t offset, const struct batch *b, struct grads *g)
{
    (void)be;
    for (int n = 0; n < b->n_tokens; n++)
        grads_add(g, offset + (int64_t)b->id[n] * H, dx + (int64_t)n * H, H);
}

void CPU(scalar_head)(struct backend *be, float *value, const float *w, const float *bias, const float *x, int H,
                      const struct head_rows *rows)
{
    (void)be;
    for (int i = 0; i < rows->n; i++) {
        const float *row = x + (int64_t)rows->row[i] * H;
        v16 sum = v16_all(0.0f);
        for (int k = 0; k < H; k += LANES) {
            int n = H - k < LANES ? H - k : LANES;
            sum = v16_fma(v16_load_part(row + k, n), v16_load_part(w + k, n), sum);
        }
        value[i] = v16_sum(sum) + bias[0];
    }
}

/* Rows are in the order of sequences: each run of rows of one sequence is one contribution. */
void CPU(scalar_head_backward)(struct backend *be, float *dx, const float *dvalue, const float *w, const float *x, int H,
                               const struct head_rows *rows, struct grads *g, int64_t offset, const struct batch *b)
{
    (void)be;
    for (int first = 0, end; first < rows->n; first = end) {
        float bias = 0.0f;
        for (end = first; end < rows->n && b->sequence[rows->row[end]] == b->sequence[rows->row[first]]; end++) {
            float *d = dx + (int64_t)rows->row[end] * H;
            for (int k = 0; k < H; k++)
                d[k] = fmaf(dvalue[end], w[k], d[k]);
            bias += dvalue[end];
        }
        for (int k = 0; k < H; k += LANES) {
            const int n = H - k < LANES ? H - k : LANES;
            float sum[LANES];
            v16 acc = v16_all(0.0f);
            for (int i = first; i < end; i++)
                acc = v16_fma(v16_all(dvalue[i]), v16_load_part(x + (int64_t)rows->row[i] * H + k, n), acc);
            v16_store(sum, acc);
            grads_add(g, offset + k, sum, n);
        }
        grads_add(g, offset + H, &bias, 1);
    }
}
