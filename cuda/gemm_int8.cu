/* Products of int8 codes in int32 and their way to bf16. The sums are exact (|sum| <= in * 127^2 < 2^31), so the two paths give the
 * same bits, and a row's do not depend on which one its call took:
 *
 *   up to FEW_ROWS rows   bound by the weights' bytes: a kernel of our own reads each of them once and ends in the epilogue
 *   more                  bound by operations: cuBLASLt's product to int32 in scratch, then a kernel for the epilogue. It moves 8 bytes
 *                         an output beside the weights; a second pass over the weights costs in bytes an output, which is more
 *                         for any in that matters
 */
#include "cuda/epilogue.cuh"
#include "cuda/int8.cuh"
#include "cuda/mma.cuh"

#include <string.h>

extern "C" {
#include "log.h"
}

enum {
    FEW_ROWS = 64,
    ROWS_MOST = 2048, /* of a call */
    ROWS_STEP = 256,  /* a multiple of the rows of cuBLASLt's tiles */
    STREAMS = 4,      /* warps of a block of few_rows_kernel that read weights */
    STAGES = 4,       /* of their copies */
    STEP_BYTES = 128  /* of a weight row that a warp takes at a time */
};

static const size_t sums_most = (size_t)64 << 20;    /* bytes of int32 sums */
static const size_t blas_scratch = (size_t)16 << 20; /* bytes that cuBLASLt may use, for sums in parts */

/* rest (epilogue.cuh) of a warp's tile with the rows' outliers: outputs o .. o + 7, o = o0 + lane % OUTPUT_LANES * 8, of rows first +
 * lane / OUTPUT_LANES + i * 32 / OUTPUT_LANES. All lanes call it; what lies behind out or N is of no meaning. */
template <int OUTPUT_LANES, int ROWS>
__device__ __forceinline__ void rest_rows(float rest[ROWS][PACK], const struct epilogue &e, const struct codes &q,
                                          const int8_t *w, int64_t ld, int first, int N, int o0, int out)
{
    const int lane = threadIdx.x % WARP, o = min(o0 + lane % OUTPUT_LANES * PACK, out - PACK);
    epilogue_rest_rows<ROWS, PACK>(rest, e, first + lane / OUTPUT_LANES, WARP / OUTPUT_LANES, N, o);
    if (q.limit > INFINITE)
        return;
    float sum[ROWS][PACK];
    outlier_sums<OUTPUT_LANES, ROWS>(sum, q, w, ld, first, N, o0, out);
#pragma unroll
    for (int c = 0; c < PACK; c++) {
        const float scale = e.absmax[o + c] * (1.0f / 127.0f);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            rest[i][c] = fmaf(sum[i][c], scale, rest[i][c]);
    }
}

/* --- few rows --- */

/* What a block of few_rows_kernel with TILES tiles of 16 outputs and GROUPS of 8 rows keeps in shared memory. */
template <int TILES, int GROUPS> struct few_rows {
    static constexpr int THREADS = (STREAMS + 1) * WARP;
    static constexpr int BLOCKS = GROUPS == 1 ? 4 : GROUPS == 2 ? 3 : 2; /* that a multiprocessor's registers are to hold */
    static constexpr int OUTPUTS = 16 * TILES, ROWS = 8 * GROUPS;
    static constexpr int WIDTH = OUTPUTS + 4; /* of a row of sums: lanes of a fragment fall on different banks */
    static constexpr int LOADS = 4 * TILES;   /* 16-byte loads a lane and step */
    static constexpr int RING = STREAMS * STAGES * LOADS * WARP * 16;
    static constexpr int SUMS = STREAMS * ROWS * WIDTH * 4; /* take the place of the ring */
    static constexpr int FIRST = RING > SUMS ? RING : SUMS;
    static constexpr int BYTES = FIRST + ROWS * WIDTH * 4;
};

/* Starts the copies of step `step` of a warp: 128 bytes of each of its rows of weights, zeros behind their end. Lane (g, t) takes
 * bytes 16 t and 64 + 16 t of rows g and g + 8 of each tile, into a place of its own that no other lane reads. */
template <int TILES> __device__ __forceinline__ void stream_step(uint4 *stage, const int8_t *w, int ld, int outputs, int step)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++) {
        const int row = i / 2 * 8 + lane / 4;
        const int k = (step * STREAMS + warp) * STEP_BYTES + i % 2 * 64 + lane % 4 * 16;
        const bool valid = row < outputs && k < ld;
        copy_async16(stage + i * WARP + lane, valid ? w + row * ld + k : w, valid);
    }
    copy_async_commit();
}

/* Sums of the warp's share of the inputs. A product of fragments wants lane t's inputs 4 t .. and 4 t + 16 ..; as any order of
 * the inputs gives the same sum, it gets bytes 16 t .. 16 t + 7 of both operands, and the next 8 in the next product. */
