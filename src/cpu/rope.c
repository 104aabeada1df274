/* Rotary positions (Su et al., arXiv:2104.09864): dimension i of the first rotary_dims turns with i + rotary_dims / 2.
 *
 *   x[i] <- x[i] cos - x[i + half] sin;  x[i + half] <- x[i + half] cos + x[i] sin
 *
 * From the projections' layout to [N][heads * hd], and for the derivatives back, by the inverse rotation. Where q and k have
 * norms (RMS over a head; Henry et al., arXiv:2010.04245), they come before the rotation. Also writes keys and values into
 * the cache, in attention's layout. */
#include "cpu/attention.h"
#include "cpu/ops.h"

#include <omp.h>

/* One head. y may be x. */
static void turn(float *y, const float *x, const float *cosine, const float *sine, int half, int hd,
                 float direction)
{
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        v16 c = v16_load(cosine + i), s = v16_mul(v16_load(sine + i), v16_all(direction));
        v16 a = v16_load(x + i), b = v16_load(x + half + i);
        v16_store(y + i, v16_sub(v16_mul(a, c), v16_mul(b, s)));
        v16_store(y + half + i, v16_fma(b, c, v16_mul(a, s)));
    }
    for (; i < half; i++) {
        const float c = cosine[i], s = sine[i] * direction, a = x[i], b = x[half + i];
        y[i] = a * c - b * s;
        y[half + i] = fmaf(b, c, a * s);
    }
    if (y != x)
        memcpy(y + 2 * half, x + 2 * half, (size_t)(hd - 2 * half) * sizeof *x);
}

/* What is done to a head of one token. */
struct turning {
    const struct norm *norm; /* NULL: none */
    const float *cosine, *sine;
    int half, hd;
    float *scratch; /* [hd], of backward with a norm */
};

static void head_forward(float *y, const float *x, const struct turning *w)
{
    if (w->norm)
        CPU(norm_row)(y, x, w->norm, w->hd);
    turn(y, w->norm ? y : x, w->cosine, w->sine, w->half, w->hd, 1.0f);
}

/* x: the norm's input. dx may be dy. */
static void head_backward(float *dx, const float *dy, const float *x, const struct turning *w)
{
    turn(w->norm ? w->scratch : dx, dy, w->cosine, w->sine, w->half, w->hd, -1.0f);
    if (!w->norm)
        return;
    memset(dx, 0, (size_t)w->hd * sizeof *dx);
    CPU(norm_row_backward)(dx, w->scratch, x, w->norm, w->hd);
}

/* One token's projections: head h of part 0 (q), 1 (k), 2 (v) lies at part[] + h * stride. */
struct projections {
    const float *part[3];
    int64_t stride;
};

static struct projections projections_of(const float *qkv0, const float *qkv1, const float *qkv2,
                                         const struct attention *a, int64_t row)
{
    const int64_t hd = a->head_dim;
    if (a->layout == QKV_INTERLEAVED) {
        const float *x = qkv0 + row * 3 * a->heads * hd;
        return (struct projections){{x, x + hd, x + 2 * hd}, 3 * hd};
    }
    if (a->layout == QKV_FUSED) {
        const float *x = qkv0 + row * (a->heads + 2 * a->kv_heads) * hd, *keys = x + a->heads * hd;
        return (struct projections){{x, keys, keys + a->kv_heads * hd}, hd};
    }
    return (struct projections){
        {qkv0 + row * a->heads * hd, qkv1 + row * a->kv_heads * hd, qkv2 + row * a->kv_heads * hd},
        hd};
}

static void check(const struct attention *a)
{
    CHECK(a->layout != QKV_INTERLEAVED || a->heads == a->kv_heads,
          "interleaved projections need as many kv heads as heads");
    CHECK(!a->q_norm == !a->k_norm && (!a->q_norm || a->layout == QKV_SPLIT),
          "norms of q and k are of projections apart");
    CHECK(a->rotary_dims >= 0 && a->rotary_dims <= a->head_dim && a->rotary_dims % 2 == 0,
          "%d rotary dimensions of %d", a->rotary_dims, a->head_dim);
}

static const float *table_row(const float *table, const struct attention *a, int position)
{
    if (a->rotary_dims == 0)
        return NULL;
    CHECK(position >= 0 && position < a->max_positions, "position %d of %d", position,
          a->max_positions);
    return table + (int64_t)position * (a->rotary_dims / 2);
}

