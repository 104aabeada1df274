/* Attention, backward. Probabilities are computed again from q and k, with the forward pass's bits.
 *
 *   dp_j = do . v_j;  ds_j = p_j (dp_j - sum_i p_i dp_i) scale
 *   dq = sum_j ds_j k_j;  dk_j = sum over queries ds_j q;  dv_j = sum over queries p_j do
 *
 * One thread a (sequence, kv head). Queries go in blocks of four from position 0, the last block filled up with zeros;
 * dk_j and dv_j add the group's heads in order, within a head queries ascending. */
#include "cpu/attention.h"
#include "cpu/ops.h"

#include <omp.h>

/* Scratch of one (sequence, kv head). P = padded head size, T = tokens rounded up to 16. */
struct backward_scratch {
    float *key_panels, *value_panels; /* [T / 16][hd][16] */
    float *keys, *dk, *dv;            /* [T][P] */
    float *p, *ds;                    /* [ROWS][T] */
    float *q, *d_o, *dq;              /* [ROWS][P] */
    int T, padded;
};

static struct backward_scratch scratch_of(float *at, int tokens, int hd)
{
    struct backward_scratch w = {.T = round16(tokens), .padded = round16(hd)};
    const size_t all = (size_t)w.T * (size_t)w.padded, row = ROWS * (size_t)w.T;
    w.key_panels = at;
    w.value_panels = at + all;
    w.keys = at + 2 * all;
    w.dk = at + 3 * all;
    w.dv = at + 4 * all;
    w.p = at + 5 * all;
    w.ds = w.p + row;
    w.q = w.ds + row;
    w.d_o = w.q + ROWS * w.padded;
    w.dq = w.d_o + ROWS * w.padded;
    return w;
}

/* sum[j] += x[0][j] row[0] + .. + x[3][j] row[3], one after the other, over j in [from, to). */
static void scatter_four(float *sum, const float *x, int64_t x_stride, const float *rows, int from,
                         int to, int padded)
{
    for (int first = from; first < to; first += KEY_BLOCK) {
        const int end = to - first < KEY_BLOCK ? to : first + KEY_BLOCK;
        for (int d = 0; d < padded; d += LANES) {
            const v16 r0 = v16_load(rows + d), r1 = v16_load(rows + padded + d),
                      r2 = v16_load(rows + 2 * padded + d), r3 = v16_load(rows + 3 * padded + d);
            float *out = sum + (size_t)first * (size_t)padded + d;
            for (int j = first; j < end; j++, out += padded) {
                v16 a = v16_load(out);
                a = v16_fma(v16_all(x[j]), r0, a);
                a = v16_fma(v16_all(x[j + x_stride]), r1, a);
                a = v16_fma(v16_all(x[j + 2 * x_stride]), r2, a);
                a = v16_fma(v16_all(x[j + 3 * x_stride]), r3, a);
                v16_store(out, a);
            }
        }
    }
}

/* Scores of one row become probabilities, dp becomes ds; both zero outside its keys, over panels [first, last). */
static void row_scores(float *p, float *ds, int from, int to, int first, int last, float scale)
{
    const int own_first = from / LANES * LANES, own_last = round16(to);
    const v16 inverse = v16_all(1.0f / softmax_row(p, from, to, scale));
    v16 sum = v16_all(0);
    for (int j = own_first; j < own_last; j += LANES) {
        v16 x = v16_mul(v16_load(p + j), inverse);
        v16_store(p + j, x);
        sum = v16_fma(x, v16_load(ds + j), sum);
    }
    const v16 mean = v16_all(v16_sum(sum)), factor = v16_all(scale);
    for (int j = own_first; j < own_last; j += LANES) {
        v16 x = v16_mul(v16_load(p + j), v16_sub(v16_load(ds + j), mean));
        v16_store(ds + j, v16_mul(x, factor));
    }
    for (int j = first; j < own_first; j++)
        p[j] = ds[j] = 0;
    for (int j = own_last; j < last; j++)
        p[j] = ds[j] = 0;
}

