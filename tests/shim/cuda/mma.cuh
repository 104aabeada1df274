/* What cuda/mma.cuh gives, on a CPU: the fragments of the 32 lanes are gathered, multiplied, and the results handed out.
 *
 * The hardware's order of additions within mma_bf16 is not specified; here c, then the 16 products (exact in float) in ascending k,
 * each sum rounded to float. Copies are made when their thread waits for them, as late as the hardware might; until then the
 * destination holds 0xff bytes, as it might be written at any time.
 */
#ifndef RLHF_TESTS_SHIM_CUDA_MMA_CUH
#define RLHF_TESTS_SHIM_CUDA_MMA_CUH

#include "cuda/launch.cuh"

#include "tensor_core.h"

static inline void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2],
                            shim::place at = shim::place::current())
{
    struct shim::product<float> mine = {
        c, a, b
    };
    shim::meet(&mine, shim::multiply_bf16, at);
}

static inline void mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2],
                          shim::place at = shim::place::current())
{
    struct shim::product<int32_t> mine = {
        c, a, b
    };
    shim::meet(&mine, shim::multiply_s8, at);
}

/* The product is exact in float; the sum is rounded to float, then to bf16. */
static inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c)
{
    return (a & b) | c;
}

static inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        const float x = __builtin_bit_cast(float, a >> shift << 16), y = __builtin_bit_cast(float, b >> shift << 16),
                    z = __builtin_bit_cast(float, c >> shift << 16);
        d |= (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(fmaf(x, y, z))) << shift;
    }
    return d;
}

static inline void ldmatrix_x4(uint32_t r[4], const void *shared,
                               shim::place at = shim::place::current())
{
    struct shim::matrix_load mine = {r, shared};
    shim::meet(&mine, shim::load_x4, at);
}

static inline void ldmatrix_x2(uint32_t r[2], const void *shared,
                               shim::place at = shim::place::current())
{
    struct shim::matrix_load mine = {r, shared};
    shim::meet(&mine, shim::load_x2, at);
}

static inline void ldmatrix_x4_trans(uint32_t r[4], const void *shared,
                                     shim::place at = shim::place::current())
{
    struct shim::matrix_load mine = {r, shared};
    shim::meet(&mine, shim::load_x4_trans, at);
}

static inline void ldmatrix_x2_trans(uint32_t r[2], const void *shared,
                                     shim::place at = shim::place::current())
{
    struct shim::matrix_load mine = {r, shared};
    shim::meet(&mine, shim::load_x2_trans, at);
}

static inline void copy_async16(void *shared, const void *global, bool valid)
{
    shim::copy_start(shared, global, valid);
}

static inline void copy_async_commit()
{
    shim::copy_commit();
}

template <int pending> static inline void copy_async_wait()
{
    shim::copy_wait(pending);
}

static inline float exp2_ftz(float x)
{
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y; /* keeps NaN */
}

#endif
