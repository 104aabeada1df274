/* What the kernels of attention share: tiles of rows in shared memory, their products on tensor cores, and the one order in which a
 * query row's result is computed, whichever kernel does it:
 *
 *   keys are cut into splits of 256 from position 0, splits into tiles of 64. A split starts from nothing (max -inf, sum 0, o 0);
 *   a tile, in ascending order, does
 *     s = q . k                        mma steps of 16 over the head size, ascending; keys that are not seen: -inf
 *     max' = max(max, s);  factor = exp2((max - max') c);  p = exp2((s - max') c)           c = scale log2(e)
 *     sum = sum factor + p             four partial sums by column pair, added at the end of the split: (0 + 1) + (2 + 3)
 *     o = o factor + bf16(p) v         mma steps of 16 over the keys, ascending
 *   splits are merged in ascending order into a total that starts from nothing as well (merge), and o = o_total / sum_total.
 *
 * A tile or split of which a row sees no key leaves all of this as it is. So the rows that share a tile or a block do not matter,
 * splits may be computed anywhere, and decoding gives the bits of the forward pass. Keys that are not seen have the weight 0: their
 * values must be finite, or lie behind the sequence's end, where zeros are read.
 */
#ifndef RLHF_CUDA_ATTENTION_CUH
#define RLHF_CUDA_ATTENTION_CUH

#include "cuda/attention.h"
#include "cuda/cuda.h"
#include "cuda/load.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"

enum { KEY_TILE = 64, SPLIT_TILES = 4, SPLIT_KEYS = SPLIT_TILES * KEY_TILE, MMA_ROWS = 16 };
enum { ATTENTION_WARPS = 4, ATTENTION_THREADS = ATTENTION_WARPS * WARP };

/* The part of struct attention that kernels need. */
struct attention_shape {
    int heads, kv_heads, head_dim, window;
    bool bidirectional;
    float scale, scale_log2;
};

static inline struct attention_shape attention_shape_of(const struct attention *a)
{
    CHECK(a->head_dim % PACK == 0 && a->head_dim <= HEAD_DIM_MOST,
          "a head size of %d: not a multiple of %d up to %d", a->head_dim, PACK, HEAD_DIM_MOST);
    CHECK(a->heads % a->kv_heads == 0, "%d heads, %d of keys", a->heads, a->kv_heads);
    CHECK(a->window == 0 || !a->bidirectional, "a window of attention both ways");
    return (struct attention_shape){a->heads,         a->kv_heads, a->head_dim,           a->window,
                                    a->bidirectional, a->scale,    a->scale * 1.44269504f};
}

/* Calls launch<HD>(...) with the head size rounded up to one that kernels are made for. */
#define BY_HEAD_DIM(head_dim, launch, ...)                                                         \
    do {                                                                                           \
        if ((head_dim) <= 32)                                                                      \
            launch<32>(__VA_ARGS__);                                                               \
        else if ((head_dim) <= 64)                                                                 \
            launch<64>(__VA_ARGS__);                                                               \
        else if ((head_dim) <= 96)                                                                 \
            launch<96>(__VA_ARGS__);                                                               \
        else if ((head_dim) <= 128)                                                                \
            launch<128>(__VA_ARGS__);                                                              \
        else                                                                                       \
            launch<256>(__VA_ARGS__);                                                              \
    } while (0)

/* Tiles of a head size. The four warps of a block take 16 rows each; two warps share the rows of a head of more than 128 columns, both
 * compute its scores, each half of its columns. */
template <int HD> struct tiles_of {
    static constexpr int COLUMNS = HD < 128 ? HD : 128, PARTS = HD / COLUMNS;
    static constexpr int ROWS = ATTENTION_WARPS / PARTS * MMA_ROWS;
    static constexpr int LD = HD > 128 ? HD + PACK : HD; /* of a row in shared memory */
};

