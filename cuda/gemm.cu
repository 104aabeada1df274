/* Forward products in bf16 on tensor cores: linear layers with floating weights or with int8 codes that are expanded on the way
 * from shared memory to the fragments (dequant), and logits. gemm_tile.cuh has the order of sums and the tiles; the number of
 * tokens alone chooses among shapes. Few tokens (decode) are bound by the weights' bytes: narrow tiles in small blocks, so that
 * 6144 outputs fill a device, and stages of 128 inputs, so that a row of codes is read in whole lines. Many are bound by the
 * tensor cores.
 */
#include "cuda/epilogue.cuh"
#include "cuda/gemm_tile.cuh"

typedef tile<1, 1, 2, 1, 4, SHARED_DEFAULT> tile_8;   /* 32 outputs x 8 tokens */
typedef tile<1, 2, 2, 1, 4, SHARED_DEFAULT> tile_16;  /* 32 x 16 */
typedef tile<1, 4, 4, 1, 4, SHARED_MOST> tile_32;     /* 64 x 32 */
typedef tile<1, 8, 4, 1, 4, SHARED_MOST> tile_64;     /* 64 x 64 */
typedef tile<2, 8, 4, 1, 1, SHARED_DEFAULT> tile_mid; /* 128 x 64 */
typedef tile<4, 8, 2, 4, 1, SHARED_MOST> tile_many;   /* 128 x 256 */

enum { MANY_TOKENS = 512 };

/* A stage of both operands in shared memory: the slabs of the weights, then those of the tokens. W: bf16 or int8_t. */
template <class T, class W> struct stage {
    static constexpr int ROW = SLAB * (int)sizeof(W); /* bytes */
    static constexpr int PIECES = T::SLABS * ROW / PIECE, COPIES = T::M * PIECES / T::THREADS;
    static constexpr int W_SLAB = T::M * ROW + (T::SLABS > 1) * ROW;
    static constexpr int BYTES = T::SLABS * (W_SLAB + T::X_SLAB), K = T::SLABS * SLAB;
    static constexpr int STAGES = T::ROOM / BYTES < STAGES_MOST ? T::ROOM / BYTES : (int)STAGES_MOST;
};

struct forward_product {
    const void *weight; /* [out][linear_ld(in)] */
    const bf16 *x;      /* [..][in] */
    const int32_t *row; /* [N] rows of x, or NULL */
    int out, in, ld, N;
    int64_t ld_y;
    struct epilogue e; /* without row_absmax */
};

/* Rows of x that this thread copies, -1 behind the last. */
template <class T> __device__ __forceinline__ void rows_of(int row[T::X_COPIES], const struct forward_product &p, int n)
{
#pragma unroll
    for (int i = 0; i < T::X_COPIES; i++) {
        const int at = n + (threadIdx.x + i * T::THREADS) / T::X_PIECES;
        row[i] = at >= p.N ? -1 : p.row ? p.row[at] : at;
    }
}

/* Starts the copies of inputs k .. k + K - 1. Row 8 e + g of a warp's weights is output E g + e. */
template <class T, class W>
__device__ __forceinline__ void fill(unsigned char *to, const struct forward_product &p, struct tile_at tile,
                                     const int row[T::X_COPIES], int k)
{
    typedef stage<T, W> S;
#pragma unroll
    for (int i = 0; i < S::COPIES; i++) {
        const int copy = threadIdx.x + i * T::THREADS, at = copy / S::PIECES, piece = copy % S::PIECES;
        const int slab = piece * PIECE / S::ROW, in_warp = at % T::WARP_M;
        const int m = tile.m + at / T::WARP_M * T::WARP_M + in_warp % 8 * T::E + in_warp / 8;
        const int first = k + piece * PIECE / (int)sizeof(W);
        const bool valid = m < p.out && first < p.ld;
        const W *from = (const W *)p.weight + (valid ? (int64_t)m * p.ld + first : 0);
        copy_async16(to + slab * S::W_SLAB + at * S::ROW + piece * PIECE % S::ROW, from, valid);
    }
    unsigned char *x = to + T::SLABS * S::W_SLAB;
#pragma unroll
    for (int i = 0; i < T::X_COPIES; i++) {
        const int copy = threadIdx.x + i * T::THREADS, at = copy / T::X_PIECES, piece = copy % T::X_PIECES;
        const int first = k + piece * PACK;
        const bool valid = row[i] >= 0 && first < p.in;
        const bf16 *from = p.x + (valid ? (int64_t)row[i] * p.in + first : 0);
        copy_async16(x + piece / 4 * T::X_SLAB + at * X_ROW + piece % 4 * PIECE, from, valid);
    }
}

