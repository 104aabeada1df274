/* Derivatives of attention, causal or both ways. Nothing of the forward pass is kept: probabilities are computed again from queries and
 * keys.
 *
 *   p_ij = exp(scale s_ij) / sum_j exp(scale s_ij);  dp_ij = do_i . v_j;  delta_i = sum_j p_ij dp_ij  (= do_i . o_i)
 *   ds_ij = p_ij (dp_ij - delta_i);  dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i;  dv_j = sum_i p_ij do_i
 *
 * Two kernels without atomics. dq goes through the keys twice: first for the row's softmax and delta, which it leaves for the second
 * kernel, then for ds and dq. dk and dv of a tile of keys go through the queries that see it, head by head of the group. Either keeps
 * two tiles (q and do; k and v) in shared memory and lets tiles of the other two pass, the next under way. Sums are float. Their large
 * terms often cancel, so p and ds enter the products with 16 bits (tile_values): with 8, single elements are off by more than 1 %.
 */
#include "cuda/attention.cuh"
#include "cuda/ops.h"

/* Rows of a passing tile: those of the second kernel are smaller where its sums fill the registers. */
template <int HD> struct passing_rows {
    static constexpr int KEYS = 32, QUERIES = HD > 96 ? 16 : 32;
};

/* Two matrices of the same shape whose tiles pass through two pairs of buffers. */
struct passing {
    bf16 *tile; /* [2][2][rows][LD]: buffer, matrix */
    const bf16 *first, *second;
    int64_t stride;
    int columns;
};

/* Starts the copies of rows [row, row + ROWS) of those that end at n. */
template <int HD, int ROWS>
__device__ __forceinline__ void load_pair(const struct passing *x, int buffer, int64_t at, int row,
                                          int n)
{
    constexpr int LD = tiles_of<HD>::LD;
    bf16 *tile = x->tile + buffer * 2 * ROWS * LD;
    load_tile<HD, ROWS, ATTENTION_THREADS>(tile, x->first + at + row * x->stride, x->stride,
                                           n - row, x->columns);
    load_tile<HD, ROWS, ATTENTION_THREADS>(tile + ROWS * LD, x->second + at + row * x->stride,
                                           x->stride, n - row, x->columns);
}

/* Of a query and head. */
struct __align__(8) statistics
{
    float log_sum; /* log2 of sum_j exp2(s c): p = exp2(s c - log_sum) */
    float delta;
};

/* The lane's part of two rows' sums while the keys pass the first time. */
struct running {
    float max[2], sum[2], weighted[2];
};

template <int KEYS>
__device__ __forceinline__ void add_tile(struct running *r, float (*s)[4], const float (*dp)[4],
                                         float c)
{
    float factor[2], sum[2];
    tile_softmax<KEYS>(s, r->max, factor, sum, c);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float weighted = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            weighted =
                fmaf(s[n][2 * i + 1], dp[n][2 * i + 1], fmaf(s[n][2 * i], dp[n][2 * i], weighted));
        r->sum[i] = fmaf(r->sum[i], factor[i], sum[i]);
        r->weighted[i] = fmaf(r->weighted[i], factor[i], weighted);
    }
}

__device__ __forceinline__ struct statistics statistics_of(const struct running *r, int i, float c)
{
    const float sum = quad_sum(r->sum[i]);
    return (struct statistics){fmaf(r->max[i], c, log2f(sum)), quad_sum(r->weighted[i]) / sum};
}

/* dq, and statistics [nh][N] for the other kernel.
 *   q, do, dq [N][nh hd], k, v [N][nkv hd] bf16, start [S + 1]
 * Block:   64 queries (32 for heads of more than 128) of one sequence and head, tiles with the most keys first; keys ascending, twice
 * Launch:  grid (N / 64 + S, nh); 128 threads; (2 * 64 + 4 * 32) HD * 2 bytes of dynamic shared memory (HD 96: 48 KiB, 128: 64 KiB)
 * Bytes:   reads 4 N nh hd, writes 2 N nh hd and 8 N nh; keys and values twice a tile of queries (from L2); 6 T^2 hd operations a head
 *          and sequence of T tokens, rounded up to tiles
 * Same bits: a row's sums go over its keys in ascending order, counted from the sequence's start
 * Limits:  hd % 8 == 0, hd <= 256 (attention_shape_of)
 */
