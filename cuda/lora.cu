/* Low-rank adapters, y += scale B(A dropout(x)): packing, the projections t = A dropout(x) and u = scale B^T dy, and the gradients
 * dA = u^T dropout(x), dB = scale dy^T t. What is left of forward and of dx is done by the kernels of the base product.
 *
 * A and B^T are packed as bf16 rows [r, a multiple of 16][linear_ld(in or out)], zeros around: one kernel projects by both.
 */
#include "cuda/fixed.cuh"
#include "cuda/gemm_tile.cuh"
#include "cuda/ops.h"
#include "cuda/rng.cuh"

enum {
    RANKS = 16, /* of a tile */
    CHUNK = 512,
    CHUNK_SLABS = CHUNK / SLAB,
    PROJECT_WARPS = 16,
    PROJECT_THREADS = 512,
    MANY_TOKENS = 1024,
    COLUMNS = 64, /* of a block of gradients */
    TOKENS = 32,  /* that it reads at once */
    GRADIENT_THREADS = COLUMNS / 4 * RANKS / 4
};

/* --- packing --- */

size_t cuda_lora_packed_bytes(struct backend *, const struct linear *l, int r)
{
    return (size_t)lora_ranks(r) * (size_t)(linear_ld(l->in) + linear_ld(l->out)) * sizeof(bf16);
}

/* to[j][k] = from[j row + k column], j < r, k < n; zeros elsewhere. to [gridDim.y][ld]
 * Launch:  grid (ceil(ld / 256), r rounded up), 256 threads
 */
__global__ void __launch_bounds__(256) lora_pack(bf16 *to, const float *from, int64_t row, int64_t column, int r, int n, int ld)
{
    const int k = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (k < ld)
        to[(int64_t)j * ld + k] = __float2bfloat16_rn(j < r && k < n ? from[j * row + k * column] : 0.0f);
}

void cuda_linear_refresh(struct backend *be, struct linear *l)
{
    if (cuda_failed(be))
        return;
    CHECK(!l->master, "weights are not trained on this device");
    cudaStream_t stream = cuda_state(be)->stream;
    for (int i = 0; i < LINEAR_ADAPTERS; i++) {
        struct lora *a = l->adapter[i];
        if (!a || a->packed)
            continue;
        CHECK(a->r >= 1 && a->r <= LORA_MOST, "an adapter of rank %d", a->r);
        const int ranks = lora_ranks(a->r), in_ld = linear_ld(l->in), out_ld = linear_ld(l->out);
        a->b_packed = (bf16 *)a->a_packed + (size_t)ranks * in_ld;
        LAUNCH(lora_pack, dim3(ceil_div(in_ld, 256), ranks), 256, 0, stream, (bf16 *)a->a_packed, a->a, l->in, 1, a->r, l->in,
               in_ld);
        LAUNCH(lora_pack, dim3(ceil_div(out_ld, 256), ranks), 256, 0, stream, (bf16 *)a->b_packed, a->b, 1, a->r, a->r, l->out,
               out_ld);
    }
    cuda_check(be, "linear_refresh");
}

/* --- projections --- */

struct projection {
    const bf16 *a; /* [ranks][linear_ld(in)] */
    const bf16 *x; /* [N][in] */
    float *t;      /* [N][ld_t], columns below width written */
    bf16 *rounded; /* [N][ranks], or NULL */
    int in, N, width, ld_t, ranks;
    float scale;
    struct dropout dropout;
};

/* The words of 16 bytes, or zeros. */
__device__ __forceinline__ void load_piece(uint32_t word[4], const bf16 *from, bool valid)
{
    const uint4 v = valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
    word[0] = v.x;
    word[1] = v.y;
    word[2] = v.z;
    word[3] = v.w;
}

/* Dropped elements of k .. k + 7 become 0. */
__device__ __forceinline__ void drop_words(uint32_t word[4], const struct dropout &drop, const struct dropout_row &row, int k)
{
    float factor[PACK];
    dropout_factor8(factor, drop, row, k);
#pragma unroll
    for (int i = 0; i < 4; i++)
        word[i] &= (factor[2 * i] != 0 ? 0xffffu : 0) | (factor[2 * i + 1] != 0 ? 0xffff0000u : 0);
}

