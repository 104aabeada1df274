/* Attention of one query a sequence over the cache, in two kernels: splits of 256 keys, each by a warp of its own, so that a few
 * sequences with long contexts fill the device; then their merge in ascending order, which is attention.cuh's and gives attn_forward's
 * bits. The grid covers the cache's length; warps beyond a sequence's position end at once, so a recorded program serves all lengths.
 */
#include "cuda/attention.cuh"
#include "cuda/ops.h"

/* Rows (sequence, head, split) of partial results at a time: more sequences than that holds are computed in turns. 32768 rows are a
 * GPU's fill several times over, and 13 MB for heads of 96. */
enum { PARTIAL_ROWS = 32768 };

/* What splits leave. Row (sequence of the turn * heads + head) * splits + split. */
struct partials {
    float *o;           /* [rows][hd] */
    float2 *statistics; /* [rows] max, sum */
    int splits;
};

struct decode_batch {
    const int32_t *start, *position, *slot; /* of struct batch */
    int first, n;                           /* the turn's sequences */
};

/* One split of one sequence for up to 16 query heads of a kv head.
 *   q [N][nh hd] bf16, cache as in attention.cuh -> partials
 * Block:   one warp. Keys and values go through shared memory tile by tile (64 keys), one of each under way at any time.
 * Launch:  grid (splits of the cache's length, nkv * ceil(group / 16), sequences); 32 threads; (16 + 2 * 64) HD * 2 bytes of dynamic
 *          shared memory (HD 96: 27 KiB, 8 blocks a multiprocessor of 227 KiB, 3 of 99 KiB)
 * Bytes:   reads 4 nkv hd a key once, writes 4 nh (hd + 2) a split: 1 / 128 of that a head of the group
 * Same bits: a split by itself, order of attention.cuh
 * Limits:  hd % 8 == 0, hd <= 256 (attention_shape_of)
 */
template <int HD>
static __global__ void __launch_bounds__(WARP)
    decode_kernel(struct partials y, const bf16 *q, struct attention_shape a, const bf16 *cache,
                  int max_tokens, struct decode_batch b)
{
    constexpr int LD = tiles_of<HD>::LD;
    DYN_SHARED(bf16, q_tile);
    const int group = a.heads / a.kv_heads, row_tiles = (group + MMA_ROWS - 1) / MMA_ROWS;
    const int split = blockIdx.x, kv_head = (int)blockIdx.y / row_tiles,
              first_row = (int)blockIdx.y % row_tiles * MMA_ROWS;
    const int sequence = b.first + (int)blockIdx.z, token = b.start[sequence],
              position = b.position[token];
    const int from = max(first_seen(&a, position) / KEY_TILE, split * SPLIT_TILES);
    const int to = min(position / KEY_TILE + 1, (split + 1) * SPLIT_TILES);
    if (from >= to)
        return;
    const int rows = min(MMA_ROWS, group - first_row), head = kv_head * group + first_row;
    const struct key_stream x = {.k_tile = q_tile + MMA_ROWS * LD,
                                 .v_tile = q_tile + (MMA_ROWS + KEY_TILE) * LD,
                                 .k = cache + cache_at(a.kv_heads, a.head_dim, max_tokens,
                                                       b.slot[sequence], kv_head, false, 0),
                                 .v = cache + cache_at(a.kv_heads, a.head_dim, max_tokens,
                                                       b.slot[sequence], kv_head, true, 0),
                                 .stride = a.head_dim,
                                 .keys = position + 1,
                                 .columns = a.head_dim,
                                 .end = to};
    load_tile<HD, MMA_ROWS, WARP>(q_tile, q + ((int64_t)token * a.heads + head) * a.head_dim,
                                  a.head_dim, rows, a.head_dim);
    load_keys<HD, WARP>(&x, from);
    load_values<HD, WARP>(&x, from);

    const struct seen seen = seen_by(&a, position, position, position + 1);
    float o[HD / 8][4], max[2], sum[2];
    attend_split<HD, HD, WARP>(o, max, sum, q_tile, 0, 0, &x, &seen, from, to, a.scale_log2);

    const int lane = threadIdx.x, column = lane % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = lane / 4 + r * 8;
        if (row >= rows)
            continue;
        const int64_t at = ((int64_t)blockIdx.z * a.heads + head + row) * y.splits + split;
        if (column == 0)
            y.statistics[at] = make_float2(max[r], sum[r]);
#pragma unroll
        for (int n = 0; n < HD / 8; n++) {
            if (n * 8 < a.head_dim)
                *(float2 *)(y.o + at * a.head_dim + n * 8 + column) =
                    make_float2(o[n][2 * r], o[n][2 * r + 1]);
        }
    }
}

