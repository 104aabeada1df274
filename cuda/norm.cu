/* Layer norm and RMS norm with the residual sum in front, their derivatives, and the plain residual sum.
 *
 *   layer: xhat = (x - mean) / sqrt(mean((x - mean)^2) + eps);  RMS: xhat = x / sqrt(mean(x^2) + eps);  y = xhat w + b
 *   g = dy w;  dx += (g - mean(g) - xhat mean(g xhat)) / sqrt(..)      (RMS without mean(g))
 *
 * A row lies in registers as packs of eight bf16 values, so x is read once and both sums of the moments, first the mean and then
 * the centred squares, come from there. The norm's input is the sum rounded to bf16: what is stored, and what backward reads. A
 * row of up to 1024 columns belongs to a warp, a longer one to a block; which of them, and how many packs a thread holds, follows
 * from H alone. Sums over a row: a thread's packs in ascending order, the butterfly of the warp, the warps in ascending order.
 */
#include "cuda/load.cuh"
#include "cuda/ops.h"
#include "cuda/reduce.cuh"

enum {
    WARP_ROWS = 4, /* rows a block when each belongs to a warp */
    WARP_THREADS = WARP_ROWS * WARP,
    WARP_PACKS = 4 * WARP, /* the longest row of a warp: 4 packs a lane */
    ROW_THREADS = 512,     /* most threads of a row's block */
    ROW_PACKS = 8,         /* most packs of one of its threads */
    H_MOST = ROW_THREADS * ROW_PACKS * PACK
};

/* A thread's share of a row: the packs first, first + step, ... below count. */
struct share {
    int64_t row;
    int first, step, count;
};

template <bool WARP_ROW> __device__ __forceinline__ struct share share_of(int H)
{
    if (WARP_ROW)
        return {(int64_t)blockIdx.x * WARP_ROWS + threadIdx.x / WARP, (int)threadIdx.x % WARP, WARP, H / PACK};
    return {(int64_t)blockIdx.x, (int)threadIdx.x, (int)blockDim.x, H / PACK};
}

/* Column of the share's pack i; false where the row has none. */
__device__ __forceinline__ bool share_column(int *column, const struct share &s, int i)
{
    *column = (s.first + i * s.step) * PACK;
    return s.first + i * s.step < s.count;
}

/* v[i] = sum over the row's threads of their v[i]. scratch: COUNT floats a warp, free again after the next barrier. */
template <bool WARP_ROW, int COUNT> __device__ __forceinline__ void row_sums(float (&v)[COUNT], float *scratch)
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        v[i] = warp_reduce<reduce_sum>(v[i]);
    if (WARP_ROW)
        return;
    __syncthreads(); /* scratch may still be read by an earlier call */
    if (threadIdx.x % WARP == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            scratch[threadIdx.x / WARP * COUNT + i] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        v[i] = scratch[i];
    for (int warp = 1; warp < (int)blockDim.x / WARP; warp++) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            v[i] += scratch[warp * COUNT + i];
    }
}

/* The share of a row of p [N][H]; zeros where it has none, or p is NULL. */
template <int PACKS> __device__ __forceinline__ void load_share(uint4 (&kept)[PACKS], const bf16 *p, const struct share &s, int H)
{
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        int column;
        kept[i] = make_uint4(0, 0, 0, 0);
        if (share_column(&column, s, i) && p)
            kept[i] = *(const uint4 *)(p + s.row * H + column);
    }
}

/* Of a row; inverse = 1 / H. */
struct moments {
    float mean, scale; /* xhat = (x - mean) * scale */
};

template <int PACKS, bool WARP_ROW>
__device__ __forceinline__ struct moments row_moments(const uint4 (&x)[PACKS], const struct share &s, const struct norm &n,
                                                      float inverse, float *scratch)
{
    float mean = 0;
    if (n.kind == NORM_LAYER) {
        float sum[1] = {0};
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            float v[PACK];
            unpack(v, x[i]);
#pragma unroll
            for (int j = 0; j < PACK; j++)
                sum[0] += v[j];
        }
        row_sums<WARP_ROW>(sum, scratch);
        mean = sum[0] * inverse;
    }
    float squares[1] = {0};
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        int column;
        float v[PACK];
        unpack(v, x[i]);
        if (!share_column(&column, s, i))
            continue;