/* Queries t .. t + n - 1 of one head, of T; dq, d_o, q [T][stride], moved to the head. */
static void backward_rows(const struct backward_scratch *w, float *dq, const float *d_o,
                          const float *q, int64_t stride, const struct attention *a, int t, int n,
                          int T)
{
    const int hd = a->head_dim, padded = w->padded;
    const int from = first_key(a, t), to = end_key(a, t + n - 1, T);
    const int first = from / LANES * LANES, last = round16(to);
    memset(w->q, 0, 3 * ROWS * (size_t)padded * sizeof *w->q); /* q, d_o, dq */
    pack_rows(w->q, q + t * stride, stride, n, hd);
    pack_rows(w->d_o, d_o + t * stride, stride, n, hd);
    for (int j = first; j < last; j += LANES) {
        const size_t panel = panel_at(j, hd);
        dots_four(w->p + j, w->T, w->q, padded, w->key_panels + panel, hd);
        dots_four(w->ds + j, w->T, w->d_o, padded, w->value_panels + panel, hd);
    }
    for (int r = 0; r < ROWS; r++) {
        float *p = w->p + (size_t)r * (size_t)w->T, *ds = w->ds + (size_t)r * (size_t)w->T;
        if (r < n) {
            row_scores(p, ds, first_key(a, t + r), end_key(a, t + r, T), first, last, a->scale);
        } else {
            memset(p + first, 0, (size_t)(last - first) * sizeof *p);
            memset(ds + first, 0, (size_t)(last - first) * sizeof *ds);
        }
    }
    gather_four(w->dq, w->ds, w->T, w->keys, from, to, padded);
    scatter_four(w->dv, w->p, w->T, w->d_o, from, to, padded);
    scatter_four(w->dk, w->ds, w->T, w->q, from, to, padded);
    for (int r = 0; r < n; r++)
        memcpy(dq + (t + r) * stride, w->dq + r * padded, (size_t)hd * sizeof *dq);
}

/* One sequence and one kv head; the pointers are moved to them. */
static void backward_head(float *dq, float *dk, float *dv, const float *d_o, const float *q,
                          const float *k, const float *v, const struct attention *a, int T,
                          float *scratch)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads;
    const int64_t stride = (int64_t)a->heads * hd, kv_stride = (int64_t)a->kv_heads * hd;
    const struct backward_scratch w = scratch_of(scratch, T, hd);
    pack_panels(w.key_panels, k, kv_stride, T, hd);
    pack_panels(w.value_panels, v, kv_stride, T, hd);
    pack_rows(w.keys, k, kv_stride, T, hd);
    memset(w.dk, 0, 2 * (size_t)w.T * (size_t)w.padded * sizeof *w.dk); /* dk, dv */
    for (int head = 0; head < group; head++) {
        for (int t = 0; t < T; t += ROWS)
            backward_rows(&w, dq + head * hd, d_o + head * hd, q + head * hd, stride, a, t,
                          T - t < ROWS ? T - t : ROWS, T);
    }
    for (int t = 0; t < T; t++) {
        memcpy(dk + t * kv_stride, w.dk + (size_t)t * (size_t)w.padded, (size_t)hd * sizeof *dk);
        memcpy(dv + t * kv_stride, w.dv + (size_t)t * (size_t)w.padded, (size_t)hd * sizeof *dv);
    }
}

void CPU(attn_backward)(struct backend *be, float *dq, float *dk, float *dv, const float *d_o,
                        const float *q, const float *k, const float *v, const struct attention *a,
                        const struct batch *b)
{
    int longest = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        const int T = b->start[s + 1] - b->start[s];
        longest = T > longest ? T : longest;
    }
    const size_t bytes = CPU(attention_workspace)(longest, a->head_dim);
    const int group = a->heads / a->kv_heads;
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(cpu_state(be)->threads) if (attention_is_large(a, b))
    for (int i = 0; i < b->n_seqs * a->kv_heads; i++) {
        const int seq = i / a->kv_heads, head = i % a->kv_heads;
        const int64_t row = b->start[seq], hd = a->head_dim;
        const int64_t q_at = (row * a->heads + head * group) * hd;
        const int64_t kv_at = (row * a->kv_heads + head) * hd;
        backward_head(dq + q_at, dk + kv_at, dv + kv_at, d_o + q_at, q + q_at, k + kv_at, v + kv_at,
                      a, b->start[seq + 1] - (int)row,
                      cpu_scratch(be, omp_get_thread_num(), bytes));
    }
}