/* The first and the last key that the query at a position of a sequence of `length` tokens sees. */
__device__ __forceinline__ int first_seen(const struct attention_shape *a, int position)
{
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

__device__ __forceinline__ int last_seen(const struct attention_shape *a, int position, int length)
{
    return a->bidirectional ? length - 1 : position;
}

/* --- the cache: bf16 [slots][kv_heads][keys, values][max_tokens][head_dim] --- */

__device__ __forceinline__ int64_t cache_at(int kv_heads, int head_dim, int max_tokens, int slot,
                                            int head, bool values, int position)
{
    return ((((int64_t)slot * kv_heads + head) * 2 + values) * max_tokens + position) * head_dim;
}

/* --- a block's tile of consecutive tokens of one sequence --- */

struct token_tile {
    int start, length; /* of the sequence: its first packed token, its tokens */
    int first; /* first token of the tile, counted in the sequence; >= length: nothing to do */
};

/* Sequence s has the tiles start[s] / rows + s and up. That is enough for it, as ceil(n / rows) <= (start + n) / rows - start / rows + 1,
 * needs no sums over the sequences, and leaves at most one idle tile a sequence. */
static inline int token_tiles(const struct batch *b, int rows)
{
    return b->n_tokens / rows + b->n_seqs;
}

__device__ __forceinline__ struct token_tile find_tile(const int32_t *start, int n_seqs, int rows,
                                                       int tile)
{
    int low = 0, high = n_seqs; /* the sequence is in [low, high) */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (start[middle] / rows + middle <= tile)
            low = middle;
        else
            high = middle;
    }
    return (struct token_tile){start[low], start[low + 1] - start[low],
                               (tile - start[low] / rows - low) * rows};
}

/* --- tiles in shared memory: [rows][HD] bf16. Eight rows at a 16-byte chunk lie in different banks: the chunks of a row are exchanged,
 * or, where the addresses of that would not fit the registers, rows are 16 bytes further apart --- */

template <int HD> __device__ __forceinline__ bf16 *tile_at(bf16 *tile, int row, int chunk)
{
    if (HD > 128)
        return tile + row * tiles_of<HD>::LD + chunk * PACK;
    return tile + row * HD + (chunk ^ (HD % 64 == 0 ? row & 7 : row >> 1 & 3)) * PACK;
}

/* Starts copies of rows [0, n) of a matrix with rows of `stride` and `columns` elements, n > 0; zeros beyond. At least four threads
 * a row. */
template <int HD, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *rows, int64_t stride, int n,
                                          int columns)
{
    constexpr int SHARE = THREADS / ROWS > 4 ? THREADS / ROWS : 4;
    const int own = threadIdx.x % SHARE;
#pragma unroll
    for (int first = 0; first < ROWS; first += THREADS / SHARE) {
        const int row = first + (int)threadIdx.x / SHARE;
        const bf16 *from = rows + min(row, n - 1) * stride + own * PACK;
#pragma unroll
        for (int chunk = 0; chunk < HD / PACK; chunk += SHARE)
            copy_async16(tile_at<HD>(tile, row, chunk + own), from + chunk * PACK,
                         row < n && (chunk + own) * PACK < columns);
    }
}

template <int HD, int ROWS, int THREADS>
__device__ __forceinline__ void store_tile(bf16 *rows, int64_t stride, int n, int columns,
                                           bf16 *tile)
{
    constexpr int CHUNKS = HD / PACK;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        if (row < n && chunk * PACK < columns)
            *(uint4 *)(rows + row * stride + chunk * PACK) =
                *(const uint4 *)tile_at<HD>(tile, row, chunk);
    }
}

/* The warp's sums c times a factor a row, rounded, into its 16 rows of the tile from row, COLUMNS columns from column. */
template <int HD, int COLUMNS>
__device__ __forceinline__ void put_rows(bf16 *tile, int row, int column, const float (*c)[4],
                                         float factor0, float factor1)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) {
        *(uint32_t *)(tile_at<HD>(tile, row + g, column / PACK + n) + 2 * t) =
            pack_bf16(c[n][0] * factor0, c[n][1] * factor0);
        *(uint32_t *)(tile_at<HD>(tile, row + g + 8, column / PACK + n) + 2 * t) =
            pack_bf16(c[n][2] * factor1, c[n][3] * factor1);
    }
}

/* s [16][KEYS] = the 16 rows of a from row, times all KEYS rows of b: products over the head size, from zero. Unrolled whole, the
 * larger head sizes would not fit the registers. */