template <int HD>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    attention_dq_kernel(bf16 *dq, struct statistics *statistics, const bf16 *d_o, const bf16 *q,
                        const bf16 *k, const bf16 *v, struct attention_shape a,
                        const int32_t *start, int n_seqs, int n_tokens)
{
    constexpr int ROWS = tiles_of<HD>::ROWS, COLUMNS = tiles_of<HD>::COLUMNS,
                  PARTS = tiles_of<HD>::PARTS, LD = tiles_of<HD>::LD;
    constexpr int KEYS = passing_rows<HD>::KEYS;
    DYN_SHARED(bf16, q_tile);
    bf16 *const do_tile = q_tile + ROWS * LD;
    const struct token_tile t = find_tile(start, n_seqs, ROWS, (int)(gridDim.x - 1 - blockIdx.x));
    if (t.first >= t.length)
        return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads),
              rows = min(ROWS, t.length - t.first);
    const int64_t q_stride = (int64_t)a.heads * a.head_dim,
                  kv_stride = (int64_t)a.kv_heads * a.head_dim;
    const int64_t q_at = (t.start + t.first) * q_stride + head * a.head_dim;
    const int64_t kv_at = t.start * kv_stride + kv_head * a.head_dim;
    const struct passing x = {do_tile + ROWS * LD, k, v, kv_stride, a.head_dim};
    const int first_key = first_seen(&a, t.first) / KEYS * KEYS,
              tiles = (last_seen(&a, t.first + rows - 1, t.length) - first_key) / KEYS + 1;
    load_tile<HD, ROWS, ATTENTION_THREADS>(q_tile, q + q_at, q_stride, rows, a.head_dim);
    load_tile<HD, ROWS, ATTENTION_THREADS>(do_tile, d_o + q_at, q_stride, rows, a.head_dim);
    load_pair<HD, KEYS>(&x, 0, kv_at, first_key, t.length);
    copy_async_commit();

    const int warp = threadIdx.x / WARP, row = warp / PARTS * MMA_ROWS,
              column = warp % PARTS * COLUMNS;
    const int own = t.first + row + threadIdx.x % WARP / 4;
    const struct seen seen = seen_by(&a, own, own + 8, t.length);
    struct running sums = {{-INFINITY, -INFINITY}, {}, {}};
    struct statistics of[2] = {};
    float total[COLUMNS / 8][4] = {};
    for (int step = 0; step < 2 * tiles; step++) {
        bf16 *const k_tile = x.tile + step % 2 * 2 * KEYS * LD, *const v_tile = k_tile + KEYS * LD;
        const int key = first_key + (step < tiles ? step : step - tiles) * KEYS;
        const int next = first_key + (step + 1 < tiles ? step + 1 : step + 1 - tiles) * KEYS;
        if (step + 1 < 2 * tiles)
            load_pair<HD, KEYS>(&x, (step + 1) % 2, kv_at, next, t.length);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        float s[KEYS / 8][4], dp[KEYS / 8][4];
        tile_scores<HD, KEYS>(s, q_tile, row, k_tile);
        tile_scores<HD, KEYS>(dp, do_tile, row, v_tile);
        hide<KEYS>(s, &seen, key);
        if (step < tiles) {
            add_tile<KEYS>(&sums, s, dp, a.scale_log2);
            if (step + 1 == tiles) {
                of[0] = statistics_of(&sums, 0, a.scale_log2);
                of[1] = statistics_of(&sums, 1, a.scale_log2);
            }
        } else {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[n][i] = exp2_ftz(fmaf(s[n][i], a.scale_log2, -of[i / 2].log_sum)) *
                              (dp[n][i] - of[i / 2].delta);
            }
            tile_values<HD, COLUMNS, KEYS, true>(total, s, k_tile, column);
        }
        __syncthreads(); /* all warps are through with this buffer */
    }
    if (column == 0 && threadIdx.x % 4 == 0) {
        for (int r = 0; r < 2; r++)
            if (own + 8 * r < t.length)
                statistics[(int64_t)head * n_tokens + t.start + own + 8 * r] = of[r];
    }
    put_rows<HD, COLUMNS>(q_tile, row, column, total, a.scale, a.scale);
    __syncthreads();
    store_tile<HD, ROWS, ATTENTION_THREADS>(dq + q_at, q_stride, rows, a.head_dim, q_tile);
}

/* s^T [16 keys][QUERIES queries] becomes p^T. of: statistics of the tile's queries, of which n are there. Pairs that do not see each
 * other have s = -inf. */
