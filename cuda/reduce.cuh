/* Sums and maxima over a warp and over a block, in a written order: the butterfly of the warp, then the warps' results in ascending
 * order. Every thread gets the result. No float atomics anywhere in cuda/.
 */
#ifndef RLHF_CUDA_REDUCE_CUH
#define RLHF_CUDA_REDUCE_CUH

#include "cuda/launch.cuh"

constexpr int WARP = 32;
#define ALL_LANES 0xffffffffu

struct reduce_sum {
    template <class T> __device__ __forceinline__ static T of(T a, T b)
    {
        return a + b;
    }
};

struct reduce_max {
    template <class T> __device__ __forceinline__ static T of(T a, T b)
    {
        return a > b ? a : b;
    }
};

/* Butterfly: distance 16, 8, 4, 2, 1. Both partners compute the same bits, as + and max commute. */
template <class R, class T> __device__ __forceinline__ T warp_reduce(T v)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        v = R::of(v, __shfl_xor_sync(ALL_LANES, v, distance));
    return v;
}

/* scratch: one T a warp in shared memory, free for other use after the call. Called by all threads of the block, whole warps. */
template <class R, class T> __device__ __forceinline__ T block_reduce(T v, T *scratch)
{
    const int warps = blockDim.x / WARP;
    v = warp_reduce<R>(v);
    __syncthreads(); /* scratch may still be read by an earlier call */
    if (threadIdx.x % WARP == 0)
        scratch[threadIdx.x / WARP] = v;
    __syncthreads();
    v = scratch[0];
    for (int i = 1; i < warps; i++)
        v = R::of(v, scratch[i]);
    return v;
}

#endif
