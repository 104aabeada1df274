/* Attention, forward: whole sequences, causally or both ways, and one query a sequence against the cache.
 *
 *   s_j = q . k_j;  p_j = exp(scale (s_j - max s));  o = (sum_j p_j v_j) / (sum_j p_j),  j = first .. last seen key
 *
 * Both go through attend(), at most four query rows against one kv head: consecutive tokens of a head in attn_forward, the
 * heads of a group in attn_decode. A row's bits depend on its own query and keys alone (see attention.h), so decoding gives
 * the bits of the forward pass. Work is dealt by (sequence, kv head); packing is shared by the heads of a group. */
#include "cpu/attention.h"
#include "cpu/ops.h"

#include <omp.h>

/* Up to four query rows against the keys and values of one kv head. Row r sees keys from[r] .. to[r] - 1. */
struct query_rows {
    int n, head_dim;
    float scale;
    const float *q;
    float *o;
    int64_t q_stride, o_stride;
    int from[ROWS], to[ROWS];
    float *p;   /* scratch [ROWS][p_stride] */
    float *sum; /* scratch [ROWS][hd padded] */
    int64_t p_stride;
};

static void scores(const struct query_rows *w, const float *keys, int from, int to)
{
    const int first = from / LANES, last = round16(to) / LANES, hd = w->head_dim;
    const size_t panel = (size_t)hd * LANES;
    if (w->n == ROWS) {
        for (int i = first; i < last; i++)
            dots_four(w->p + i * LANES, w->p_stride, w->q, w->q_stride, keys + i * panel, hd);
        return;
    }
    for (int r = 0; r < w->n; r++) {
        for (int i = first; i < last; i += 4)
            dots_one(w->p + r * w->p_stride + i * LANES, w->q + r * w->q_stride, keys + i * panel,
                     last - i < 4 ? last - i : 4, hd);
    }
}

static void attend(const struct query_rows *w, const float *keys, const float *values)
{
    const int hd = w->head_dim, padded = round16(hd);
    int from = w->from[0], to = w->to[0], all_from = from, all_to = to;
    for (int r = 1; r < w->n; r++) {
        from = w->from[r] < from ? w->from[r] : from;
        to = w->to[r] > to ? w->to[r] : to;
        all_from = w->from[r] > all_from ? w->from[r] : all_from;
        all_to = w->to[r] < all_to ? w->to[r] : all_to;
    }
    scores(w, keys, from, to);
    float total[ROWS];
    for (int r = 0; r < w->n; r++)
        total[r] = softmax_row(w->p + r * w->p_stride, w->from[r], w->to[r], w->scale);

    memset(w->sum, 0, (size_t)w->n * (size_t)padded * sizeof *w->sum);
    const bool together = w->n == ROWS && all_from < all_to;
    for (int r = 0; r < w->n; r++)
        gather_one(w->sum + r * padded, w->p + r * w->p_stride, values, w->from[r],
                   together ? all_from : w->to[r], padded);
    if (together) {
        gather_four(w->sum, w->p, w->p_stride, values, all_from, all_to, padded);
        for (int r = 0; r < w->n; r++)
            gather_one(w->sum + r * padded, w->p + r * w->p_stride, values, all_to, w->to[r],
                       padded);
    }
    for (int r = 0; r < w->n; r++) {
        const float inverse = 1.0f / total[r];
        for (int d = 0; d < hd; d++)
            w->o[r * w->o_stride + d] = w->sum[r * padded + d] * inverse;
    }
}

size_t CPU(attention_workspace)(int max_seq, int head_dim)
{
    const size_t T = (size_t)round16(max_seq), padded = (size_t)round16(head_dim);
    return (5 * T * padded + 2 * ROWS * T + 3 * ROWS * padded) * sizeof(float);
}

size_t CPU(cache_bytes)(struct backend *be, const struct attention *a, int slots, int max_tokens)
{
    (void)be;
    return cache_head_floats(a->head_dim, max_tokens) * (size_t)slots * (size_t)a->kv_heads *
           sizeof(float);
}

static int longest(const struct batch *b)
{
    int T = 0;
    for (int s = 0; s < b->n_seqs; s++)
        T = b->start[s + 1] - b->start[s] > T ? b->start[s + 1] - b->start[s] : T;
    return T;
}

