/* Adding float gradients to the exact accumulators: v * 2^48, rounded half to even, added to int64 (src/cpu/fixed.h gives the
 * same integers). Integer sums do not depend on order, so contributions may be added by any thread.
 */
#ifndef RLHF_CUDA_FIXED_CUH
#define RLHF_CUDA_FIXED_CUH

#include "cuda/cuda.h"
#include "cuda/launch.cuh"

/* v * 2^48 rounded half to even, |v| < 2^14. The product is exact in double. */
__device__ __forceinline__ int64_t fixed_of(float v)
{
    return (int64_t)__double2ll_rn((double)v * 0x1p48);
}

/* Whether a contribution may be added: finite, and below the limit and 2^14. */
__device__ __forceinline__ bool grads_accept(const struct grads &g, float v)
{
    return fabsf(v) < fminf(g.limit, 0x1p14f); /* not a number: no */
}

/* Notes that the contribution to the element is refused: overflow becomes 1 + the lowest such element. It leaves 0 once and for
 * good, so a minimum that follows the exchange meets no 0. */
__device__ __forceinline__ void grads_refuse(const struct grads &g, int64_t element)
{
    unsigned long long *overflow = (unsigned long long *)g.overflow, mine = (unsigned long long)element + 1;
    if (atomicCAS(overflow, 0ull, mine) != 0)
        atomicMin(overflow, mine);
}

/* Adds v to an element; other threads may add to it meanwhile. What is not accepted is left out and raises overflow. */
__device__ __forceinline__ void grads_add_atomic(const struct grads &g, int64_t element, float v)
{
    if (grads_accept(g, v))
        atomicAdd((unsigned long long *)&g.sum[element], (unsigned long long)fixed_of(v));
    else
        grads_refuse(g, element);
}

/* The element as a double, rounded once. */
__device__ __forceinline__ double fixed_double(int64_t sum)
{
    return __ll2double_rn((long long)sum);
}

#endif
