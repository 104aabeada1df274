/* What cuda/launch.cuh gives, on a CPU: kernels are functions, threads are fibers (grid.h), the words of device code are functions
 * here. Only words that the module uses are known; shuffles and ballots are of whole warps. Launches come from one thread of the
 * process.
 */
#ifndef RLHF_TESTS_SHIM_CUDA_LAUNCH_CUH
#define RLHF_TESTS_SHIM_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "launch.h"

#include <math.h>
#include <stdint.h>

enum {
    SHARED_DEFAULT = 48 << 10,
    SHARED_MOST = 99 << 10
}; /* bytes a block: without asking; on every target */

#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    do {                                                                                           \
        if ((shared) > SHARED_DEFAULT)                                                             \
            cudaFuncSetAttribute((const void *)kernel,                                             \
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared));      \
        shim::launch(#kernel, kernel, (grid), (block), (shared), (stream), ##__VA_ARGS__);         \
    } while (0)

#define DYN_SHARED(type, name) type *name = (type *)shim::block.shared

/* --- where a thread is --- */

#define threadIdx ((const uint3 &)shim::current->index)
#define blockIdx  ((const uint3 &)shim::block.index)
#define blockDim  ((const dim3 &)shim::block.dim)
#define gridDim   ((const dim3 &)shim::block.grid)
#define warpSize  32

/* --- barriers and exchange within a warp --- */

static inline void __syncthreads(shim::place at = shim::place::current())
{
    shim::barrier(at);
}

static inline void __syncwarp(unsigned mask = ~0u, shim::place at = shim::place::current())
{
    shim::check_mask(mask);
    shim::meet(&mask, shim::nothing, at);
}

template <class T>
static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32,
                            shim::place at = shim::place::current())
{
    const int first = shim::current->lane & ~(width - 1);
    return shim::exchange(mask, v, first + (lane & (width - 1)), at);
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32,
                                shim::place at = shim::place::current())
{
    const int lane = shim::current->lane, from = lane ^ with;
    return shim::exchange(mask, v, from < (lane & ~(width - 1)) + width ? from : lane, at);
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32,
                                 shim::place at = shim::place::current())
{
    const int lane = shim::current->lane, from = lane + (int)by;
    return shim::exchange(mask, v, from < (lane & ~(width - 1)) + width ? from : lane, at);
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32,
                               shim::place at = shim::place::current())
{
    const int lane = shim::current->lane, from = lane - (int)by;
    return shim::exchange(mask, v, from >= (lane & ~(width - 1)) ? from : lane, at);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate,
                                     shim::place at = shim::place::current())
{
    return shim::vote(mask, predicate, at).yes;
}

static inline int __any_sync(unsigned mask, int predicate, shim::place at = shim::place::current())
{
    return shim::vote(mask, predicate, at).yes != 0;
}

static inline int __all_sync(unsigned mask, int predicate, shim::place at = shim::place::current())
{
    const struct shim::ballot b = shim::vote(mask, predicate, at);
    return b.yes == b.lanes;
}

/* --- memory --- */

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

static inline void __threadfence()
{
}

static inline void __threadfence_block()
{
}

#define SHIM_ATOMIC(name, type, next)                                                              \
    static inline type name(type *p, type v)                                                       \
    {                                                                                              \
        const type old = *p;                                                                       \
        *p = next;                                                                                 \
        return old;                                                                                \
    }
#define SHIM_ATOMICS(type)                                                                         \
    SHIM_ATOMIC(atomicAdd, type, old + v)                                                          \
    SHIM_ATOMIC(atomicMin, type, v < old ? v : old)                                                \
    SHIM_ATOMIC(atomicMax, type, v > old ? v : old)                                                \
    SHIM_ATOMIC(atomicExch, type, v)                                                               \
    SHIM_ATOMIC(atomicOr, type, old | v)                                                           \
    static inline type atomicCAS(type *p, type expected, type v)                                   \
    {                                                                                              \
        const type old = *p;                                                                       \
        if (old == expected)                                                                       \
            *p = v;                                                                                \
        return old;                                                                                \
    }
SHIM_ATOMICS(int)
SHIM_ATOMICS(unsigned)
SHIM_ATOMICS(unsigned long long)
#undef SHIM_ATOMICS
#undef SHIM_ATOMIC

/* --- bits --- */

template <class To, class From> static inline To shim_bits(From v)
{
    static_assert(sizeof(To) == sizeof(From), "");
    return __builtin_bit_cast(To, v);
}

static inline unsigned __float_as_uint(float v)
{
    return shim_bits<unsigned>(v);
}

static inline int __float_as_int(float v)
{
    return shim_bits<int>(v);
}

static inline float __uint_as_float(unsigned v)
{
    return shim_bits<float>(v);
}

static inline float __int_as_float(int v)
{
    return shim_bits<float>(v);
}

static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

static inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}

static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

/* Byte i of the result is the byte of b:a that nibble i of the selector names; with its bit 3, that byte's sign repeated. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned nibble = selector >> 4 * i & 15;
        const unsigned byte = bytes >> 8 * (nibble & 7) & 255;
        r |= (nibble & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * i;
    }
    return r;
}

static inline int __dp4a(int a, int b, int sum)
{
    unsigned r = (unsigned)sum; /* wraps */
    for (int i = 0; i < 32; i += 8)
        r += (unsigned)((int8_t)(a >> i) * (int8_t)(b >> i));
    return (int)r;
}

/* --- arithmetic --- */

static inline float rsqrtf(float v)
{
    return 1.0f / sqrtf(v);
}

static inline int __float2int_rn(float v)
{
    return v != v               ? 0
           : v >= 2147483648.0f ? INT32_MAX
           : v < -2147483648.0f ? INT32_MIN
                                : (int)rintf(v);
}

static inline long long __double2ll_rn(double v)
{
    return v != v                       ? INT64_MIN
           : v >= 9223372036854775808.0 ? INT64_MAX
           : v < -9223372036854775808.0 ? INT64_MIN
                                        : llrint(v);
}

static inline double __ll2double_rn(long long v)
{
    return (double)v;
}

#define SHIM_EXTREMES(type)                                                                        \
    static inline type min(type a, type b)                                                         \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    static inline type max(type a, type b)                                                         \
    {                                                                                              \
        return b > a ? b : a;                                                                      \
    }
SHIM_EXTREMES(int)
SHIM_EXTREMES(unsigned)
SHIM_EXTREMES(long)
SHIM_EXTREMES(unsigned long)
SHIM_EXTREMES(long long)
SHIM_EXTREMES(unsigned long long)
#undef SHIM_EXTREMES

#endif