/* t[n][j] = scale * sum_k dropout(x)[n][k] a[j][k], and the same rounded to bf16.
 * Block:   8 NT tokens x 16 ranks; a warp sums a chunk of 512 k at a time by mma, operands straight from memory; the chunks' sums are
 *          added in ascending order. 16 chunks are under way at once, so one block reads fast enough for a few rows
 * Launch:  grid (tokens / 8 NT, ranks / 16), 512 threads; 8 NT KiB of shared memory
 * Bytes:   x once a tile of ranks, a once a tile of tokens from the second-level cache
 * Same bits: chunks count from k = 0, an element's order is that of its chunk and of chunks, for any N and NT
 * Limits:  in % 8 == 0; any N, r
 */
template <int NT, bool DROPOUT> __global__ void __launch_bounds__(PROJECT_THREADS) lora_project_rows(struct projection p)
{
    constexpr int AHEAD = NT == 1 ? 4 : 1; /* slabs whose operands are asked for at once */
    __shared__ float part[PROJECT_WARPS][NT * 4 * WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int first = blockIdx.x * NT * 8, j0 = blockIdx.y * RANKS, ld = (p.in + SLAB - 1) / SLAB * SLAB;
    struct dropout_row row[NT];
    float total = 0;
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
        row[nt] = dropout_row(p.dropout, min(first + 8 * nt + g, p.N - 1));
    for (int base = 0; base < ld; base += PROJECT_WARPS * CHUNK) {
        const int k0 = base + warp * CHUNK, slabs = min((int)CHUNK_SLABS, (ld - k0 + 4 * SLAB - 1) / (4 * SLAB) * 4);
        float acc[NT][4] = {};
        for (int slab = 0; slab < slabs; slab += AHEAD) {
            uint32_t a[AHEAD][2][4], b[AHEAD][NT][4];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int k = k0 + (slab + i) * SLAB + 8 * t;
#pragma unroll
                for (int h = 0; h < 2; h++)
                    load_piece(a[i][h], p.a + (int64_t)(j0 + g + 8 * h) * ld + k, k < ld);
#pragma unroll
                for (int nt = 0; nt < NT; nt++) {
                    const int n = first + 8 * nt + g;
                    load_piece(b[i][nt], p.x + (int64_t)n * p.in + k, n < p.N && k < p.in);
                }
            }
            if (AHEAD > 1)
                __syncwarp(); /* all loads are asked for before the first is waited for */
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (DROPOUT)
#pragma unroll
                    for (int nt = 0; nt < NT; nt++)
                        drop_words(b[i][nt], p.dropout, row[nt], k0 + (slab + i) * SLAB + 8 * t);
#pragma unroll
                for (int s = 0; s < 2; s++) {
                    const uint32_t step[4] = {a[i][0][2 * s], a[i][1][2 * s], a[i][0][2 * s + 1], a[i][1][2 * s + 1]};
#pragma unroll
                    for (int nt = 0; nt < NT; nt++)
                        mma_bf16(acc[nt], step, b[i][nt] + 2 * s);
                }
            }
        }
        __syncthreads(); /* the parts of the round before were added */
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                part[warp][(nt * 4 + c) * WARP + lane] = acc[nt][c];
        __syncthreads();
        if (threadIdx.x < NT * 4 * WARP)
            for (int i = 0; i < PROJECT_WARPS && base + i * CHUNK < ld; i++)
                total += part[i][threadIdx.x];
    }
    /* threads name fragments' elements now: register c of fragment nt of the lane */
    const int c = warp % 4, n = first + warp / 4 * 8 + t * 2 + c % 2, j = j0 + g + c / 2 * 8;
    if (threadIdx.x >= NT * 4 * WARP || n >= p.N)
        return;
    total *= p.scale;
    if (j < p.width)
        p.t[(int64_t)n * p.ld_t + j] = total;
    if (p.rounded)
        p.rounded[(int64_t)n * p.ranks + j] = __float2bfloat16_rn(total);
}