template <int TILES, int GROUPS>
__device__ __forceinline__ void stream(int32_t sum[TILES][GROUPS][4], uint4 *ring, const int8_t *w, int ld, int outputs,
                                       const int8_t *code, int rows)
{
    constexpr int LOADS = few_rows<TILES, GROUPS>::LOADS;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int steps = (ld + STREAMS * STEP_BYTES - 1) / (STREAMS * STEP_BYTES);
    ring += warp * STAGES * LOADS * WARP;
    for (int s = 0; s < STAGES - 1; s++)
        stream_step<TILES>(ring + s * LOADS * WARP, w, ld, outputs, s);
    for (int step = 0; step < steps; step++) {
        const uint4 *stage = ring + step % STAGES * LOADS * WARP + lane;
        stream_step<TILES>(ring + (step + STAGES - 1) % STAGES * LOADS * WARP, w, ld, outputs, step + STAGES - 1);
        copy_async_wait<STAGES - 1>();
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int k = (step * STREAMS + warp) * STEP_BYTES + half * 64 + lane % 4 * 16;
            uint4 x[GROUPS];
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                const int row = g * 8 + lane / 4;
                x[g] = row < rows && k < ld ? *(const uint4 *)(code + row * ld + k) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                const uint4 low = stage[(tile * 4 + half) * WARP], high = stage[(tile * 4 + 2 + half) * WARP];
                const uint32_t a0[4] = {low.x, high.x, low.y, high.y}, a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
                for (int g = 0; g < GROUPS; g++) {
                    const uint32_t b0[2] = {x[g].x, x[g].y}, b1[2] = {x[g].z, x[g].w};
                    mma_s8(sum[tile][g], a0, b0);
                    mma_s8(sum[tile][g], a1, b1);
                }
            }
        }
    }
    copy_async_wait<0>();
}

/* y = epilogue(code W^T) for few rows.
 *   q.code [N][ld], w [out][ld] int8 -> y [N][out] bf16
 * Block:   16 TILES outputs and 8 GROUPS rows. Four warps share the inputs in turns of 128; each streams its part of the weights
 *          through shared memory (3 steps of TILES 2 KB ahead) and reads the rows' codes through L1. A fifth warp computes what
 *          does not need the sums: bias, adapter, outliers. Then all add the four sums up.
 * Launch:  grid (out / (16 TILES), N / (8 GROUPS)), 160 threads, few_rows::BYTES of dynamic shared memory
 * Bytes:   out ld of weights once; N ld of codes a block, from L2 and L1; bound by the weights (1 row of 6144 inputs to 18432: 113 MB)
 * Same bits: integer sums; rest has one order; nothing depends on N
 * Limits:  out % 8 == 0 (checked by the launcher)
 */
template <int TILES, int GROUPS>
static __global__ void __launch_bounds__(few_rows<TILES, GROUPS>::THREADS, few_rows<TILES, GROUPS>::BLOCKS)
    few_rows_kernel(bf16 *y, const int8_t *w, struct codes q, struct epilogue e, int N, int out, int ld)
{
    typedef few_rows<TILES, GROUPS> shape;
    DYN_SHARED(unsigned char, shared);
    uint4 *ring = (uint4 *)shared;
    int32_t *sums = (int32_t *)shared;              /* [STREAMS][ROWS][WIDTH] */
    float *rest = (float *)(shared + shape::FIRST); /* [ROWS][WIDTH] */
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int o0 = blockIdx.x * shape::OUTPUTS, n0 = blockIdx.y * shape::ROWS;
    const int outputs = min(out - o0, 0 + shape::OUTPUTS), rows = min(N - n0, 0 + shape::ROWS);
    int32_t sum[TILES][GROUPS][4] = {};
    if (warp < STREAMS) {
        stream<TILES, GROUPS>(sum, ring, w + (int64_t)o0 * ld, ld, outputs, q.code + (int64_t)n0 * ld, rows);
    } else {
        constexpr int OUTPUT_LANES = 2 * TILES, STEP = WARP / OUTPUT_LANES, PART = TILES == 1 ? 1 : GROUPS < 4 ? GROUPS : 4;
        for (int first = 0; first < rows; first += PART * STEP) {
            float v[PART][PACK];
            rest_rows<OUTPUT_LANES, PART>(v, e, q, w, ld, n0 + first, N, o0, out);
#pragma unroll
            for (int i = 0; i < PART; i++) {
                const int row = first + lane / OUTPUT_LANES + i * STEP;
                if (row >= shape::ROWS)
                    continue;
#pragma unroll
                for (int c = 0; c < PACK; c++)
                    rest[row * shape::WIDTH + lane % OUTPUT_LANES * PACK + c] = v[i][c];
            }
        }
    }
    __syncthreads(); /* the ring is read */
    if (warp < STREAMS) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sums[(warp * shape::ROWS + g * 8 + lane % 4 * 2 + i % 2) * shape::WIDTH + tile * 16 + i / 2 * 8 + lane / 4] =
                        sum[tile][g][i];
    }
    __syncthreads();
    for (int item = threadIdx.x; item < rows * 2 * TILES; item += blockDim.x) {
        const int row = item / (2 * TILES), at = item % (2 * TILES) * PACK;
        if (at >= outputs)
            continue;
        float v[PACK];
#pragma unroll
        for (int c = 0; c < PACK; c++) {
            int32_t total = 0;
#pragma unroll
            for (int part = 0; part < STREAMS; part++)
                total += sums[(part * shape::ROWS + row) * shape::WIDTH + at + c];
            v[c] = fmaf((float)total, epilogue_scale(e, n0 + row, o0 + at + c), rest[row * shape::WIDTH + at + c]);
        }
        store_pack(y + (int64_t)(n0 + row) * out + o0 + at, v);
    }
}

