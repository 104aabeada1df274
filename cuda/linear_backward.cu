/* Gradients of linear layers: dx through the weights, codes expanded on the way to the fragments, never more than a tile of them;
 * the adapters' gradients are lora.cu's. Also the gradient of the logits' input, the same product with sums added to floats.
 *
 *   dx[n][i] = sum over siblings l, o ascending, of dy_l[n][o] W_l[o][i],  then over adapters, j ascending, of u_l[n][j] A_l[j][i]
 *
 * is one chain of mma by slabs of 32 terms (gemm_tile.cuh), with inputs in the place of outputs: W is read as it lies, by rows of
 * inputs, and paired along o in registers. int8: bf16(code * bf16(absmax / 127)) is multiplied. u is rounded to bf16. With
 * dropout an adapter's sum is a chain of its own, times the mask's factor, added to the others.
 */
#include "cuda/gemm_tile.cuh"
#include "cuda/ops.h"
#include "cuda/rng.cuh"

typedef tile<2, 8, 4, 1, 1, SHARED_MOST> tile_mid;  /* 128 inputs x 64 tokens */
typedef tile<4, 8, 2, 4, 1, SHARED_MOST> tile_many; /* 128 x 256 */

enum { MANY_TOKENS = 512, STAGES = 4 };

/* A matrix to multiply by, with its terms: rows of weight [count][ld], of gradients [N][ld_d], zeros from count to the next multiple
 * of 8, ld_d a multiple of 8. */
struct term {
    const void *weight;
    const float *absmax; /* [count] of codes */
    const bf16 *d;
    int64_t ld_d;
    int count;
    int end; /* slabs up to here, those of the terms before in its chain included */
};

struct backward_product {
    struct term base[GROUP_MAX], adapter[GROUP_MAX];
    struct dropout dropout[GROUP_MAX]; /* of the adapters */
    int n_base, n_adapters;
    int in, ld, N;
};

/* A stage in shared memory: a slab of weights, 32 rows of the tile's inputs; a slab of gradients; the absmax of 32 rows. */
template <class T> struct stage {
    static constexpr int D = T::M * SLAB * (int)sizeof(bf16), ABSMAX = D + T::X_SLAB;
    static constexpr int BYTES = ABSMAX + SLAB * (int)sizeof(float);
};

/* Pieces of 16 bytes of row k of the weights are swapped so that a fragment's rows, 8t + q for one q, lie in different banks. */
__device__ __forceinline__ unsigned swizzle(unsigned k)
{
    return k % 2 + k / 8 % 4 * 2;
}

/* What a thread copies of each slab: one piece of some rows of weights, STEP apart, and of tokens. */
template <class T, class W> struct source {
    static constexpr int PIECES = T::M * (int)sizeof(W) / PIECE, STEP = T::THREADS / PIECES, X_STEP = T::THREADS / T::X_PIECES;
    const struct term *term;
    const W *weight; /* of its first row */
    const bf16 *d;   /* of its first token */
    int left;        /* rows of the term from the slab on */
};

template <class T, class W>
__device__ __forceinline__ void start_term(source<T, W> &s, const struct backward_product &p, const struct term *term,
                                           struct tile_at tile)
{
    constexpr int PIECES = source<T, W>::PIECES;
    const unsigned k = threadIdx.x / PIECES, piece = threadIdx.x % PIECES, token = threadIdx.x / T::X_PIECES;
    s.term = term;
    s.weight = (const W *)term->weight + k * (int64_t)p.ld + tile.m + piece * (PIECE / sizeof(W));
    s.d = term->d + (tile.n + token) * term->ld_d + threadIdx.x % T::X_PIECES * PACK;
    s.left = term->count;
}