#pragma unroll
        for (int j = 0; j < PACK; j++)
            squares[0] = fmaf(v[j] - mean, v[j] - mean, squares[0]);
    }
    row_sums<WARP_ROW>(squares, scratch);
    return {mean, rsqrtf(fmaf(squares[0], inverse, n.eps))};
}

static __device__ __forceinline__ bool same_moments(const struct norm &a, const struct norm &b)
{
    return a.kind == b.kind && a.eps == b.eps;
}

/* y = xhat w + b of the share */
template <int PACKS>
__device__ __forceinline__ void write_norm(bf16 *y, const uint4 (&x)[PACKS], const struct share &s, const struct norm &n,
                                           const struct moments &m, int H)
{
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        int column;
        if (!share_column(&column, s, i))
            continue;
        float v[PACK], w[PACK], bias[PACK] = {0};
        unpack(v, x[i]);
        load_floats(w, n.weight + column);
        if (n.bias)
            load_floats(bias, n.bias + column);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] = fmaf((v[j] - m.mean) * m.scale, w[j], bias[j]);
        store_pack(y + s.row * H + column, v);
    }
}

struct norm_forward {
    bf16 *y1, *y2, *sum;
    const bf16 *x, *add1, *add2;
    struct norm n1, n2;
    int N, H;
    float inverse; /* 1 / H */
};

/* v += the pack at p, where p is not NULL */
static __device__ __forceinline__ void add_pack(float (&v)[PACK], const bf16 *p, int64_t at)
{
    if (!p)
        return;
    float add[PACK];
    load_pack(add, p + at);
#pragma unroll
    for (int j = 0; j < PACK; j++)
        v[j] += add[j];
}

/* Blocks that an SM is to hold: with these numbers the compiler spills nothing. */
static constexpr int forward_blocks(int packs)
{
    return packs <= 2 ? 3 : packs <= 4 ? 2 : 1;
}

static constexpr int backward_blocks(int packs)
{
    return packs <= 2 ? 2 : 1;
}

/* sum = x + add1 + add2 in float, rounded once to bf16; y1 = norm1(sum), y2 = norm2(sum).
 *   all [N][H] bf16; sum may be x; add1, add2, y2 may be NULL; weights and biases [H] float
 * Block:   one row (H > 1024) or four, each of a warp; the row in registers, up to 8 packs a thread
 * Launch:  grid N or ceil(N / 4); threads ceil(H / (8 PACKS)) rounded up to a warp, at most 512; or 128
 * Bytes:   reads 2NH (1 + adds), writes 2NH (norms, + 1 for the sum); weights 4H, with bias 8H, a norm from L1 or L2 for each
 *          row; bound by memory
 * Same bits: shape by H alone; a row sees its own values
 * Limits:  H % 8 == 0, H <= 32768 (checked by the launcher)
 */
template <int PACKS, bool WARP_ROW>
__global__ void __launch_bounds__(WARP_ROW ? WARP_THREADS : ROW_THREADS, forward_blocks(PACKS))
    norm_forward_kernel(struct norm_forward a)
{
    __shared__ float scratch[ROW_THREADS / WARP];
    const struct share s = share_of<WARP_ROW>(a.H);
    if (WARP_ROW && s.row >= a.N)
        return;
    uint4 kept[PACKS];
    load_share(kept, a.x, s, a.H);
    if (a.add1 || a.add2) {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int column;
            if (!share_column(&column, s, i))
                continue;
            float v[PACK];
            unpack(v, kept[i]);
            add_pack(v, a.add1, s.row * a.H + column);
            add_pack(v, a.add2, s.row * a.H + column);
            kept[i] = pack(v);
        }
    }
    if (a.sum != a.x || a.add1 || a.add2) {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int column;
            if (share_column(&column, s, i))
                *(uint4 *)(a.sum + s.row * a.H + column) = kept[i];
        }
    }
    struct moments m = row_moments<PACKS, WARP_ROW>(kept, s, a.n1, a.inverse, scratch);
    write_norm(a.y1, kept, s, a.n1, m, a.H);
    if (!a.y2)
        return;
    if (!same_moments(a.n1, a.n2))
        m = row_moments<PACKS, WARP_ROW>(kept, s, a.n2, a.inverse, scratch);
    write_norm(a.y2, kept, s, a.n2, m, a.H);
}