/* Fragments of 16 outputs for both steps of a slab; row: of the lane's first output. */
template <class W> __device__ __forceinline__ void load_weights(uint32_t a[2][4], const unsigned char *row)
{
    constexpr int WORDS = 2 * (int)sizeof(W);
    uint32_t low[WORDS], high[WORDS];
    load_words<4 * WORDS>(low, row);
    load_words<4 * WORDS>(high, row + 8 * SLAB * sizeof(W));
#pragma unroll
    for (int s = 0; s < 2; s++) {
        if constexpr (sizeof(W) == 1) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                a[s][2 * i] = expand_codes(__byte_perm(low[s], 0, i ? 0x0302 : 0x0100));
                a[s][2 * i + 1] = expand_codes(__byte_perm(high[s], 0, i ? 0x0302 : 0x0100));
            }
        } else {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                a[s][2 * i] = low[2 * s + i];
                a[s][2 * i + 1] = high[2 * s + i];
            }
        }
    }
}

template <class T, class W>
__device__ __forceinline__ void multiply(float acc[T::MT][T::NT][4], const unsigned char *weights, const unsigned char *tokens)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned char *row = weights + (warp % T::WARPS_M * T::WARP_M + lane / 4) * stage<T, W>::ROW + lane % 4 * 8 * sizeof(W);
    uint32_t b[T::NT][4];
    load_tokens<T>(b, tokens);
#pragma unroll
    for (int mt = 0; mt < T::MT; mt++) {
        uint32_t a[2][4];
        load_weights<W>(a, row + mt * 16 * stage<T, W>::ROW);
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int nt = 0; nt < T::NT; nt++)
                mma_bf16(acc[mt][nt], a[s], b[nt] + 2 * s);
    }
}

/* What the lane's sums are multiplied by. Lanes behind the last output look at those before it; only rows of logits, which have
 * neither scale nor rest, end within a lane's outputs. */
template <class T> __device__ __forceinline__ void scale_of(float scale[T::E], const struct forward_product &p, int m)
{
#pragma unroll
    for (int e = 0; e < T::E; e++)
        scale[e] = epilogue_scale(p.e, 0, min(m, p.out - T::E) + e);
}

/* What is added to the sums of a column of the lane's tokens: n, n + 8, .. */
template <class T, int ROWS>
__device__ __forceinline__ void rest_of(float rest[ROWS][T::E], const struct forward_product &p, int n, int m)
{
    epilogue_rest_rows<ROWS, T::E>(rest, p.e, n, 8, p.N, min(m, p.out - T::E));
}

/* Fragments nt .. nt + ROWS - 1 of a column of the lane's tokens. */
template <class T, int ROWS, class Y>
__device__ __forceinline__ void store(Y *y, const struct forward_product &p, const float acc[T::MT][T::NT][4],
                                      const float scale[T::E], const float rest[ROWS][T::E], struct tile_at at, int column,
                                      int nt)
{
    /* activations end with a lane's outputs, logits anywhere */
    const bool whole = at.m + T::E <= p.out && (sizeof(Y) == sizeof(bf16) || (p.ld_y % 4 == 0 && (uintptr_t)y % 16 == 0));
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int n = at.n + column + 8 * (nt + i);
        if (n >= p.N)
            break;
        float v[T::E];
#pragma unroll
        for (int e = 0; e < T::E; e++)
            v[e] = fmaf(acc[e / 2][nt + i][e % 2 * 2 + column], scale[e], rest[i][e]);
        Y *to = y + n * p.ld_y + at.m;
        if (whole)
            store_values<T::E>(to, v);
        else if constexpr (sizeof(Y) == sizeof(float))
#pragma unroll
            for (int e = 0; e < T::E; e++)
                if (at.m + e < p.out)
                    to[e] = v[e];
    }
}

/* y[n][o] = epilogue(sum_k x[n][k] W[o][k]).
 * Block:   a tile of M outputs x N tokens; a pipeline of cp.async stages, one barrier a stage. Few tokens: bias and adapter are summed
 *          up while the first stages arrive; many: after the sums, 4 fragments at a time, as registers hold no more
 * Launch:  a block a tile; THREADS = 64 .. 256; 37.5 .. 98.3 KiB of dynamic shared memory (stage::BYTES * STAGES)
 * Bytes:   few tokens: every weight once, x once a tile of outputs (from the second-level cache); codes cost 4 instructions a pair
 * Same bits: an output's sum is one chain of mma over ascending slabs in every shape, of its own token and output alone
 * Limits:  in % 8 == 0, any N >= 1; out % 8 == 0 with an epilogue, else any
 */