/* Starts the copies of the next slab. */
template <class T, class W>
__device__ __forceinline__ void fill(unsigned char *to, const struct backward_product &p, source<T, W> &s,
                                     struct tile_at tile)
{
    constexpr int PIECES = source<T, W>::PIECES, STEP = source<T, W>::STEP, X_STEP = source<T, W>::X_STEP;
    constexpr int ROW = T::M * (int)sizeof(W), COPIES = SLAB / STEP;
    static_assert(COPIES * STEP == SLAB && T::X_COPIES * X_STEP == T::N, "a tile's copies");
    if (s.left <= 0)
        start_term<T, W>(s, p, s.term + 1, tile);
    const unsigned row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    const bool input = tile.m + (int)piece * (PIECE / (int)sizeof(W)) < p.ld;
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        const int k = (int)row + i * STEP;
        copy_async16(to + k * ROW + (piece ^ swizzle(k)) * PIECE, s.weight + (int64_t)(i * STEP) * p.ld, k < s.left && input);
    }
    const int token = tile.n + (int)(threadIdx.x / T::X_PIECES);
    const bool column = (int)(threadIdx.x % T::X_PIECES) * PACK < s.left;
#pragma unroll
    for (int i = 0; i < T::X_COPIES; i++)
        copy_async16(to + stage<T>::D + (threadIdx.x + i * T::THREADS) * PIECE, s.d + i * X_STEP * s.term->ld_d,
                     token + i * X_STEP < p.N && column);
    if (sizeof(W) == 1 && threadIdx.x < SLAB / 4) {
        const int k = threadIdx.x * 4;
        copy_async16(to + stage<T>::ABSMAX + k * sizeof(float), s.term->absmax + (s.term->count - s.left) + k, k < s.left);
    }
    s.left -= SLAB, s.weight += (int64_t)SLAB * p.ld, s.d += SLAB;
}

/* Values e of two rows of a lane's E inputs as a pair of bf16; scale: of the rows, for codes. */
template <class W> __device__ __forceinline__ uint32_t pair_of(const uint32_t *low, const uint32_t *high, int e, uint32_t scale)
{
    if constexpr (sizeof(W) == 1)
        return fma_bf16x2(expand_codes(__byte_perm(low[e / 4], high[e / 4], e % 4 | (e % 4 + 4) << 8)), scale, 0x80008000u);
    else
        return __byte_perm(low[e / 2], high[e / 2], e % 2 ? 0x7632 : 0x5410);
}

template <class T, class W> __device__ __forceinline__ void multiply(float acc[T::MT][T::NT][4], const unsigned char *from)
{
    constexpr int ROW = T::M * (int)sizeof(W), BYTES = T::E * (int)sizeof(W);
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const int column = (warp % T::WARPS_M * T::WARP_M + g * T::E) * (int)sizeof(W);
    uint32_t b[T::NT][4];
    load_tokens<T>(b, from + stage<T>::D);
#pragma unroll
    for (int s = 0; s < 2; s++) {
        uint32_t row[4][BYTES / 4], scale[2] = {0, 0};
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const int k = 8 * t + 4 * s + q;
            load_words<BYTES>(row[q], from + k * ROW + (column / PIECE ^ swizzle(k)) * PIECE + column % PIECE);
        }
        if constexpr (sizeof(W) == 1) {
            const float4 absmax = *(const float4 *)(from + stage<T>::ABSMAX + (8 * t + 4 * s) * sizeof(float));
            scale[0] = pack_bf16(absmax.x * (1.0f / 127.0f), absmax.y * (1.0f / 127.0f));
            scale[1] = pack_bf16(absmax.z * (1.0f / 127.0f), absmax.w * (1.0f / 127.0f));
        }
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[i] = pair_of<W>(row[i / 2 * 2], row[i / 2 * 2 + 1], 2 * mt + i % 2, scale[i / 2]);
#pragma unroll
            for (int nt = 0; nt < T::NT; nt++)
                mma_bf16(acc[mt][nt], a, b[nt] + 2 * s);
        }
    }
}

