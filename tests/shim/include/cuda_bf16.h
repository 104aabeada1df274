/* bf16 on a CPU: what the module uses of the toolkit's header of this name. */
#ifndef RLHF_TESTS_SHIM_CUDA_BF16_H
#define RLHF_TESTS_SHIM_CUDA_BF16_H

#include <stdint.h>

struct __nv_bfloat16 {
    unsigned short bits;
};

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}

static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v)
{
    return v.bits;
}

static inline float __bfloat162float(__nv_bfloat16 v)
{
    return __builtin_bit_cast(float, (uint32_t)v.bits << 16);
}

/* To nearest, ties to even; every NaN becomes 0x7fff. */
static inline __nv_bfloat16 __float2bfloat16_rn(float v)
{
    const uint32_t bits = __builtin_bit_cast(uint32_t, v);
    if (v != v)
        return {0x7fff};
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

#endif