template <int QUERIES>
__device__ __forceinline__ void probabilities(float (*s)[4], const struct statistics *of, int n,
                                              float c)
{
#pragma unroll
    for (int i = 0; i < QUERIES / 4; i++) {
        const int query = i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
        const float log_sum = query < n ? of[query].log_sum : 0.0f;
#pragma unroll
        for (int r = 0; r < 4; r += 2)
            s[i / 2][r + i % 2] = exp2_ftz(fmaf(s[i / 2][r + i % 2], c, -log_sum));
    }
}

/* dp^T becomes ds^T. */
template <int QUERIES>
__device__ __forceinline__ void slopes(float (*dp)[4], const float (*p)[4],
                                       const struct statistics *of, int n)
{
#pragma unroll
    for (int i = 0; i < QUERIES / 4; i++) {
        const int query = i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
        const float delta = query < n ? of[query].delta : 0.0f;
#pragma unroll
        for (int r = 0; r < 4; r += 2)
            dp[i / 2][r + i % 2] = p[i / 2][r + i % 2] * (dp[i / 2][r + i % 2] - delta);
    }
}

/* The queries that see a key: from the first to the last. */
__device__ __forceinline__ int first_seeing(const struct attention_shape *a, int key)
{
    return a->bidirectional ? 0 : key;
}

__device__ __forceinline__ int last_seeing(const struct attention_shape *a, int key, int length)
{
    return a->window > 0 ? min(length, key + a->window) - 1 : length - 1;
}

/* dk and dv.
 *   as above; statistics [nh][N] -> dk, dv [N][nkv hd] bf16
 * Block:   64 keys (32 for heads of more than 128) of one sequence and kv head; heads of the group ascending, queries ascending; a
 *          warp 16 keys. Tiles with the most queries first.
 * Launch:  grid (N / 64 + S, nkv); 128 threads; (2 * 64 + 4 * 32) HD * 2 bytes of dynamic shared memory (HD 96: 48 KiB), 4 * 16 above
 *          (HD 128: 48 KiB)
 * Bytes:   reads and writes 4 N nkv hd; q and do once a tile of keys (from L2); 6 T^2 hd operations a head and sequence of T tokens,
 *          rounded up to tiles
 * Same bits: sums over heads and queries in ascending order, counted from the sequence's start
 * Limits:  hd % 8 == 0, hd <= 256 (attention_shape_of)
 */