/* Adds the products of consecutive terms to the sums, up to the slab `end`. */
template <class T, class W>
__device__ __forceinline__ void add_terms(float acc[T::MT][T::NT][4], unsigned char *shared, const struct backward_product &p,
                                          const struct term *term, int end, struct tile_at tile)
{
    source<T, W> from;
    start_term<T, W>(from, p, term, tile);
    __syncthreads(); /* the stages may still be read */
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < end)
            fill<T, W>(shared + i * stage<T>::BYTES, p, from, tile);
        copy_async_commit();
    }
    for (int i = 0; i < end; i++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (i + STAGES - 1 < end)
            fill<T, W>(shared + (i + STAGES - 1) % STAGES * stage<T>::BYTES, p, from, tile);
        copy_async_commit();
        multiply<T, W>(acc, shared + i % STAGES * stage<T>::BYTES);
    }
}

/* acc += factor * low, the factors drawn again. */
template <class T>
__device__ __forceinline__ void add_dropped(float acc[T::MT][T::NT][4], const float low[T::MT][T::NT][4],
                                            const struct backward_product &p, const struct dropout &drop, struct tile_at at)
{
    static_assert(T::E == 4, "factors are drawn by four");
#pragma unroll
    for (int nt = 0; nt < T::NT; nt++)
#pragma unroll
        for (int column = 0; column < 2; column++) {
            const int n = at.n + 8 * nt + column;
            float factor[4];
            if (n >= p.N)
                break;
            dropout_factor4(factor, drop, dropout_row(drop, n), at.m);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int c = e % 2 * 2 + column;
                acc[e / 2][nt][c] += dropped(low[e / 2][nt][c], factor[e]);
            }
        }
}

template <int E> __device__ __forceinline__ void put_values(bf16 *p, const float v[E])
{
    store_values<E>(p, v);
}

template <int E> __device__ __forceinline__ void put_values(float *p, const float v[E])
{
    float sum[E];
#pragma unroll
    for (int i = 0; i < E; i += 4) {
        const float4 was = *(const float4 *)(p + i);
        sum[i] = was.x + v[i];
        sum[i + 1] = was.y + v[i + 1];
        sum[i + 2] = was.z + v[i + 2];
        sum[i + 3] = was.w + v[i + 3];
    }
    store_values<E>(p, sum);
}

/* dx bf16, written; or float, added to.
 * Block:   a tile of M inputs x N tokens, all terms one after the other; 4 stages of cp.async, one barrier a stage
 * Launch:  a block a tile; THREADS = 128 or 256; 48.5 or 96.5 KiB of dynamic shared memory
 * Bytes:   weights and gradients once a tile from the second-level cache; codes cost 5 instructions a pair, bf16 weights 1
 * Same bits: an input's sum is one chain of mma over ascending slabs of ascending terms, of its own token and input alone
 * Limits:  in % 8 == 0; terms of any count; DROPOUT with 128 x 64 tiles, as it needs the sums' registers twice
 */
template <class T, class W, class Y, bool DROPOUT>
__global__ void __launch_bounds__(T::THREADS) product_backward(struct backward_product p, Y *dx)
{
    DYN_SHARED(unsigned char, shared);
    const struct tile_at tile = tile_of<T>(blockIdx.x, p.in, p.N), at = lane_of<T>(tile);
    float acc[T::MT][T::NT][4] = {};
    add_terms<T, W>(acc, shared, p, p.base, p.base[p.n_base - 1].end, tile);
    if constexpr (DROPOUT) {
        for (int i = 0; i < p.n_adapters; i++) {
            float low[T::MT][T::NT][4] = {};
            add_terms<T, bf16>(low, shared, p, &p.adapter[i], p.adapter[i].end, tile);
            add_dropped<T>(acc, low, p, p.dropout[i], at);
        }
    } else if (p.n_adapters) {
        add_terms<T, bf16>(acc, shared, p, p.adapter, p.adapter[p.n_adapters - 1].end, tile);
    }
    if (at.m >= p.in)
        return;
#pragma unroll
    for (int nt = 0; nt < T::NT; nt++)
#pragma unroll
        for (int column = 0; column < 2; column++) {
            const int n = at.n + 8 * nt + column;
            float v[T::E];
#pragma unroll
            for (int e = 0; e < T::E; e++)
                v[e] = acc[e / 2][nt][e % 2 * 2 + column];
            if (n < p.N)
                put_values<T::E>(dx + (int64_t)n * p.in + at.m, v);
        }
}

