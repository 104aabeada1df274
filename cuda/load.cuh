/* 16-byte loads and stores of bf16 and their conversion. Rounding to bf16 is to nearest even. */
#ifndef RLHF_CUDA_LOAD_CUH
#define RLHF_CUDA_LOAD_CUH

#include "cuda/launch.cuh"

typedef __nv_bfloat16 bf16;

constexpr int PACK = 8; /* bf16 values in 16 bytes */

/* Eight values of 16 bytes, the lowest address first. */
__device__ __forceinline__ void unpack(float v[PACK], uint4 raw)
{
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(word[i] << 16);
        v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(low)) |
           (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16;
}

__device__ __forceinline__ uint4 pack(const float v[PACK])
{
    return make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

/* p aligned to 16 bytes */
__device__ __forceinline__ void load_pack(float v[PACK], const bf16 *p)
{
    unpack(v, *(const uint4 *)p);
}

__device__ __forceinline__ void store_pack(bf16 *p, const float v[PACK])
{
    *(uint4 *)p = pack(v);
}

/* Eight floats; p aligned to 16 bytes */
__device__ __forceinline__ void load_floats(float v[PACK], const float *p)
{
    const float4 low = ((const float4 *)p)[0], high = ((const float4 *)p)[1];
    v[0] = low.x;
    v[1] = low.y;
    v[2] = low.z;
    v[3] = low.w;
    v[4] = high.x;
    v[5] = high.y;
    v[6] = high.z;
    v[7] = high.w;
}

#endif