template <int HD>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    attention_dkv_kernel(bf16 *dk, bf16 *dv, const struct statistics *statistics, const bf16 *d_o,
                         const bf16 *q, const bf16 *k, const bf16 *v, struct attention_shape a,
                         const int32_t *start, int n_seqs, int n_tokens)
{
    constexpr int ROWS = tiles_of<HD>::ROWS, COLUMNS = tiles_of<HD>::COLUMNS,
                  PARTS = tiles_of<HD>::PARTS, LD = tiles_of<HD>::LD;
    constexpr int QUERIES = passing_rows<HD>::QUERIES;
    DYN_SHARED(bf16, k_tile);
    bf16 *const v_tile = k_tile + ROWS * LD;
    const struct token_tile t = find_tile(start, n_seqs, ROWS, (int)blockIdx.x);
    if (t.first >= t.length)
        return;
    const int group = a.heads / a.kv_heads, kv_head = blockIdx.y,
              rows = min(ROWS, t.length - t.first);
    const int64_t q_stride = (int64_t)a.heads * a.head_dim,
                  kv_stride = (int64_t)a.kv_heads * a.head_dim;
    const int64_t kv_at = (t.start + t.first) * kv_stride + kv_head * a.head_dim;
    const int64_t q_at = t.start * q_stride + (int64_t)kv_head * group * a.head_dim;
    const struct passing x = {v_tile + ROWS * LD, q, d_o, q_stride, a.head_dim};
    const int first = first_seeing(&a, t.first), last = last_seeing(&a, t.first + rows - 1, t.length);
    load_tile<HD, ROWS, ATTENTION_THREADS>(k_tile, k + kv_at, kv_stride, rows, a.head_dim);
    load_tile<HD, ROWS, ATTENTION_THREADS>(v_tile, v + kv_at, kv_stride, rows, a.head_dim);
    load_pair<HD, QUERIES>(&x, 0, q_at, first, t.length);
    copy_async_commit();

    const int warp = threadIdx.x / WARP, row = warp / PARTS * MMA_ROWS,
              column = warp % PARTS * COLUMNS;
    const int own = t.first + row + threadIdx.x % WARP / 4;
    const struct seen seeing = {
        {first_seeing(&a, own), first_seeing(&a, own + 8)},
        {last_seeing(&a, own, t.length), last_seeing(&a, own + 8, t.length)}};
    float dk_sum[COLUMNS / 8][4] = {}, dv_sum[COLUMNS / 8][4] = {};
    for (int head = 0, query = first, buffer = 0; head < group; buffer ^= 1) {
        bf16 *const own_q = x.tile + buffer * 2 * QUERIES * LD, *const own_do =
                                                                    own_q + QUERIES * LD;
        const int next = query + QUERIES <= last ? query + QUERIES : first,
                  next_head = head + (next == first);
        if (next_head < group)
            load_pair<HD, QUERIES>(&x, buffer ^ 1, q_at + next_head * a.head_dim, next, t.length);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        const struct statistics *const of =
            statistics + (int64_t)(kv_head * group + head) * n_tokens + t.start + query;
        float p[QUERIES / 8][4], ds[QUERIES / 8][4];
        tile_scores<HD, QUERIES>(p, k_tile, row, own_q);
        hide<QUERIES>(p, &seeing, query);
        probabilities<QUERIES>(p, of, t.length - query, a.scale_log2);
        tile_values<HD, COLUMNS, QUERIES, true>(dv_sum, p, own_do, column);
        tile_scores<HD, QUERIES>(ds, v_tile, row, own_do);
        slopes<QUERIES>(ds, p, of, t.length - query);
        tile_values<HD, COLUMNS, QUERIES, true>(dk_sum, ds, own_q, column);
        head = next_head;
        query = next;
        __syncthreads(); /* all warps are through with this buffer */
    }
    put_rows<HD, COLUMNS>(k_tile, row, column, dk_sum, a.scale, a.scale);
    put_rows<HD, COLUMNS>(v_tile, row, column, dv_sum, 1, 1);
    __syncthreads();
    store_tile<HD, ROWS, ATTENTION_THREADS>(dk + kv_at, kv_stride, rows, a.head_dim, k_tile);
    store_tile<HD, ROWS, ATTENTION_THREADS>(dv + kv_at, kv_stride, rows, a.head_dim, v_tile);
}

size_t attention_statistics_bytes(int n_tokens, int heads)
{
    return (size_t)n_tokens * (size_t)heads * sizeof(struct statistics);
}

/* What both kernels read and write. */
struct tensors {
    bf16 *dq, *dk, *dv;
    const bf16 *d_o, *q, *k, *v;
};

template <int HD>
static void launch_backward(cudaStream_t stream, struct tensors x, struct statistics *statistics,
                            struct attention_shape a, const struct batch *b)
{
    constexpr int ROWS = tiles_of<HD>::ROWS;
    constexpr size_t row = tiles_of<HD>::LD * sizeof(bf16),
                     dq_shared = (2 * ROWS + 4 * passing_rows<HD>::KEYS) * row;
    constexpr size_t dkv_shared = (2 * ROWS + 4 * passing_rows<HD>::QUERIES) * row;
    const unsigned tiles = (unsigned)token_tiles(b, ROWS);
    LAUNCH(attention_dq_kernel<HD>, dim3(tiles, (unsigned)a.heads), ATTENTION_THREADS, dq_shared,
           stream, x.dq, statistics, x.d_o, x.q, x.k, x.v, a, b->start, b->n_seqs, b->n_tokens);
    LAUNCH(attention_dkv_kernel<HD>, dim3(tiles, (unsigned)a.kv_heads), ATTENTION_THREADS,
           dkv_shared, stream, x.dk, x.dv, statistics, x.d_o, x.q, x.k, x.v, a, b->start, b->n_seqs,
           b->n_tokens);
}

void cuda_attn_backward(struct backend *be, act_t *dq, act_t *dk, act_t *dv, const act_t *d_o,
                        const act_t *q, const act_t *k, const act_t *v, const struct attention *a,
                        const struct batch *b)
{
    if (cuda_failed(be))
        return;
    struct statistics *statistics =
        (struct statistics *)cuda_scratch(be, attention_statistics_bytes(b->n_tokens, a->heads));
    const struct tensors x = {dq, dk, dv, d_o, q, k, v};
    BY_HEAD_DIM(a->head_dim, launch_backward, cuda_state(be)->stream, x, statistics,
                attention_shape_of(a), b);
    cuda_check(be, "attn_backward");
}
