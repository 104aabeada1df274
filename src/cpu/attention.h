/* What rope.c and the attention files share: the layout of keys and values, in scratch and in the KV cache, and the two
 * products of attention.
 *
 *   keys    [tokens / 16][hd][16]   panels: lanes are keys, so a score is one chain of fma over d, ascending
 *   values  [tokens][hd']           hd' = hd rounded up to 16, zeros behind: lanes are dimensions
 *
 * The cache holds for each (slot, kv head) its keys, then its values, for max_tokens rounded up to 16.
 *
 * Whatever the blocking, each score and each output lane is the same chain of fma in the same order: the kernels for four
 * rows and for one give the same bits. */
#ifndef RLHF_SRC_CPU_ATTENTION_H
#define RLHF_SRC_CPU_ATTENTION_H

#include "cpu/cpu.h"

enum { ROWS = 4, KEY_BLOCK = 128 };

static inline int round16(int n)
{
    return (n + LANES - 1) / LANES * LANES;
}

static inline size_t cache_keys_floats(int head_dim, int max_tokens)
{
    return (size_t)round16(max_tokens) * (size_t)head_dim;
}

static inline size_t cache_head_floats(int head_dim, int max_tokens)
{
    return cache_keys_floats(head_dim, max_tokens) +
           (size_t)round16(max_tokens) * (size_t)round16(head_dim);
}

/* The keys of a slot's kv head; its values lie cache_keys_floats behind. */
static inline float *cache_head(const struct kv_cache *cache, const struct attention *a, int slot,
                                int kv_head)
{
    return (float *)cache->data + cache_head_floats(a->head_dim, cache->max_tokens) *
                                      ((size_t)slot * (size_t)a->kv_heads + (size_t)kv_head);
}

/* Where element 0 of key `token` lies in panels; element d is LANES * d further. */
static inline size_t panel_at(int token, int head_dim)
{
    return (size_t)(token / LANES) * (size_t)head_dim * LANES + (size_t)(token % LANES);
}

/* s[r][0..15] = q[r] . the 16 keys of a panel, for four rows. */
static inline void dots_four(float *s, int64_t s_stride, const float *q, int64_t q_stride,
                             const float *panel, int hd)
{
    v16 a0 = v16_all(0), a1 = a0, a2 = a0, a3 = a0;
    for (int d = 0; d < hd; d++) {
        v16 k = v16_load(panel + (size_t)d * LANES);
        a0 = v16_fma(v16_all(q[d]), k, a0);
        a1 = v16_fma(v16_all(q[d + q_stride]), k, a1);
        a2 = v16_fma(v16_all(q[d + 2 * q_stride]), k, a2);
        a3 = v16_fma(v16_all(q[d + 3 * q_stride]), k, a3);
    }
    v16_store(s, a0);
    v16_store(s + s_stride, a1);
    v16_store(s + 2 * s_stride, a2);
    v16_store(s + 3 * s_stride, a3);
}

/* s[0..63] = q . the keys of four panels; with n < 4, of n panels. */
static inline void dots_one(float *s, const float *q, const float *panels, int n, int hd)
{
    const size_t next = (size_t)hd * LANES;
    if (n < 4) {
        for (int i = 0; i < n; i++) {
            v16 a = v16_all(0);
            for (int d = 0; d < hd; d++)
                a = v16_fma(v16_all(q[d]), v16_load(panels + i * next + (size_t)d * LANES), a);
            v16_store(s + i * LANES, a);
        }
        return;
    }
    v16 a0 = v16_all(0), a1 = a0, a2 = a0, a3 = a0;
    for (int d = 0; d < hd; d++) {
        const float *k = panels + (size_t)d * LANES;
        v16 x = v16_all(q[d]);
        a0 = v16_fma(x, v16_load(k), a0);
        a1 = v16_fma(x, v16_load(k + next), a1);
        a2 = v16_fma(x, v16_load(k + 2 * next), a2);
        a3 = v16_fma(x, v16_load(k + 3 * next), a3);
    }
    v16_store(s, a0);
    v16_store(s + LANES, a1);
    v16_store(s + 2 * LANES, a2);
    v16_store(s + 3 * LANES, a3);
}