/* sums[0] += g, sums[1] += g xhat over the share, g = dy w */
template <int PACKS>
__device__ __forceinline__ void add_projections(float *sums, const uint4 (&dy)[PACKS], const uint4 (&x)[PACKS],
                                                const struct share &s, const struct norm &n, const struct moments &m)
{
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        int column;
        if (!share_column(&column, s, i))
            continue;
        float v[PACK], d[PACK], w[PACK];
        unpack(v, x[i]);
        unpack(d, dy[i]);
        load_floats(w, n.weight + column);
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            const float g = d[j] * w[j];
            sums[0] += g;
            sums[1] = fmaf(g, (v[j] - m.mean) * m.scale, sums[1]);
        }
    }
}

/* dx += the norm's derivative of one pack; mean[0] of g, mean[1] of g xhat over the row */
static __device__ __forceinline__ void add_derivative(float (&dx)[PACK], uint4 dy, uint4 x, int column, const struct norm &n,
                                                      const struct moments &m, const float *mean)
{
    const float mean_g = n.kind == NORM_LAYER ? mean[0] : 0.0f;
    float v[PACK], d[PACK], w[PACK];
    unpack(v, x);
    unpack(d, dy);
    load_floats(w, n.weight + column);
#pragma unroll
    for (int j = 0; j < PACK; j++) {
        const float xhat = (v[j] - m.mean) * m.scale;
        dx[j] = fmaf(fmaf(xhat, -mean[1], d[j] * w[j] - mean_g), m.scale, dx[j]);
    }
}

struct norm_backward {
    bf16 *dx;
    const bf16 *dy1, *dy2, *x;
    struct norm n1, n2;
    int N, H;
    float inverse; /* 1 / H */
};

/* dx += norm1'(dy1) + norm2'(dy2), rounded once to bf16; the moments are worked out again from x.
 *   all [N][H] bf16; dy2 may be NULL, and with 8 packs a thread is not looked at
 * Block:   as forward; x and dy in registers
 * Launch:  as forward
 * Bytes:   reads 2NH (2 + norms), writes 2NH; weights twice 4H a norm from L1 or L2 for each row; bound by memory
 * Same bits, Limits: as forward
 */
template <int PACKS, bool WARP_ROW>
__global__ void __launch_bounds__(WARP_ROW ? WARP_THREADS : ROW_THREADS, backward_blocks(PACKS))
    norm_backward_kernel(struct norm_backward a)
{
    enum { SUMS = 4 };
    __shared__ float scratch[SUMS * (ROW_THREADS / WARP)];
    const struct share s = share_of<WARP_ROW>(a.H);
    if (WARP_ROW && s.row >= a.N)
        return;
    uint4 x[PACKS], dy1[PACKS], dy2[PACKS];
    load_share(x, a.x, s, a.H);
    load_share(dy1, a.dy1, s, a.H);
    const bool two = PACKS < ROW_PACKS && a.dy2; /* registers for eight packs of three rows there are not */
    load_share(dy2, two ? a.dy2 : NULL, s, a.H);
    const struct moments m1 = row_moments<PACKS, WARP_ROW>(x, s, a.n1, a.inverse, scratch);
    struct moments m2 = m1;
    if (two && !same_moments(a.n1, a.n2))
        m2 = row_moments<PACKS, WARP_ROW>(x, s, a.n2, a.inverse, scratch);
    float sums[SUMS] = {0};
    add_projections(sums, dy1, x, s, a.n1, m1);
    if (two)
        add_projections(sums + 2, dy2, x, s, a.n2, m2);
    row_sums<WARP_ROW>(sums, scratch);
#pragma unroll
    for (int i = 0; i < SUMS; i++)
        sums[i] *= a.inverse; /* means from here on */
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        int column;
        if (!share_column(&column, s, i))
            continue;
        bf16 *at = a.dx + s.row * a.H + column;
        float v[PACK];
        load_pack(v, at);
        add_derivative(v, dy1[i], x[i], column, a.n1, m1, sums);
        if (two)
            add_derivative(v, dy2[i], x[i], column, a.n2, m2, sums + 2);
        store_pack(at, v);
    }
}

/* y = x + add1 + add2 in float, rounded once.
 * Block:   256 packs, one a thread
 * Launch:  grid ceil(NH / 2048), 256 threads
 * Bytes:   reads 2NH (2 or 3), writes 2NH; bound by memory
 * Same bits: element by element
 */
__global__ void add_kernel(bf16 *y, const bf16 *x, const bf16 *add1, const bf16 *add2, int64_t packs)
{
    const int64_t pack = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs)
        return;
    float v[PACK];
    load_pack(v, x + pack * PACK);
    add_pack(v, add1, pack * PACK);
    add_pack(v, add2, pack * PACK);
    store_pack(y + pack * PACK, v);
}