/* One sequence of T tokens and one kv head: o, q [T][nh * hd], k, v [T][nkv * hd], moved to the sequence and the head. */
static void forward_head(float *o, const float *q, const float *k, const float *v,
                         const struct attention *a, int T, float *scratch)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads;
    const int64_t q_stride = (int64_t)a->heads * hd, kv_stride = (int64_t)a->kv_heads * hd;
    const size_t rows = (size_t)round16(T), padded = (size_t)round16(hd);
    float *keys = scratch, *values = keys + rows * padded, *p = values + rows * padded;
    pack_panels(keys, k, kv_stride, T, hd);
    pack_rows(values, v, kv_stride, T, hd);
    for (int head = 0; head < group; head++) {
        for (int t = 0; t < T; t += ROWS) {
            struct query_rows w = {.n = T - t < ROWS ? T - t : ROWS,
                                   .head_dim = hd,
                                   .scale = a->scale,
                                   .q = q + t * q_stride + head * hd,
                                   .o = o + t * q_stride + head * hd,
                                   .q_stride = q_stride,
                                   .o_stride = q_stride,
                                   .p = p,
                                   .p_stride = (int64_t)rows,
                                   .sum = p + ROWS * rows};
            for (int r = 0; r < w.n; r++) {
                w.from[r] = first_key(a, t + r);
                w.to[r] = end_key(a, t + r, T);
            }
            attend(&w, keys, values);
        }
    }
}

void CPU(attn_forward)(struct backend *be, float *o, const float *q, const float *k, const float *v,
                       const struct attention *a, const struct batch *b)
{
    const size_t bytes = CPU(attention_workspace)(longest(b), a->head_dim);
    const int group = a->heads / a->kv_heads;
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(cpu_state(be)->threads) if (attention_is_large(a, b))
    for (int i = 0; i < b->n_seqs * a->kv_heads; i++) {
        const int seq = i / a->kv_heads, head = i % a->kv_heads;
        const int64_t row = b->start[seq], hd = a->head_dim;
        const int64_t q_at = (row * a->heads + head * group) * hd;
        const int64_t kv_at = (row * a->kv_heads + head) * hd;
        forward_head(o + q_at, q + q_at, k + kv_at, v + kv_at, a, b->start[seq + 1] - (int)row,
                     cpu_scratch(be, omp_get_thread_num(), bytes));
    }
}

void CPU(attn_decode)(struct backend *be, float *o, const float *q, const struct attention *a,
                      const struct kv_cache *cache, const struct batch *b)
{
    const int hd = a->head_dim, group = a->heads / a->kv_heads;
    int T = 0;
    int64_t work = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        const int length = b->position[b->start[s]] + 1;
        CHECK(length <= cache->max_tokens, "position %d of a cache for %d", length - 1,
              cache->max_tokens);
        T = length > T ? length : T;
        work += (int64_t)length * a->heads * hd;
    }
    const int64_t rows = round16(T);
    const size_t bytes = CPU(attention_workspace)(T, hd);
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(cpu_state(be)->threads) if (work >= ATTENTION_MIN)
    for (int i = 0; i < b->n_seqs * a->kv_heads; i++) {
        const int seq = i / a->kv_heads, kv_head = i % a->kv_heads;
        const int token = b->start[seq], position = b->position[token];
        const float *keys = cache_head(cache, a, b->slot[seq], kv_head);
        float *p = cpu_scratch(be, omp_get_thread_num(), bytes);
        for (int first = 0; first < group; first += ROWS) {
            const int64_t at = ((int64_t)token * a->heads + kv_head * group + first) * hd;
            struct query_rows w = {.n = group - first < ROWS ? group - first : ROWS,
                                   .head_dim = hd,
                                   .scale = a->scale,
                                   .q = q + at,
                                   .o = o + at,
                                   .q_stride = hd,
                                   .o_stride = hd,
                                   .p = p,
                                   .p_stride = rows,
                                   .sum = p + ROWS * rows};
            for (int r = 0; r < w.n; r++) {
                w.from[r] = first_key(a, position);
                w.to[r] = position + 1;
            }
            attend(&w, keys, keys + cache_keys_floats(hd, cache->max_tokens));
        }
    }
}
