/* Attention over whole sequences, causal or both ways, forward. A block takes a tile of queries of one head and goes through the keys
 * that they see; scores and probabilities stay in registers (FlashAttention-2, Dao, arXiv:2307.08691). The order of a row's sums is that
 * of attention.cuh: a split's sums start from nothing and are merged into the row's total, which costs a second set of sums in registers
 * and gives decoding the freedom to compute splits apart. */
#include "cuda/attention.cuh"
#include "cuda/ops.h"

/* o = softmax(scale q k^T) v, row by row.
 *   q, o [N][nh hd], k, v [N][nkv hd] bf16, start [S + 1]
 * Block:   64 queries (32 for heads of more than 128) of one sequence and head; a warp 16 of them. Tiles with the most keys first.
 * Launch:  grid (N / 64 + S, nh); 128 threads; (64 + 2 * 64) HD * 2 bytes of dynamic shared memory (HD 96: 36 KiB, 128: 48 KiB)
 * Bytes:   reads 2 N nh hd, writes as many, keys and values once a tile of queries (from L2); 2 T^2 hd operations (4 both ways) a
 *          head and sequence of T tokens, rounded up to tiles
 * Same bits: order of attention.cuh; tiles are counted from the sequence's start, not from the batch's
 * Limits:  hd % 8 == 0, hd <= 256 (attention_shape_of)
 */
template <int HD>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    attention_kernel(bf16 *o, const bf16 *q, const bf16 *k, const bf16 *v, struct attention_shape a,
                     const int32_t *start, int n_seqs)
{
    constexpr int ROWS = tiles_of<HD>::ROWS, COLUMNS = tiles_of<HD>::COLUMNS,
                  PARTS = tiles_of<HD>::PARTS, LD = tiles_of<HD>::LD;
    DYN_SHARED(bf16, q_tile);
    const struct token_tile t = find_tile(start, n_seqs, ROWS, (int)(gridDim.x - 1 - blockIdx.x));
    if (t.first >= t.length)
        return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const int64_t q_stride = (int64_t)a.heads * a.head_dim,
                  kv_stride = (int64_t)a.kv_heads * a.head_dim;
    const int64_t q_at = (t.start + t.first) * q_stride + head * a.head_dim;
    const int64_t kv_at = t.start * kv_stride + kv_head * a.head_dim;
    const int rows = min(ROWS, t.length - t.first);
    const struct key_stream x = {.k_tile = q_tile + ROWS * LD,
                                 .v_tile = q_tile + (ROWS + KEY_TILE) * LD,
                                 .k = k + kv_at,
                                 .v = v + kv_at,
                                 .stride = kv_stride,
                                 .keys = t.length,
                                 .columns = a.head_dim,
                                 .end = last_seen(&a, t.first + rows - 1, t.length) / KEY_TILE + 1};
    const int from = first_seen(&a, t.first) / KEY_TILE;
    load_tile<HD, ROWS, ATTENTION_THREADS>(q_tile, q + q_at, q_stride, rows, a.head_dim);
    load_keys<HD, ATTENTION_THREADS>(&x, from);
    load_values<HD, ATTENTION_THREADS>(&x, from);

    const int warp = threadIdx.x / WARP, row = warp / PARTS * MMA_ROWS,
              column = warp % PARTS * COLUMNS;
    const int own = t.first + row + threadIdx.x % WARP / 4;
    const struct seen seen = seen_by(&a, own, own + 8, t.length);
    float total[COLUMNS / 8][4] = {}, total_max[2] = {-INFINITY, -INFINITY}, total_sum[2] = {};
    for (int tile = from, to; tile < x.end; tile = to) {
        to = min((tile / SPLIT_TILES + 1) * SPLIT_TILES, x.end);
        float sums[COLUMNS / 8][4], max[2], sum[2];
        attend_split<HD, COLUMNS, ATTENTION_THREADS>(sums, max, sum, q_tile, row, column, &x, &seen,
                                                     tile, to, a.scale_log2);
        const struct merge m[2] = {
            merge_of(&total_max[0], &total_sum[0], max[0], sum[0], a.scale_log2),
            merge_of(&total_max[1], &total_sum[1], max[1], sum[1], a.scale_log2)};
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                total[n][i] = merged(total[n][i], sums[n][i], m[i / 2]);
        }
    }
    put_rows<HD, COLUMNS>(q_tile, row, column, total, 1.0f / total_sum[0], 1.0f / total_sum[1]);
    __syncthreads();
    store_tile<HD, ROWS, ATTENTION_THREADS>(o + q_at, q_stride, rows, a.head_dim, q_tile);
}

template <int HD>
static void launch_forward(cudaStream_t stream, bf16 *o, const bf16 *q, const bf16 *k,
                           const bf16 *v, struct attention_shape a, const struct batch *b)
{
    constexpr int ROWS = tiles_of<HD>::ROWS;
    const size_t shared = (ROWS + 2 * KEY_TILE) * tiles_of<HD>::LD * sizeof(bf16);
    LAUNCH(attention_kernel<HD>, dim3((unsigned)token_tiles(b, ROWS), (unsigned)a.heads),
           ATTENTION_THREADS, shared, stream, o, q, k, v, a, b->start, b->n_seqs);
}

void cuda_attn_forward(struct backend *be, act_t *o, const act_t *q, const act_t *k, const act_t *v,
                       const struct attention *a, const struct batch *b)
{
    if (cuda_failed(be))
        return;
    BY_HEAD_DIM(a->head_dim, launch_forward, cuda_state(be)->stream, o, q, k, v,
                attention_shape_of(a), b);
    cuda_check(be, "attn_forward");
}

size_t cuda_attention_workspace(struct backend *be, int max_tokens, int max_width, int max_seq,
                                int head_dim)
{
    (void)be;
    const int heads = max_width / head_dim;
    const size_t backward = attention_statistics_bytes(max_tokens, heads),
                 decode = attention_partials_bytes(heads, max_seq, head_dim);
    return backward > decode ? backward : decode;
}
