/* From the sum of a product to an output, in one order for every kernel, so that a row has the same bits on each path:
 *
 *   low  = sum over j ascending of t[n][j] b[o][j], by fmaf from 0               (with an adapter)
 *   rest = bias[o], or 0;  with an adapter fmaf(lora_scale, low, rest);  llm.int8 adds its outliers here (int8.cuh)
 *   y    = fmaf(sum, scale, rest),  scale = 1,  absmax[o] * (1/127),  or (row_absmax[n] * absmax[o]) * (1/16129)
 *
 * rest does not need the sum: a kernel may compute it first, while the product's operands arrive. int32 sums are converted first,
 * rounding to nearest.
 */
#ifndef RLHF_CUDA_EPILOGUE_CUH
#define RLHF_CUDA_EPILOGUE_CUH

#include "cuda/gemm.h"
#include "cuda/load.cuh"

__device__ __forceinline__ float epilogue_scale(const struct epilogue &e, int n, int o)
{
    if (!e.absmax)
        return 1;
    return e.row_absmax ? (e.row_absmax[n] * e.absmax[o]) * (1.0f / 16129.0f)
                        : e.absmax[o] * (1.0f / 127.0f);
}

/* low of outputs o .. o + WIDTH - 1 in rows n + i step < N: a thread's rows share the loads of b. Lanes of a warp that agree in o share
 * them too, so 4 lanes over outputs and 8 over rows cost least. */
template <int ROWS, int WIDTH>
__device__ __forceinline__ void epilogue_low(float low[ROWS][WIDTH], const struct epilogue &e, int n,
                                             int step, int N, int o)
{
    const float *b = e.b + (int64_t)o * e.r, *t[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = n + i * step;
        t[i] = e.t + (int64_t)(row < N ? row : N - 1) * e.r;
#pragma unroll
        for (int c = 0; c < WIDTH; c++)
            low[i][c] = 0;
    }
    int j = 0;
    if ((e.r | (int)((uintptr_t)e.t / 4) | (int)((uintptr_t)e.b / 4)) % 4 ==
        0) { /* rows begin at multiples of 16 bytes */
        for (; j < e.r; j += 4) {
            float4 x[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                x[i] = *(const float4 *)(t[i] + j);
#pragma unroll
            for (int c = 0; c < WIDTH; c++) {
                const float4 w = *(const float4 *)(b + c * e.r + j);
#pragma unroll
                for (int i = 0; i < ROWS; i++)
                    low[i][c] =
                        fmaf(x[i].w, w.w,
                             fmaf(x[i].z, w.z, fmaf(x[i].y, w.y, fmaf(x[i].x, w.x, low[i][c]))));
            }
        }
    }
    for (; j < e.r; j++)
#pragma unroll
        for (int c = 0; c < WIDTH; c++)
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                low[i][c] = fmaf(t[i][j], b[c * e.r + j], low[i][c]);
}

/* rest of outputs o .. o + WIDTH - 1, all there, in rows n + i step; those of rows behind N are of no meaning. */
template <int ROWS, int WIDTH>
__device__ __forceinline__ void epilogue_rest_rows(float rest[ROWS][WIDTH], const struct epilogue &e,
                                                   int n, int step, int N, int o)
{
    float low[ROWS][WIDTH];
    if (e.t)
        epilogue_low<ROWS, WIDTH>(low, e, n, step, N, o);
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
        const float bias = e.bias ? e.bias[o + c] : 0.0f;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            rest[i][c] = e.t ? fmaf(e.lora_scale, low[i][c], bias) : bias;
    }
}

#endif
