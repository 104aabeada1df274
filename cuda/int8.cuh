/* Codes of floats, as src/cpu/linear.c makes them, and sums over outliers. */
#ifndef RLHF_CUDA_INT8_CUH
#define RLHF_CUDA_INT8_CUH

#include "cuda/int8.h"
#include "cuda/load.cuh"
#include "cuda/reduce.cuh"

enum { INFINITE = 0x7f800000, NO_FEATURE = 0x7fffffff };

/* 127 / absmax, or 0 for rows whose codes are all 0: zeros, too small for a finite factor, or not finite. The last come out as
 * NaN, since absmax multiplies the sum. */
__device__ __forceinline__ float code_factor(float absmax)
{
    return absmax >= 0x1p-120f && absmax < __int_as_float(INFINITE) ? 127.0f / absmax : 0.0f;
}

/* Half to even. */
__device__ __forceinline__ int code_of(float x, float factor)
{
    return factor == 0 ? 0 : __float2int_rn(x * factor);
}

/* Where a walk over the outliers of a row is. */
struct outlier {
    int at, feature; /* NO_FEATURE: behind the last */
    float value;
};

__device__ __forceinline__ struct outlier outlier_next(const struct codes &q, int n, struct outlier o)
{
    o.at++;
    if (o.at >= q.n_outliers[n])
        return {o.at, NO_FEATURE, 0.0f};
    if (o.at < OUTLIERS_LISTED) {
        const uint32_t word = q.outlier[(int64_t)n * OUTLIERS_LISTED + o.at];
        return {o.at, (int)(word >> 16), __uint_as_float(word << 16)};
    }
    const bf16 *row = q.x + (int64_t)n * q.in;
    for (int k = o.feature + 1;; k++) {
        const float x = __bfloat162float(row[k]);
        const int32_t size = __float_as_int(x) & 0x7fffffff;
        if (size >= q.limit && size <= INFINITE)
            return {o.at, k, x};
    }
}

/* sum[i][c] = sum over the outliers of row n, ascending, of x W[o + c], by fmaf from 0, for a warp's tile: OUTPUT_LANES lanes lie
 * side by side over outputs from o0 on, 8 each: o = o0 + lane % OUTPUT_LANES * 8; the lanes of a column over rows
 * n = first + lane / OUTPUT_LANES + i * 32 / OUTPUT_LANES.
 *
 * Lane j walks the outliers of row first + j. The warp goes through the features that any of its rows has, ascending, a batch at
 * a time; of each, a lane loads the code of one output, and all get theirs from it. Rows without an outlier there add 0 * code,
 * which changes nothing. w [out][ld]: outputs behind the last get some codes. All lanes call it; rows behind N have no outliers. */
template <int OUTPUT_LANES, int ROWS>
__device__ __forceinline__ void outlier_sums(float sum[ROWS][PACK], const struct codes &q, const int8_t *w, int64_t ld, int first,
                                             int N, int o0, int out)
{
    constexpr int STEP = WARP / OUTPUT_LANES, BATCH = 4;
    static_assert(ROWS * STEP <= WARP, "a lane walks one row");
    const int lane = threadIdx.x % WARP, own = first + lane;
    w += min(o0 + lane % (OUTPUT_LANES * PACK), out - 1) * ld;
    struct outlier at = {-1, NO_FEATURE, 0.0f};
    if (lane < ROWS * STEP && own < N)
        at = outlier_next(q, own, {-1, -1, 0.0f});
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int c = 0; c < PACK; c++)
            sum[i][c] = 0;
    for (int feature = 0; feature != NO_FEATURE;) {
        float value[BATCH];
        int code[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            feature = -warp_reduce<reduce_max>(-at.feature);
            const bool any = feature != NO_FEATURE, mine = any && at.feature == feature;
            if (j == 0 && !any)
                return;
            value[j] = mine ? at.value : 0.0f;
            code[j] = any ? w[feature] : 0;
            if (mine)
                at = outlier_next(q, own, at);
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            float x[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                x[i] = __shfl_sync(ALL_LANES, value[j], lane / OUTPUT_LANES + i * STEP);
#pragma unroll
            for (int c = 0; c < PACK; c++) {
                const float factor = (float)__shfl_sync(ALL_LANES, code[j], lane % OUTPUT_LANES * PACK + c);
#pragma unroll
                for (int i = 0; i < ROWS; i++)
                    sum[i][c] = fmaf(x[i], factor, sum[i][c]);
            }
        }
    }
}

#endif