/* o = splits merged in ascending order, over their sum.
 *   partials -> o [N][nh hd] bf16
 * Thread:  four columns of one head of one sequence
 * Launch:  grid ceil(sequences nh hd / 4 / 256); 256 threads
 * Bytes:   reads what splits left, writes 2 nh hd a sequence; a few microseconds, mostly of the launch
 * Same bits: order of attention.cuh
 */
static __global__ void merge_kernel(bf16 *o, struct partials x, struct attention_shape a,
                                    struct decode_batch b)
{
    const int quads = a.head_dim / 4, i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= b.n * a.heads * quads)
        return;
    const int quad = i % quads, row = i / quads, sequence = b.first + row / a.heads,
              token = b.start[sequence];
    const int position = b.position[token], last = position / SPLIT_KEYS;
    float total[4] = {}, total_max = -INFINITY, total_sum = 0;
    for (int split = first_seen(&a, position) / SPLIT_KEYS; split <= last; split++) {
        const int64_t at = (int64_t)row * x.splits + split;
        const float4 own = *(const float4 *)(x.o + at * a.head_dim + quad * 4);
        const float2 statistics = x.statistics[at];
        const struct merge m =
            merge_of(&total_max, &total_sum, statistics.x, statistics.y, a.scale_log2);
        total[0] = merged(total[0], own.x, m);
        total[1] = merged(total[1], own.y, m);
        total[2] = merged(total[2], own.z, m);
        total[3] = merged(total[3], own.w, m);
    }
    const float inverse = 1.0f / total_sum;
    *(uint2 *)(o + ((int64_t)token * a.heads + row % a.heads) * a.head_dim + quad * 4) =
        make_uint2(pack_bf16(total[0] * inverse, total[1] * inverse),
                   pack_bf16(total[2] * inverse, total[3] * inverse));
}

static int splits_of(int max_seq)
{
    return ceil_div(max_seq, SPLIT_KEYS);
}

size_t attention_partials_bytes(int heads, int max_seq, int head_dim)
{
    const size_t sequence = (size_t)heads * (size_t)splits_of(max_seq), turn = PARTIAL_ROWS;
    return (sequence > turn ? sequence : turn) * (size_t)(head_dim + 2) * sizeof(float);
}

template <int HD>
static void launch_splits(cudaStream_t stream, struct partials y, const bf16 *q,
                          struct attention_shape a, const struct kv_cache *cache,
                          struct decode_batch b)
{
    const size_t shared = (MMA_ROWS + 2 * KEY_TILE) * tiles_of<HD>::LD * sizeof(bf16);
    const int row_tiles = ceil_div(a.heads / a.kv_heads, MMA_ROWS);
    LAUNCH(decode_kernel<HD>,
           dim3((unsigned)y.splits, (unsigned)(a.kv_heads * row_tiles), (unsigned)b.n), WARP,
           shared, stream, y, q, a, (const bf16 *)cache->data, cache->max_tokens, b);
}

void cuda_attn_decode(struct backend *be, act_t *o, const act_t *q, const struct attention *a,
                      const struct kv_cache *cache, const struct batch *b)
{
    enum { THREADS = 256 };
    if (cuda_failed(be))
        return;
    CHECK(!a->bidirectional, "decoding with attention both ways");
    const struct attention_shape shape = attention_shape_of(a);
    const int splits = splits_of(cache->max_tokens), fit = PARTIAL_ROWS / (a->heads * splits),
              turn = fit > 0 ? fit : 1;
    const size_t rows =
        (size_t)(turn < b->n_seqs ? turn : b->n_seqs) * (size_t)a->heads * (size_t)splits;
    float *scratch = (float *)cuda_scratch(be, rows * (size_t)(a->head_dim + 2) * sizeof *scratch);
    const struct partials partials = {scratch, (float2 *)(scratch + rows * (size_t)a->head_dim),
                                      splits};
    for (int first = 0; first < b->n_seqs; first += turn) {
        const struct decode_batch part = {b->start, b->position, b->slot, first,
                                          b->n_seqs - first < turn ? b->n_seqs - first : turn};
        BY_HEAD_DIM(a->head_dim, launch_splits, cuda_state(be)->stream, partials, q, shape, cache,
                    part);
        LAUNCH(merge_kernel,
               (unsigned)ceil_div((int64_t)part.n * a->heads * a->head_dim / 4, THREADS), THREADS,
               0, cuda_state(be)->stream, o, partials, shape, part);
    }
    cuda_check(be, "attn_decode");
}