template <int TILES, int GROUPS>
static void few_rows_launch(struct backend *be, act_t *y, const struct linear *l, const struct codes *q, int N,
                            const struct epilogue *e)
{
    typedef few_rows<TILES, GROUPS> shape;
    const dim3 grid(ceil_div(l->out, shape::OUTPUTS), ceil_div(N, shape::ROWS));
    LAUNCH((few_rows_kernel<TILES, GROUPS>), grid, shape::THREADS, shape::BYTES, cuda_state(be)->stream, y,
           (const int8_t *)l->weight, *q, *e, N, l->out, linear_ld(l->in));
}

static void few_rows_product(struct backend *be, act_t *y, const struct linear *l, const struct codes *q, int N,
                             const struct epilogue *e)
{
    if (N <= 8)
        few_rows_launch<1, 1>(be, y, l, q, N, e);
    else if (N <= 16)
        few_rows_launch<2, 2>(be, y, l, q, N, e);
    else if (N <= 32)
        few_rows_launch<2, 4>(be, y, l, q, N, e);
    else
        few_rows_launch<2, 8>(be, y, l, q, N, e);
}

/* --- many rows --- */

enum { FINISH_THREADS = 256, FINISH_ROWS = 32, FINISH_OUTPUTS = 256 };

/* y = epilogue(sums).
 *   sums [N][out] int32 -> y [N][out] bf16
 * Block:   32 rows and 256 outputs; a warp 32 outputs, 4 lanes over outputs and 8 over rows, so that the lanes share the loads of
 *          the adapter's b and of the outliers' codes
 * Launch:  grid (out / 256, N / 32), 256 threads
 * Bytes:   reads 4 N out, writes 2 N out; bound by memory (N = 512, out = 24576: 75 MB)
 * Same bits: nothing of other rows
 * Limits:  out % 8 == 0
 */
static __global__ void __launch_bounds__(FINISH_THREADS, 2)
    finish_kernel(bf16 *y, const int32_t *sums, const int8_t *w, struct codes q, struct epilogue e, int N, int out, int ld)
{
    constexpr int OUTPUT_LANES = 4, STEP = WARP / OUTPUT_LANES, ROWS = FINISH_ROWS / STEP;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = blockIdx.y * FINISH_ROWS;
    const int o0 = blockIdx.x * FINISH_OUTPUTS + warp * OUTPUT_LANES * PACK, o = o0 + lane % OUTPUT_LANES * PACK;
    const int n = first + lane / OUTPUT_LANES;
    float rest[ROWS][PACK];
    rest_rows<OUTPUT_LANES, ROWS>(rest, e, q, w, ld, first, N, o0, out);
    int4 sum[ROWS][2];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int4 *from = (const int4 *)(sums + (int64_t)min(n + i * STEP, N - 1) * out + min(o, out - PACK));
        sum[i][0] = from[0], sum[i][1] = from[1];
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = n + i * STEP;
        if (o >= out || row >= N)
            continue;
        const int32_t total[PACK] = {sum[i][0].x, sum[i][0].y, sum[i][0].z, sum[i][0].w,
                                     sum[i][1].x, sum[i][1].y, sum[i][1].z, sum[i][1].w};
        float v[PACK];
#pragma unroll
        for (int c = 0; c < PACK; c++)
            v[c] = fmaf((float)total[c], epilogue_scale(e, row, o + c), rest[i][c]);
        store_pack(y + (int64_t)row * out + o, v);
    }
}

/* The product as cuBLASLt sees it, by columns: sums [out][N] = W [in][out]^T code [in][N]. */
struct blas_product {
    cublasLtMatmulDescOpaque_t how;
    cublasLtMatrixLayoutOpaque_t w, code, sums;
};