template <class T, class W, class Y> __global__ void __launch_bounds__(T::THREADS) product_forward(struct forward_product p, Y *y)
{
    typedef stage<T, W> S;
    constexpr bool FEW = T::MT == 1;
    constexpr int ROWS = FEW ? T::NT : 4;
    DYN_SHARED(unsigned char, shared);
    const struct tile_at tile = tile_of<T>(blockIdx.x, p.out, p.N), at = lane_of<T>(tile);
    const int stages = (p.ld + S::K - 1) / S::K;
    float acc[T::MT][T::NT][4] = {}, scale[T::E], rest[FEW ? 2 : 1][ROWS][T::E];
    int row[T::X_COPIES];
    rows_of<T>(row, p, tile.n);
#pragma unroll
    for (int i = 0; i < S::STAGES - 1; i++) {
        if (i < stages)
            fill<T, W>(shared + i * S::BYTES, p, tile, row, i * S::K);
        copy_async_commit();
    }
    if constexpr (FEW) {
        scale_of<T>(scale, p, at.m);
        rest_of<T, ROWS>(rest[0], p, at.n, at.m);
        rest_of<T, ROWS>(rest[1], p, at.n + 1, at.m);
    }
    int current = 0, next = S::STAGES - 1;
    for (int i = 0; i < stages; i++) {
        copy_async_wait<S::STAGES - 2>();
        __syncthreads();
        if (i + S::STAGES - 1 < stages)
            fill<T, W>(shared + next * S::BYTES, p, tile, row, (i + S::STAGES - 1) * S::K);
        copy_async_commit();
        const unsigned char *from = shared + current * S::BYTES;
#pragma unroll
        for (int slab = 0; slab < T::SLABS; slab++)
            if (i * S::K + slab * SLAB < p.ld)
                multiply<T, W>(acc, from + slab * S::W_SLAB, from + T::SLABS * S::W_SLAB + slab * T::X_SLAB);
        current = current + 1 < S::STAGES ? current + 1 : 0;
        next = next + 1 < S::STAGES ? next + 1 : 0;
    }
    if constexpr (!FEW)
        scale_of<T>(scale, p, at.m);
#pragma unroll
    for (int column = 0; column < 2; column++)
#pragma unroll
        for (int nt = 0; nt < T::NT; nt += ROWS) {
            if constexpr (!FEW)
                rest_of<T, ROWS>(rest[0], p, at.n + column + 8 * nt, at.m);
            store<T, ROWS>(y, p, acc, scale, rest[FEW ? column : 0], at, column, nt);
        }
}

template <class T, class W, class Y> static void launch(cudaStream_t stream, const struct forward_product &p, Y *y)
{
    typedef stage<T, W> S;
    static_assert(S::STAGES >= 3 && S::COPIES * T::THREADS == T::M * S::PIECES && T::X_COPIES * T::THREADS == T::N * T::X_PIECES,
                  "a tile's copies");
    LAUNCH((product_forward<T, W, Y>), tile_count<T>(p.out, p.N), T::THREADS, S::STAGES * S::BYTES, stream, p, y);
}

template <class W, class Y> static void launch_by_tokens(cudaStream_t stream, const struct forward_product &p, Y *y)
{
    if (p.N <= 8)
        launch<tile_8, W>(stream, p, y);
    else if (p.N <= 16)
        launch<tile_16, W>(stream, p, y);
    else if (p.N <= 32)
        launch<tile_32, W>(stream, p, y);
    else if (p.N <= 64)
        launch<tile_64, W>(stream, p, y);
    else if (p.N < MANY_TOKENS)
        launch<tile_mid, W>(stream, p, y);
    else
        launch<tile_many, W>(stream, p, y);
}

void gemm_forward(struct backend *be, act_t *y, const struct linear *l, const act_t *x, int N, const struct epilogue *e)
{
    CHECK(l->in % PACK == 0 && l->out % PACK == 0 && !e->row_absmax, "a product of floating rows, %d x %d", l->out, l->in);
    const struct forward_product p = {l->weight, x, NULL, l->out, l->in, linear_ld(l->in), N, l->out, *e};
    if (l->dtype == DTYPE_I8)
        launch_by_tokens<int8_t>(cuda_state(be)->stream, p, y);
    else
        launch_by_tokens<bf16>(cuda_state(be)->stream, p, y);
}

void gemm_logits(struct backend *be, float *out, int64_t ld, const struct linear *head, int first, int count, const act_t *x,
                 const int32_t *row, int n)
{
    CHECK(head->in % PACK == 0 && head->dtype != DTYPE_I8, "a head of %d inputs, type %d", head->in, (int)head->dtype);
    const int weight_ld = linear_ld(head->in);
    const bf16 *weight = (const bf16 *)head->weight + (int64_t)first * weight_ld;
    const struct forward_product p = {weight, x, row, count, head->in, weight_ld, n, ld, {}};
    launch_by_tokens<bf16>(cuda_state(be)->stream, p, out);
}