static void cache_put(const struct kv_cache *cache, const struct attention *a, int slot,
                      int position, const float *k, const float *v)
{
    const int hd = a->head_dim, padded = round16(hd);
    CHECK(slot >= 0 && slot < cache->slots && position >= 0 && position < cache->max_tokens,
          "no place for position %d of slot %d in the cache", position, slot);
    for (int h = 0; h < a->kv_heads; h++) {
        float *keys = cache_head(cache, a, slot, h) + panel_at(position, hd);
        float *values = cache_head(cache, a, slot, h) + cache_keys_floats(hd, cache->max_tokens) +
                        (size_t)position * (size_t)padded;
        for (int d = 0; d < hd; d++)
            keys[d * LANES] = k[(int64_t)h * hd + d];
        memcpy(values, v + (int64_t)h * hd, (size_t)hd * sizeof *v);
        memset(values + hd, 0, (size_t)(padded - hd) * sizeof *v);
    }
}

static struct turning turning_of(const struct attention *a, const struct norm *norm, int position,
                                 float *scratch)
{
    return (struct turning){norm,
                            table_row(a->rope_cos, a, position),
                            table_row(a->rope_sin, a, position),
                            a->rotary_dims / 2,
                            a->head_dim,
                            scratch};
}

void CPU(qkv_rope)(struct backend *be, float *q, float *k, float *v, const float *qkv0,
                   const float *qkv1, const float *qkv2, const struct attention *a,
                   const struct kv_cache *cache, const struct batch *b)
{
    const int hd = a->head_dim;
    check(a);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)b->n_tokens * a->heads * hd >= PARALLEL_MIN)
    for (int n = 0; n < b->n_tokens; n++) {
        const struct projections in = projections_of(qkv0, qkv1, qkv2, a, n);
        const struct turning q_turning = turning_of(a, a->q_norm, b->position[n], NULL);
        const struct turning k_turning = turning_of(a, a->k_norm, b->position[n], NULL);
        float *q_row = q + (int64_t)n * a->heads * hd;
        float *k_row = k + (int64_t)n * a->kv_heads * hd,
              *v_row = v + (int64_t)n * a->kv_heads * hd;
        for (int h = 0; h < a->heads; h++)
            head_forward(q_row + h * hd, in.part[0] + h * in.stride, &q_turning);
        for (int h = 0; h < a->kv_heads; h++) {
            head_forward(k_row + h * hd, in.part[1] + h * in.stride, &k_turning);
            memmove(v_row + h * hd, in.part[2] + h * in.stride, (size_t)hd * sizeof *v);
        }
        if (cache)
            cache_put(cache, a, b->slot[b->sequence[n]], b->position[n], k_row, v_row);
    }
}

void CPU(qkv_rope_backward)(struct backend *be, float *dqkv0, float *dqkv1, float *dqkv2,
                            const float *dq, const float *dk, const float *dv, const float *qkv0,
                            const float *qkv1, const struct attention *a, const struct batch *b)
{
    const int hd = a->head_dim;
    const size_t bytes = a->q_norm ? (size_t)hd * sizeof(float) : 0;
    check(a);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)b->n_tokens * a->heads * hd >= PARALLEL_MIN)
    for (int n = 0; n < b->n_tokens; n++) {
        float *scratch = bytes ? cpu_scratch(be, omp_get_thread_num(), bytes) : NULL;
        const struct projections out = projections_of(dqkv0, dqkv1, dqkv2, a, n);
        const struct turning q_turning = turning_of(a, a->q_norm, b->position[n], scratch);
        const struct turning k_turning = turning_of(a, a->k_norm, b->position[n], scratch);
        const int64_t q_row = (int64_t)n * a->heads * hd, kv_row = (int64_t)n * a->kv_heads * hd;
        for (int h = 0; h < a->heads; h++)
            head_backward((float *)out.part[0] + h * out.stride, dq + q_row + h * hd,
                          qkv0 ? qkv0 + q_row + h * hd : NULL, &q_turning);
        for (int h = 0; h < a->kv_heads; h++) {
            head_backward((float *)out.part[1] + h * out.stride, dk + kv_row + h * hd,
                          qkv1 ? qkv1 + kv_row + h * hd : NULL, &k_turning);
            memmove((float *)out.part[2] + h * out.stride, dv + kv_row + h * hd,
                    (size_t)hd * sizeof *dv);
        }
    }
}