template <bool DROPOUT> static void project(cudaStream_t stream, const struct projection &p)
{
    if (p.N < MANY_TOKENS)
        LAUNCH((lora_project_rows<1, DROPOUT>), dim3(ceil_div(p.N, 8), p.ranks / RANKS), PROJECT_THREADS, 0, stream, p);
    else
        LAUNCH((lora_project_rows<4, DROPOUT>), dim3(ceil_div(p.N, 32), p.ranks / RANKS), PROJECT_THREADS, 0, stream, p);
}

/* t of columns below width in rows of ld_t */
static void project_inputs(struct backend *be, float *t, int width, int ld_t, const struct lora *a, const struct linear *l,
                           const act_t *x, int N, const struct dropout &drop)
{
    const struct projection p = {(const bf16 *)a->a_packed, x, t, NULL, l->in, N, width, ld_t, lora_ranks(a->r), drop.keep, drop};
    CHECK(l->in % PACK == 0, "an adapter of %d inputs", l->in);
    if (drop.rate > 0)
        project<true>(cuda_state(be)->stream, p);
    else
        project<false>(cuda_state(be)->stream, p);
}

void lora_project(struct backend *be, float *t, const struct lora *a, const struct linear *l, const act_t *x, int N,
                  const struct linear_pass *pass)
{
    project_inputs(be, t, a->r, a->r, a, l, x, N, dropout_of(a, pass));
}

/* --- gradients --- */

struct contraction {
    const bf16 *wide;    /* [N][columns] */
    const float *narrow; /* [N][ranks] */
    int columns, r, ranks;
    float scale;
    struct dropout dropout; /* of wide */
    const int32_t *start;   /* [S + 1] */
    struct grads g;
    int64_t offset, column_step, rank_step; /* of the elements */
};

struct token_tile {
    bf16 wide[TOKENS][COLUMNS];
    float narrow[TOKENS][RANKS];
};

/* Starts the copies of tokens n .. n + 31, zeros from `end` on. */
__device__ __forceinline__ void fill_tokens(struct token_tile *to, const struct contraction &p, int n, int end)
{
    const int column0 = blockIdx.x * COLUMNS, j0 = blockIdx.y * RANKS;
#pragma unroll
    for (int i = 0; i < TOKENS * COLUMNS / PACK / GRADIENT_THREADS; i++) {
        const int copy = threadIdx.x + i * GRADIENT_THREADS, at = copy / (COLUMNS / PACK),
                  column = copy % (COLUMNS / PACK) * PACK;
        const bool valid = n + at < end && column0 + column < p.columns;
        copy_async16(&to->wide[at][column], p.wide + (valid ? (int64_t)(n + at) * p.columns + column0 + column : 0), valid);
    }
#pragma unroll
    for (int i = 0; i < TOKENS * RANKS / 4 / GRADIENT_THREADS; i++) {
        const int copy = threadIdx.x + i * GRADIENT_THREADS, at = copy / (RANKS / 4), j = copy % (RANKS / 4) * 4;
        const bool valid = n + at < end;
        copy_async16(&to->narrow[at][j], p.narrow + (valid ? (int64_t)(n + at) * p.ranks + j0 + j : 0), valid);
    }
}

__device__ __forceinline__ void drop_tokens(struct token_tile *tile, const struct contraction &p, int n, int end)
{
    for (int i = threadIdx.x; i < TOKENS * COLUMNS / 4; i += GRADIENT_THREADS) {
        const int at = i / (COLUMNS / 4), column = i % (COLUMNS / 4) * 4;
        if (n + at >= end)
            break;
        float factor[4];
        dropout_factor4(factor, p.dropout, dropout_row(p.dropout, n + at), blockIdx.x * COLUMNS + column);
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (factor[c] == 0)
                tile->wide[at][column + c] = __ushort_as_bfloat16(0);
    }
}