/* How rows of H are dealt to threads. */
struct shape {
    bool warp_row;
    int packs, grid, threads;
};

static struct shape shape_of(int N, int H)
{
    CHECK(H % PACK == 0 && H > 0 && H <= H_MOST, "a norm over %d columns", H);
    const int count = H / PACK;
    if (count <= WARP_PACKS)
        return {true, count <= WARP ? 1 : count <= 2 * WARP ? 2 : 4, ceil_div(N, WARP_ROWS), WARP_THREADS};
    int packs = 1;
    while (ceil_div(count, packs) > ROW_THREADS)
        packs *= 2;
    return {false, packs, N, ceil_div(ceil_div(count, packs), WARP) * WARP};
}

#define LAUNCH_ROWS(kernel, s, stream, a)                                                                                        \
    do {                                                                                                                         \
        if (s.warp_row && s.packs == 1)                                                                                          \
            LAUNCH((kernel<1, true>), s.grid, s.threads, 0, stream, a);                                                          \
        else if (s.warp_row && s.packs == 2)                                                                                     \
            LAUNCH((kernel<2, true>), s.grid, s.threads, 0, stream, a);                                                          \
        else if (s.warp_row)                                                                                                     \
            LAUNCH((kernel<4, true>), s.grid, s.threads, 0, stream, a);                                                          \
        else if (s.packs == 1)                                                                                                   \
            LAUNCH((kernel<1, false>), s.grid, s.threads, 0, stream, a);                                                         \
        else if (s.packs == 2)                                                                                                   \
            LAUNCH((kernel<2, false>), s.grid, s.threads, 0, stream, a);                                                         \
        else if (s.packs == 4)                                                                                                   \
            LAUNCH((kernel<4, false>), s.grid, s.threads, 0, stream, a);                                                         \
        else                                                                                                                     \
            LAUNCH((kernel<ROW_PACKS, false>), s.grid, s.threads, 0, stream, a);                                                 \
    } while (0)

void cuda_norm_forward(struct backend *be, act_t *y1, act_t *y2, act_t *sum, const act_t *x, const act_t *add1, const act_t *add2,
                       const struct norm *n1, const struct norm *n2, int N, int H)
{
    if (cuda_failed(be) || !N)
        return;
    const struct shape s = shape_of(N, H);
    const struct norm_forward a = {y1, y2, sum, x, add1, add2, *n1, y2 ? *n2 : *n1, N, H, 1.0f / (float)H};
    LAUNCH_ROWS(norm_forward_kernel, s, cuda_state(be)->stream, a);
    cuda_check(be, "norm_forward");
}

void cuda_norm_backward(struct backend *be, act_t *dx, const act_t *dy1, const act_t *dy2, const act_t *x, const struct norm *n1,
                        const struct norm *n2, int H, struct grads *g, const struct batch *b)
{
    (void)g;
    if (cuda_failed(be) || !b->n_tokens)
        return;
    CHECK(n1->offset_weight < 0 && (!dy2 || n2->offset_weight < 0), "norms are not trained in CUDA");
    const struct shape s = shape_of(b->n_tokens, H);
    const float inverse = 1.0f / (float)H;
    const struct norm_backward a = {dx, dy1, dy2, x, *n1, dy2 ? *n2 : *n1, b->n_tokens, H, inverse};
    LAUNCH_ROWS(norm_backward_kernel, s, cuda_state(be)->stream, a);
    if (dy2 && s.packs == ROW_PACKS) {
        const struct norm_backward second = {dx, dy2, NULL, x, *n2, *n2, b->n_tokens, H, inverse};
        LAUNCH_ROWS(norm_backward_kernel, s, cuda_state(be)->stream, second);
    }
    cuda_check(be, "norm_backward");
}

void cuda_add(struct backend *be, act_t *y, const act_t *x, const act_t *add1, const act_t *add2, int N, int H)
{
    enum { THREADS = 256 };
    if (cuda_failed(be) || !N)
        return;
    CHECK(H % PACK == 0, "a sum of rows of %d", H);
    const int64_t packs = (int64_t)N * H / PACK;
    LAUNCH(add_kernel, ceil_div(packs, THREADS), THREADS, 0, cuda_state(be)->stream, y, x, add1, add2, packs);
    cuda_check(be, "add");
}
