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

/* What a thread copies of each stage: one piece of some rows of weights, STEP apart, and of tokens. Row 8 e + g of a warp's weights is
 * output E g + e; the bits of that come from those of the row, so that rows STEP apart are at outputs of constant distance. */
template <class T, class W> struct source {
    static constexpr int STEP = T::THREADS / stage<T, W>::PIECES, X_STEP = T::THREADS / T::X_PIECES;
    const W *weight; /* of the first row, at input k */
    const bf16 *x;   /* of token 0, at input x_k */
    int output, k, x_k;
    int token[T::X_COPIES]; /* rows of x, -1 behind the last */
};

template <class T> __host__ __device__ constexpr int output_of(int row)
{
    return row / T::WARP_M * T::WARP_M + row % 8 * T::E + row % T::WARP_M / 8;
}

template <class T, class W>
__device__ __forceinline__ source<T, W> source_of(const struct forward_product &p, struct tile_at tile)
{
    typedef stage<T, W> S;
    source<T, W> s;
    s.k = (int)(threadIdx.x % S::PIECES) * (PIECE / (int)sizeof(W));
    s.x_k = (int)(threadIdx.x % T::X_PIECES) * PACK;
    s.output = tile.m + output_of<T>((int)(threadIdx.x / S::PIECES));
    s.weight = (const W *)p.weight + (int64_t)s.output * p.ld + s.k;
    s.x = p.x + s.x_k;
#pragma unroll
    for (int i = 0; i < T::X_COPIES; i++) {
        const int n = tile.n + (int)(threadIdx.x / T::X_PIECES) + i * source<T, W>::X_STEP;
        s.token[i] = n >= p.N ? -1 : p.row ? p.row[n] : n;
    }
    return s;
}

/* Starts the copies of the next stage. */
template <class T, class W>
__device__ __forceinline__ void fill(unsigned char *to, const struct forward_product &p, source<T, W> &s)
{
    typedef stage<T, W> S;
    constexpr int STEP = source<T, W>::STEP, X_STEP = source<T, W>::X_STEP;
    static_assert((STEP & (STEP - 1)) == 0 && STEP * S::PIECES == T::THREADS, "rows STEP apart");
    const unsigned byte = threadIdx.x % S::PIECES * PIECE, x_byte = threadIdx.x % T::X_PIECES * PIECE; /* in a row */
    unsigned char *weights = to + byte / S::ROW * S::W_SLAB + byte % S::ROW + threadIdx.x / S::PIECES * S::ROW;
    unsigned char *x = to + T::SLABS * S::W_SLAB + x_byte / X_ROW * T::X_SLAB + x_byte % X_ROW + threadIdx.x / T::X_PIECES * X_ROW;
#pragma unroll
    for (int i = 0; i < S::COPIES; i++) {
        const int more = output_of<T>(i * STEP);
        copy_async16(weights + i * STEP * S::ROW, s.weight + (int64_t)more * p.ld, s.output + more < p.out && s.k < p.ld);
    }
#pragma unroll
    for (int i = 0; i < T::X_COPIES; i++)
        copy_async16(x + i * X_STEP * X_ROW, s.x + (int64_t)s.token[i] * p.in, s.token[i] >= 0 && s.x_k < p.in);
    s.weight += S::K, s.x += S::K, s.k += S::K, s.x_k += S::K;
}

/* A lane's words of 16 outputs in a slab, of the first and the ninth; from: those of the first. */
template <class W> struct weight_words {
    static constexpr int WORDS = 2 * (int)sizeof(W);
    uint32_t row[2][WORDS];
};

template <class W> __device__ __forceinline__ void load_weights(struct weight_words<W> &w, const unsigned char *from)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
        load_words<4 * weight_words<W>::WORDS>(w.row[h], from + h * 8 * SLAB * sizeof(W));
}

/* Their fragments for step s. */
template <class W> __device__ __forceinline__ void weight_fragments(uint32_t a[4], const struct weight_words<W> &w, int s)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        if constexpr (sizeof(W) == 1)
            a[i] = expand_codes(__byte_perm(w.row[i % 2][s], 0, i / 2 ? 0x0302 : 0x0100));
        else
            a[i] = w.row[i % 2][2 * s + i / 2];
}

/* Where a lane's words of a slab of weights begin. */
template <class T, class W> __device__ __forceinline__ const unsigned char *lane_weights(const unsigned char *slab)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    return slab + (warp % T::WARPS_M * T::WARP_M + lane / 4) * stage<T, W>::ROW + lane % 4 * 8 * sizeof(W);
}

template <class T, class W>
__device__ __forceinline__ void multiply_words(float acc[T::NT][4], const struct weight_words<W> &w, const uint32_t b[T::NT][4])
{
#pragma unroll
    for (int s = 0; s < 2; s++) {
        uint32_t a[4];
        weight_fragments<W>(a, w, s);
#pragma unroll
        for (int nt = 0; nt < T::NT; nt++)
            mma_bf16(acc[nt], a, b[nt] + 2 * s);
    }
}

/* Adds a stage's products to the sums. One fragment of outputs a lane leaves registers to read a slab ahead. */
template <class T, class W> __device__ __forceinline__ void multiply(float acc[T::MT][T::NT][4], const unsigned char *from)
{
    typedef stage<T, W> S;
    const unsigned char *weights = lane_weights<T, W>(from), *tokens = from + T::SLABS * S::W_SLAB;
    constexpr int HELD = T::MT == 1 ? 2 : 1;
    static_assert(HELD == 2 || T::SLABS == 1, "slabs ahead");
    struct weight_words<W> w[HELD];
    uint32_t b[HELD][T::NT][4];
    load_weights<W>(w[0], weights);
    load_tokens<T>(b[0], tokens);
#pragma unroll
    for (int slab = 0; slab < T::SLABS; slab++) {
        if (slab + 1 < T::SLABS) {
            load_weights<W>(w[(slab + 1) % HELD], weights + (slab + 1) * S::W_SLAB);
            load_tokens<T>(b[(slab + 1) % HELD], tokens + (slab + 1) * T::X_SLAB);
        }
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++) {
            if (mt > 0)
                load_weights<W>(w[0], weights + mt * 16 * S::ROW);
            multiply_words<T, W>(acc[mt], w[slab % HELD], b[slab % HELD]);
        }
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
template <class T, class W, class Y> __global__ void __launch_bounds__(T::THREADS, 1) product_forward(struct forward_product p, Y *y)
{
    typedef stage<T, W> S;
    constexpr bool FEW = T::MT == 1;
    constexpr int ROWS = FEW ? T::NT : 4;
    DYN_SHARED(unsigned char, shared);
    const struct tile_at tile = tile_of<T>(blockIdx.x, p.out, p.N), at = lane_of<T>(tile);
    const int stages = (p.ld + S::K - 1) / S::K;
    float acc[T::MT][T::NT][4] = {}, scale[T::E], rest[FEW ? 2 : 1][ROWS][T::E];
    source<T, W> from = source_of<T, W>(p, tile);
#pragma unroll
    for (int i = 0; i < S::STAGES - 1; i++) {
        if (i < stages)
            fill<T, W>(shared + i * S::BYTES, p, from);
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
            fill<T, W>(shared + next * S::BYTES, p, from);
        copy_async_commit();
        multiply<T, W>(acc, shared + current * S::BYTES);
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