template <int HD, int KEYS>
__device__ __forceinline__ void tile_scores(float (*s)[4], bf16 *a, int row, bf16 *b)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll(HD > 96 ? 4 : HD / 16)
    for (int step = 0; step < HD / 16; step++) {
        uint32_t left[4];
        ldmatrix_x4(left, tile_at<HD>(a, row + lane % 16, 2 * step + lane / 16));
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
            uint32_t right[4];
            ldmatrix_x4(right,
                        tile_at<HD>(b, n * 8 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
            mma_bf16(s[n], left, right);
            mma_bf16(s[n + 1], left, right + 2);
        }
    }
}

/* The A operand of 16 columns of p: two tiles of 8. */
__device__ __forceinline__ void pack_operand(uint32_t a[4], const float *low, const float *high)
{
    a[0] = pack_bf16(low[0], low[1]);
    a[1] = pack_bf16(low[2], low[3]);
    a[2] = pack_bf16(high[0], high[1]);
    a[3] = pack_bf16(high[2], high[3]);
}

/* Of what rounding to `a` left of them. */
__device__ __forceinline__ void pack_rest(uint32_t rest[4], const uint32_t a[4], const float *low,
                                          const float *high)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *x = i < 2 ? low + 2 * i : high + 2 * (i - 2);
        rest[i] = pack_bf16(x[0] - __uint_as_float(a[i] << 16),
                            x[1] - __uint_as_float(a[i] & 0xffff0000u));
    }
}

/* o [16][COLUMNS] += bf16(p) [16][KEYS] times the columns of v [KEYS][HD] from column. PRECISE: p is taken to 16 bits, bf16(p) and
 * then the bf16 of its rest, for sums in which large terms cancel. */
template <int HD, int COLUMNS, int KEYS, bool PRECISE>
__device__ __forceinline__ void tile_values(float (*o)[4], const float (*p)[4], bf16 *v, int column)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        const float *const low = p[2 * step], *const high = p[2 * step + 1];
        uint32_t left[4], rest[4];
        pack_operand(left, low, high);
        if (PRECISE)
            pack_rest(rest, left, low, high);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            uint32_t right[4];
            ldmatrix_x4_trans(right,
                              tile_at<HD>(v, step * 16 + lane % 16, column / PACK + n + lane / 16));
            mma_bf16(o[n], left, right);
            mma_bf16(o[n + 1], left, right + 2);
            if (PRECISE) {
                mma_bf16(o[n], rest, right);
                mma_bf16(o[n + 1], rest, right + 2);
            }
        }
    }
}

/* --- the softmax of a row; a lane has two rows, lane / 4 and the 8th after it --- */

struct seen {
    int from[2], to[2]; /* columns (keys) that the lane's rows see: [from, to] */
};

__device__ __forceinline__ struct seen seen_by(const struct attention_shape *a, int row0, int row1,
                                               int length)
{
    return (struct seen){{first_seen(a, row0), first_seen(a, row1)},
                         {last_seen(a, row0, length), last_seen(a, row1, length)}};
}

/* Sets scores of keys that are not seen to -inf. first: the tile's first key. */
template <int KEYS>
__device__ __forceinline__ void hide(float (*s)[4], const struct seen *seen, int first)
{
    const int column = first + 2 * (threadIdx.x % 4);
    if (first >= max(seen->from[0], seen->from[1]) &&
        first + KEYS - 1 <= min(seen->to[0], seen->to[1]))
        return;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = column + n * 8 + i % 2;
            if (key < seen->from[i / 2] || key > seen->to[i / 2])
                s[n][i] = -INFINITY;
        }
    }
}

__device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 1));
    return fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 2));
}

__device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(ALL_LANES, v, 1);
    return v + __shfl_xor_sync(ALL_LANES, v, 2);
}