/* For its sequence: scale * sum over tokens, in order, of dropout(wide)[n][i] narrow[n][j], in float by fmaf, added to the
 * accumulators at offset + i column_step + j rank_step.
 * Block:   64 columns x 16 ranks of one sequence, 4 x 4 a thread; 32 tokens at a time, two buffers of cp.async
 * Launch:  grid (columns / 64, ranks / 16, sequences), 64 threads; 12 KiB of shared memory
 * Bytes:   wide once a tile of ranks; narrow from the second-level cache; 8 an element and sequence. 22 instructions a token
 * Same bits: an element's sum is of its sequence alone; integers are added, by atomics
 * Limits:  columns % 8 == 0; any r
 */
template <bool DROPOUT> __global__ void __launch_bounds__(GRADIENT_THREADS) lora_gradient(struct contraction p)
{
    __shared__ __align__(16) struct token_tile tile[2];
    const int end = p.start[blockIdx.z + 1], i = threadIdx.x % (COLUMNS / 4) * 4, j = threadIdx.x / (COLUMNS / 4) * 4;
    float acc[4][4] = {};
    int n = p.start[blockIdx.z], current = 0;
    if (n == end)
        return;
    fill_tokens(&tile[0], p, n, end);
    copy_async_commit();
    for (; n < end; n += TOKENS, current ^= 1) {
        if (n + TOKENS < end)
            fill_tokens(&tile[current ^ 1], p, n + TOKENS, end);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        if (DROPOUT) {
            drop_tokens(&tile[current], p, n, end);
            __syncthreads();
        }
        const int tokens = min(TOKENS, end - n);
#pragma unroll 4
        for (int at = 0; at < tokens; at++) {
            const uint2 raw = *(const uint2 *)&tile[current].wide[at][i];
            const float4 narrow = *(const float4 *)&tile[current].narrow[at][j];
            const float x[4] = {__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y << 16),
                                __uint_as_float(raw.y & 0xffff0000u)};
#pragma unroll
            for (int c = 0; c < 4; c++) {
                acc[c][0] = fmaf(x[c], narrow.x, acc[c][0]);
                acc[c][1] = fmaf(x[c], narrow.y, acc[c][1]);
                acc[c][2] = fmaf(x[c], narrow.z, acc[c][2]);
                acc[c][3] = fmaf(x[c], narrow.w, acc[c][3]);
            }
        }
        __syncthreads(); /* the buffer is filled again */
    }
    const int column = blockIdx.x * COLUMNS + i, rank = blockIdx.y * RANKS + j;
#pragma unroll
    for (int c = 0; c < 4; c++)
#pragma unroll
        for (int d = 0; d < 4; d++)
            if (column + c < p.columns && rank + d < p.r)
                grads_add_atomic(p.g, p.offset + (column + c) * p.column_step + (rank + d) * p.rank_step, acc[c][d] * p.scale);
}

static void contract(struct backend *be, const struct contraction &p, int n_seqs)
{
    const dim3 grid(ceil_div(p.columns, COLUMNS), p.ranks / RANKS, n_seqs);
    if (p.dropout.rate > 0)
        LAUNCH((lora_gradient<true>), grid, GRADIENT_THREADS, 0, cuda_state(be)->stream, p);
    else
        LAUNCH((lora_gradient<false>), grid, GRADIENT_THREADS, 0, cuda_state(be)->stream, p);
}

void lora_backward(struct backend *be, act_t *u, float *narrow, const struct lora *a, const struct linear *l, const act_t *dy,
                   const act_t *x, int N, const struct linear_pass *pass, struct grads *g)
{
    const struct dropout drop = dropout_of(a, pass);
    struct dropout none = {};
    none.keep = 1;
    const struct batch *b = pass->batch;
    const int ranks = lora_ranks(a->r);
    const struct projection p = {(const bf16 *)a->b_packed, dy, narrow, u, l->out, N, ranks, ranks, ranks, a->scale, none};
    project<false>(cuda_state(be)->stream, p);
    contract(be, {x, narrow, l->in, a->r, ranks, drop.keep, drop, b->start, *g, a->offset_a, 1, l->in}, b->n_seqs);
    project_inputs(be, narrow, ranks, ranks, a, l, x, N, drop);
    contract(be, {dy, narrow, l->out, a->r, ranks, a->scale, none, b->start, *g, a->offset_b, a->r, 1}, b->n_seqs);
}