static bool blas_describe(struct blas_product *p, int out, int ld, int N)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    return cublasLtMatmulDescInit(&p->how, CUBLAS_COMPUTE_32I, CUDA_R_32I) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(&p->how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutInit(&p->w, CUDA_R_8I, ld, out, ld) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutInit(&p->code, CUDA_R_8I, ld, N, ld) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutInit(&p->sums, CUDA_R_32I, out, N, out) == CUBLAS_STATUS_SUCCESS;
}

/* What cuBLASLt advises for the shape, asked once: the layers of a pass have few shapes. The oldest answer makes room. */
static const struct int8_shape *blas_choose(struct backend *be, struct blas_product *p, int out, int ld, int N)
{
    struct int8_shapes *known = &cuda_state(be)->int8;
    for (int i = 0; i < INT8_SHAPES; i++)
        if (known->shape[i].rows == N && known->shape[i].out == out && known->shape[i].ld == ld)
            return &known->shape[i];
    struct int8_shape *shape = &known->shape[known->next++ % INT8_SHAPES];
    cublasLtMatmulPreferenceOpaque_t wish;
    const uint32_t align = 16; /* weights and codes are not placed at multiples of 256, which it would suppose */
    cublasLtMatmulHeuristicResult_t advice;
    int found = 0;
    shape->rows = N, shape->out = out, shape->ld = ld, shape->known = false;
    bool good = cublasLtMatmulPreferenceInit(&wish) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &blas_scratch,
                                                     sizeof blas_scratch) == CUBLAS_STATUS_SUCCESS;
    for (cublasLtMatmulPreferenceAttributes_t matrix :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        good = good && cublasLtMatmulPreferenceSetAttribute(&wish, matrix, &align, sizeof align) == CUBLAS_STATUS_SUCCESS;
    if (good &&
        cublasLtMatmulAlgoGetHeuristic(cuda_state(be)->blas, &p->how, &p->w, &p->code, &p->sums, &p->sums, &wish, 1, &advice,
                                       &found) == CUBLAS_STATUS_SUCCESS &&
        found > 0) {
        shape->known = true;
        shape->algorithm = advice.algo;
    }
    return shape;
}

/* False: cuBLASLt has nothing for this shape. */
static bool blas_sums(struct backend *be, int32_t *sums, const struct linear *l, const int8_t *code, int N, void *scratch)
{
    struct blas_product p;
    const int ld = linear_ld(l->in);
    const int32_t one = 1, zero = 0;
    if (!blas_describe(&p, l->out, ld, N))
        return false;
    const struct int8_shape *shape = blas_choose(be, &p, l->out, ld, N);
    if (!shape->known)
        return false;
    const cublasStatus_t status =
        cublasLtMatmul(cuda_state(be)->blas, &p.how, &one, l->weight, &p.w, code, &p.code, &zero, sums, &p.sums, sums, &p.sums,
                       &shape->algorithm, scratch, blas_scratch, cuda_state(be)->stream);
    if (status != CUBLAS_STATUS_SUCCESS)
        cuda_fail(be, "linear_forward", cublasLtGetStatusString(status));
    return true;
}

int int8_rows(int out, int N)
{
    const int64_t fit = (int64_t)sums_most / (4 * (int64_t)out) / ROWS_STEP * ROWS_STEP;
    const int most = fit > ROWS_MOST ? ROWS_MOST : fit > FEW_ROWS ? (int)fit : FEW_ROWS;
    return N < most ? N : most;
}

size_t int8_sums_bytes(int rows, int out)
{
    const size_t all = (size_t)rows * out * sizeof(int32_t);
    return rows <= FEW_ROWS ? 0 : blas_scratch + (all < sums_most ? all : sums_most);
}

void int8_forward(struct backend *be, act_t *y, const struct linear *l, const struct codes *q, int N, const struct epilogue *e,
                  void *sums)
{
    CHECK(l->out % PACK == 0, "llm.int8 with %d outputs", l->out);
    int32_t *at = (int32_t *)((char *)sums + blas_scratch);
    if (N > FEW_ROWS && blas_sums(be, at, l, q->code, N, sums)) {
        const dim3 grid(ceil_div(l->out, FINISH_OUTPUTS), ceil_div(N, FINISH_ROWS));
        LAUNCH(finish_kernel, grid, FINISH_THREADS, 0, cuda_state(be)->stream, y, at, (const int8_t *)l->weight, *q, *e, N,
               l->out, linear_ld(l->in));
        return;
    }
    if (N > FEW_ROWS)
        log_warn("cuBLASLt has no int8 product for %d outputs and %d inputs: a slower kernel takes its place", l->out, l->in);
    few_rows_product(be, y, l, q, N, e);
}