/* What exponents are taken relative to, finite also while no key was seen. */
__device__ __forceinline__ float reference_of(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

/* A tile's scores become p; max follows. factor: what the row's earlier sums are multiplied by. sum [2]: of the lane's p. */
template <int KEYS>
__device__ __forceinline__ void tile_softmax(float (*s)[4], float max[2], float factor[2],
                                             float sum[2], float c)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float next = max[r];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            next = fmaxf(next, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        next = quad_max(next);
        const float reference = reference_of(next), shift = -(reference * c);
        factor[r] = exp2_ftz((max[r] - reference) * c);
        max[r] = next;
        sum[r] = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            s[n][2 * r] = exp2_ftz(fmaf(s[n][2 * r], c, shift));
            s[n][2 * r + 1] = exp2_ftz(fmaf(s[n][2 * r + 1], c, shift));
            sum[r] += s[n][2 * r] + s[n][2 * r + 1];
        }
    }
}

/* How a split's o is added to the total: total * keep + o * add. */
struct merge {
    float keep, add;
};

__device__ __forceinline__ struct merge merge_of(float *total_max, float *total_sum, float max,
                                                 float sum, float c)
{
    const float next = fmaxf(*total_max, max), reference = reference_of(next);
    const struct merge m = {exp2_ftz((*total_max - reference) * c),
                            exp2_ftz((max - reference) * c)};
    *total_max = next;
    *total_sum = fmaf(*total_sum, m.keep, sum * m.add);
    return m;
}

__device__ __forceinline__ float merged(float total, float o, struct merge m)
{
    return fmaf(total, m.keep, o * m.add);
}

/* Keys and values of one head as a block goes through them: tile after tile through one buffer each, which is filled anew as soon as all
 * warps are through with it. Copies of keys and of values alternate. */
struct key_stream {
    bf16 *k_tile, *v_tile;
    const bf16 *k, *v;
    int64_t stride;    /* of their rows */
    int keys, columns; /* rows that are there; head size */
    int end;           /* tiles: none is loaded from here on */
};

template <int HD, int THREADS>
__device__ __forceinline__ void load_keys(const struct key_stream *x, int tile)
{
    if (tile < x->end)
        load_tile<HD, KEY_TILE, THREADS>(x->k_tile, x->k + (int64_t)tile * KEY_TILE * x->stride,
                                         x->stride, x->keys - tile * KEY_TILE, x->columns);
    copy_async_commit();
}

template <int HD, int THREADS>
__device__ __forceinline__ void load_values(const struct key_stream *x, int tile)
{
    if (tile < x->end)
        load_tile<HD, KEY_TILE, THREADS>(x->v_tile, x->v + (int64_t)tile * KEY_TILE * x->stride,
                                         x->stride, x->keys - tile * KEY_TILE, x->columns);
    copy_async_commit();
}

/* Tiles [from, to) of one split for the warp's 16 query rows, q_tile's from row: o, max and sum of the split, written. Before and
 * after, copies of the keys and values of the next tile are under way. */
template <int HD, int COLUMNS, int THREADS>
__device__ __forceinline__ void
attend_split(float (*o)[4], float max[2], float sum[2], bf16 *q_tile, int row, int column,
             const struct key_stream *x, const struct seen *seen, int from, int to, float c)
{
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
        o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0;
    for (int tile = from; tile < to; tile++) {
        float s[KEY_TILE / 8][4], factor[2], tile_sum[2];
        copy_async_wait<1>();
        __syncthreads(); /* keys are here */
        tile_scores<HD, KEY_TILE>(s, q_tile, row, x->k_tile);
        __syncthreads(); /* all warps are through with them */
        load_keys<HD, THREADS>(x, tile + 1);
        hide<KEY_TILE>(s, seen, tile * KEY_TILE);
        tile_softmax<KEY_TILE>(s, max, factor, tile_sum, c);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[n][i] *= factor[i / 2];
        }
        sum[0] = fmaf(sum[0], factor[0], tile_sum[0]);
        sum[1] = fmaf(sum[1], factor[1], tile_sum[1]);
        copy_async_wait<1>();
        __syncthreads(); /* values are here */
        tile_values<HD, COLUMNS, KEY_TILE, false>(o, s, x->v_tile, column);
        __syncthreads();
        load_values<HD, THREADS>(x, tile + 1);
    }
    sum[0] = quad_sum(sum[0]);
    sum[1] = quad_sum(sum[1]);
}

#endif
