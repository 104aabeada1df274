/* Activations to int8 for llm.int8: codes, scale and outliers of each row, in one read of x. The codes are those of
 * src/cpu/linear.c for the same x, bit for bit. */
#include "cuda/int8.cuh"
#include "cuda/int8.h"
#include "cuda/load.cuh"
#include "cuda/reduce.cuh"

#include <string.h>

enum { HELD = 4 }; /* packs of 8 values a thread */

/* The upper or lower value of two as the bits of a float. */
__device__ __forceinline__ int32_t float_bits(uint32_t two, int upper)
{
    return (int32_t)(upper ? two & 0xffff0000u : two << 16);
}

__device__ __forceinline__ bool is_outlier(int32_t bits, int32_t limit)
{
    const int32_t size = bits & 0x7fffffff;
    return size >= limit && size <= INFINITE;
}

/* Sum of v over the lanes below this one. */
__device__ __forceinline__ int warp_sum_below(int v)
{
    const int lane = threadIdx.x % WARP;
    int sum = v;
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const int below = __shfl_up_sync(ALL_LANES, sum, distance);
        sum += lane >= distance ? below : 0;
    }
    return sum - v;
}

/* Writes the first OUTLIERS_LISTED outliers of the block's row in ascending order: those of pack i of all threads stand before
 * those of pack i + 1. */
__device__ __forceinline__ void list_outliers(uint32_t *list, const uint32_t raw[HELD][4], const int count[HELD], int32_t limit)
{
    __shared__ int total[HELD][WARP];
    const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int below[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        below[i] = warp_sum_below(count[i]);
        if (lane == WARP - 1)
            total[i][warp] = below[i] + count[i];
    }
    __syncthreads();
    int before = 0;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        for (int w = 0; w < warp; w++)
            below[i] += total[i][w];
        int at = before + below[i];
        for (int w = 0; w < warps; w++)
            before += total[i][w];
        if (count[i] == 0)
            continue;
        const int feature = (int)(threadIdx.x + i * blockDim.x) * PACK;
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            const int32_t bits = float_bits(raw[i][j / 2], j % 2);
            if (is_outlier(bits, limit) && at < OUTLIERS_LISTED)
                list[at++] = (uint32_t)(feature + j) << 16 | (uint32_t)bits >> 16;
        }
    }
}

/* Codes, scale and outliers of rows.
 *   absmax[n] = max |x[n][k]| below the limit;  code = rint(x * (127 / absmax)), half to even
 * Block:   one row, kept in registers (up to 4 16-byte loads a thread), so x is read once
 * Launch:  grid N; threads = ld / 32 rounded up to a warp
 * Bytes:   reads 2 N in, writes N ld + 8 N and 4 an outlier; bound by memory (N = 4096, in = 6144: 76 MB)
 * Same bits: a maximum and integer counts do not depend on order; nothing of other rows
 * Limits:  in % 8 == 0, in <= QUANTISE_IN_MOST (checked by the launcher)
 */
static __global__ void __launch_bounds__(QUANTISE_IN_MOST / (HELD * PACK)) quantise_kernel(struct codes q, int ld)
{
    __shared__ int scratch[WARP];
    const int n = blockIdx.x;
    const bf16 *row = q.x + (int64_t)n * q.in;
    uint32_t raw[HELD][4];
    int count[HELD], most = 0, found = 0;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int k = (int)(threadIdx.x + i * blockDim.x) * PACK;
        const uint4 four = k < q.in ? *(const uint4 *)(row + k) : make_uint4(0, 0, 0, 0);
        raw[i][0] = four.x, raw[i][1] = four.y, raw[i][2] = four.z, raw[i][3] = four.w;
        count[i] = 0;
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            const int32_t bits = float_bits(raw[i][j / 2], j % 2);
            const bool out = is_outlier(bits, q.limit);
            count[i] += out;
            most = max(most, out ? 0 : bits & 0x7fffffff);
        }
        found += count[i];
    }
    most = block_reduce<reduce_max>(most, scratch);
    found = block_reduce<reduce_sum>(found, scratch);
    const float absmax = __int_as_float(most), factor = code_factor(absmax);
    if (threadIdx.x == 0) {
        q.absmax[n] = absmax;
        q.n_outliers[n] = found;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int k = (int)(threadIdx.x + i * blockDim.x) * PACK;
        uint32_t word[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            const int32_t bits = float_bits(raw[i][j / 2], j % 2);
            const int code = is_outlier(bits, q.limit) ? 0 : code_of(__int_as_float(bits), factor);
            word[j / 4] |= (uint32_t)(code & 255) << 8 * (j % 4);
        }
        if (k < ld)
            *(uint2 *)(q.code + (int64_t)n * ld + k) = make_uint2(word[0], word[1]);
    }
    if (found > 0)
        list_outliers(q.outlier + (int64_t)n * OUTLIERS_LISTED, raw, count, q.limit);
}

size_t codes_bytes(int rows, int in)
{
    return (size_t)rows * (linear_ld(in) + sizeof(float) + sizeof(int32_t) + OUTLIERS_LISTED * sizeof(uint32_t));
}

struct codes codes_at(void *scratch, const act_t *x, int N, int in, float threshold)
{
    struct codes q;
    q.code = (int8_t *)scratch;
    q.outlier = (uint32_t *)(q.code + (size_t)N * linear_ld(in)); /* ld is a multiple of 32 */
    q.absmax = (float *)(q.outlier + (size_t)N * OUTLIERS_LISTED);
    q.n_outliers = (int32_t *)(q.absmax + N);
    q.x = x;
    q.in = in;
    q.limit = INFINITE + 1;
    if (threshold > 0)
        memcpy(&q.limit, &threshold, sizeof q.limit);
    return q;
}

void quantise_rows(struct backend *be, const struct codes *q, int N)
{
    CHECK(q->in % PACK == 0 && q->in <= QUANTISE_IN_MOST, "llm.int8 with %d inputs", q->in);
    const int ld = linear_ld(q->in), threads = ceil_div(ceil_div(ld / PACK, HELD), WARP) * WARP;
    LAUNCH(quantise_kernel, N, threads, 0, cuda_state(be)->stream, *q, ld);
}