/* o[d] += p[j] v[j][d] over j in [from, to), ascending; o is padded to a multiple of 16. */
static inline void gather_one(float *o, const float *p, const float *v, int from, int to,
                              int padded)
{
    int d = 0;
    for (; d + 4 * LANES <= padded; d += 4 * LANES) {
        v16 a0 = v16_load(o + d), a1 = v16_load(o + d + LANES), a2 = v16_load(o + d + 2 * LANES),
            a3 = v16_load(o + d + 3 * LANES);
        for (int j = from; j < to; j++) {
            const float *row = v + (size_t)j * (size_t)padded + d;
            v16 x = v16_all(p[j]);
            a0 = v16_fma(x, v16_load(row), a0);
            a1 = v16_fma(x, v16_load(row + LANES), a1);
            a2 = v16_fma(x, v16_load(row + 2 * LANES), a2);
            a3 = v16_fma(x, v16_load(row + 3 * LANES), a3);
        }
        v16_store(o + d, a0);
        v16_store(o + d + LANES, a1);
        v16_store(o + d + 2 * LANES, a2);
        v16_store(o + d + 3 * LANES, a3);
    }
    for (; d < padded; d += LANES) {
        v16 a = v16_load(o + d);
        for (int j = from; j < to; j++)
            a = v16_fma(v16_all(p[j]), v16_load(v + (size_t)j * (size_t)padded + d), a);
        v16_store(o + d, a);
    }
}

/* The same for four rows o [4][padded], p [4][p_stride]; blocks of keys keep their values in the first cache. */
static inline void gather_four(float *o, const float *p, int64_t p_stride, const float *v, int from,
                               int to, int padded)
{
    for (int first = from; first < to; first += KEY_BLOCK) {
        const int end = to - first < KEY_BLOCK ? to : first + KEY_BLOCK;
        for (int d = 0; d < padded; d += LANES) {
            float *out = o + d;
            v16 a0 = v16_load(out), a1 = v16_load(out + padded), a2 = v16_load(out + 2 * padded),
                a3 = v16_load(out + 3 * padded);
            const float *row = v + (size_t)first * (size_t)padded + d;
            for (int j = first; j < end; j++, row += padded) {
                v16 x = v16_load(row);
                a0 = v16_fma(v16_all(p[j]), x, a0);
                a1 = v16_fma(v16_all(p[j + p_stride]), x, a1);
                a2 = v16_fma(v16_all(p[j + 2 * p_stride]), x, a2);
                a3 = v16_fma(v16_all(p[j + 3 * p_stride]), x, a3);
            }
            v16_store(out, a0);
            v16_store(out + padded, a1);
            v16_store(out + 2 * padded, a2);
            v16_store(out + 3 * padded, a3);
        }
    }
}

/* Scores become exp(scale * (s - max)) over keys [from, to), zero in the rest of the panels they touch. Returns the sum:
 * 16 lanes by key index mod 16, then the fixed tree. */
static inline float softmax_row(float *s, int from, int to, float scale)
{
    const int first = from / LANES * LANES, last = round16(to);
    for (int j = first; j < from; j++)
        s[j] = -INFINITY;
    for (int j = to; j < last; j++)
        s[j] = -INFINITY;
    v16 highest = v16_load(s + first);
    for (int j = first + LANES; j < last; j += LANES)
        highest = v16_greater(v16_load(s + j), highest);
    const v16 factor = v16_all(scale), shift = v16_all(-(v16_max(highest) * scale));
    v16 sum = v16_all(0);
    for (int j = first; j < last; j += LANES) {
        v16 p = v16_exp(v16_fma(v16_load(s + j), factor, shift));
        sum = v16_add(sum, p);
        v16_store(s + j, p);
    }
    return v16_sum(sum);
}

/* First key that the query at a position sees. */
static inline int first_key(const struct attention *a, int position)
{
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

/* One past the last key that the query at a position sees, in a sequence of T tokens. */
static inline int end_key(const struct attention *a, int position, int T)
{
    return a->bidirectional ? T : position + 1;
}

/* Packs tokens of one kv head, x [tokens][stride], into panels with zeros behind. */
static inline void pack_panels(float *panels, const float *x, int64_t stride, int tokens, int hd)
{
    for (int t = 0; t < tokens; t += LANES) {
        float *panel = panels + panel_at(t, hd);
        const int m = tokens - t < LANES ? tokens - t : LANES;
        for (int d = 0; d < hd; d++) {
            for (int lane = 0; lane < m; lane++)
                panel[d * LANES + lane] = x[(t + lane) * stride + d];
            for (int lane = m; lane < LANES; lane++)
                panel[d * LANES + lane] = 0;
        }
    }
}

static inline void pack_rows(float *rows, const float *x, int64_t stride, int tokens, int hd)
{
    const int padded = round16(hd);
    for (int t = 0; t < tokens; t++) {
        float *row = rows + (size_t)t * (size_t)padded;
        memcpy(row, x + t * stride, (size_t)hd * sizeof *x);
        memset(row + hd, 0, (size_t)(padded - hd) * sizeof *x);
    }
}

/* Score products below which attention stays on one thread. */
enum { ATTENTION_MIN = 65536 };

static inline bool attention_is_large(const struct attention *a, const struct batch *b)
{
    int64_t work = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        const int64_t T = b->start[s + 1] - b->start[s];
        work += T * T;
    }
    return work * a->heads * a->head_dim >= ATTENTION_MIN;
}

#endif