template <class T, class W, class Y, bool DROPOUT>
static void launch(cudaStream_t stream, const struct backward_product &p, Y *dx)
{
    LAUNCH((product_backward<T, W, Y, DROPOUT>), tile_count<T>(p.in, p.N), T::THREADS, STAGES * stage<T>::BYTES, stream, p, dx);
}

template <class W> static void launch_rows(cudaStream_t stream, const struct backward_product &p, bool dropout, bf16 *dx)
{
    if (dropout)
        launch<tile_mid, W, bf16, true>(stream, p, dx);
    else if (p.N < MANY_TOKENS)
        launch<tile_mid, W, bf16, false>(stream, p, dx);
    else
        launch<tile_many, W, bf16, false>(stream, p, dx);
}

size_t gemm_workspace(int max_tokens)
{
    return (size_t)max_tokens * LORA_MOST * (sizeof(float) + GROUP_MAX * sizeof(bf16));
}

void cuda_linear_backward(struct backend *be, act_t *dx, struct linear *const *l, const act_t *const *dy, int n_linears,
                          const act_t *x, int N, const struct linear_pass *pass, struct grads *g)
{
    if (cuda_failed(be) || N == 0)
        return;
    CHECK(n_linears <= GROUP_MAX && l[0]->in % PACK == 0, "%d linear layers of %d inputs", n_linears, l[0]->in);
    struct backward_product p = {};
    p.in = l[0]->in;
    p.ld = linear_ld(p.in);
    p.N = N;
    float *narrow = (float *)cuda_scratch(be, gemm_workspace(N));
    bf16 *u = (bf16 *)(narrow + (int64_t)N * LORA_MOST);
    for (int i = 0; i < n_linears; i++) {
        const int out = l[i]->out, before = i > 0 ? p.base[i - 1].end : 0;
        CHECK(!l[i]->master && l[i]->dtype == l[0]->dtype && out % PACK == 0, "siblings are frozen, of one type and whole packs");
        p.base[p.n_base++] = {l[i]->weight, l[i]->absmax, dy[i], out, out, before + ceil_div(out, SLAB)};
    }
    bool dropout = false;
    for (int i = 0; i < n_linears; i++) {
        const struct lora *a = pass_adapter(l[i], pass);
        if (!a)
            continue;
        lora_backward(be, u, narrow, a, l[i], dy[i], x, N, pass, g);
        const int ranks = lora_ranks(a->r);
        p.dropout[p.n_adapters] = dropout_of(a, pass);
        dropout = dropout || p.dropout[p.n_adapters].rate > 0;
        p.adapter[p.n_adapters++] = {a->a_packed, NULL, u, ranks, ranks, ceil_div(ranks, SLAB)};
        u += (int64_t)N * LORA_MOST;
    }
    for (int i = 1; !dropout && i < p.n_adapters; i++) /* one chain */
        p.adapter[i].end += p.adapter[i - 1].end;
    if (dx && l[0]->dtype == DTYPE_I8)
        launch_rows<int8_t>(cuda_state(be)->stream, p, dropout, dx);
    else if (dx)
        launch_rows<bf16>(cuda_state(be)->stream, p, dropout, dx);
    cuda_check(be, "linear_backward");
}

void gemm_logits_backward(struct backend *be, float *out, const struct linear *head, int first, int count, const act_t *d,
                          int64_t ld_d, int n)
{
    CHECK(head->in % PACK == 0 && ld_d % PACK == 0 && head->dtype != DTYPE_I8, "a head of %d inputs, type %d", head->in,
          (int)head->dtype);
    struct backward_product p = {};
    p.in = head->in;
    p.ld = linear_ld(p.in);
    p.N = n;
    p.n_base = 1;
    p.base[0] = {(const bf16 *)head->weight + (int64_t)first * p.ld, NULL, d, ld_d, count, ceil_div(count, SLAB)};
    if (n < MANY_TOKENS)
        launch<tile_mid, bf16, float, false>(cuda_state(be)->stream, p, out);
    else
        launch<tile_many, bf16, float, false>(cuda_state(be)->stream, p, out);
}
