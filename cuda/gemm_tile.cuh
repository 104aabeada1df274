/* Tiles of bf16 products on tensor cores, shared by forward (gemm.cu) and backward (linear_backward.cu): shapes, order of sums,
 * fragments. A block multiplies M outputs by N tokens; operands arrive by slabs of 32 k.
 *
 * Order of a sum, the same in every shape: slabs ascending; a slab is two steps of mma.m16n8k16, the first takes its k with
 * k % 8 < 4, the second those with k % 8 >= 4. So lane (g, t) needs elements 8t .. 8t + 7 of a row, which lie side by side:
 *
 *   step 0: columns 2t, 2t+1, 2t+8, 2t+9 of the fragments are k = 8t, 8t+1, 8t+2, 8t+3 of the slab; step 1: 8t+4 .. 8t+7
 *
 * A row of a slab of bf16 is 64 bytes, of codes 32, one behind the other without padding or swizzle: a warp's reads of 16 (8)
 * bytes a lane are whole lines of 128, no bank conflicts.
 *
 * Which output a row of the A operand is, is free: a lane gets E = 2 MT outputs side by side, row (mt, h, g) of a warp being output
 * E g + 2 mt + h. So a lane stores 16 bytes of a token's outputs (MT = 4) straight from its registers.
 */
#ifndef RLHF_CUDA_GEMM_TILE_CUH
#define RLHF_CUDA_GEMM_TILE_CUH

#include "cuda/gemm.h"
#include "cuda/load.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"

enum {
    SLAB = 32,
    X_ROW = 64, /* bytes of a token in a slab */
    PIECE = 16, /* bytes of a copy */
    STAGES_MOST = 8
};

/* A warp has MT x NT fragments of 16 outputs x 8 tokens, the block WARPS_M x WARPS_N warps. A stage of the pipeline is SLABS slabs
 * of both operands; there are as many stages as fit into ROOM bytes. */
template <int MT_, int NT_, int WARPS_M_, int WARPS_N_, int SLABS_, int ROOM_> struct tile {
    static constexpr int MT = MT_, NT = NT_, WARPS_M = WARPS_M_, SLABS = SLABS_, ROOM = ROOM_;
    static constexpr int E = 2 * MT, WARP_M = 16 * MT, WARP_N = 8 * NT;
    static constexpr int M = WARPS_M * WARP_M, N = WARPS_N_ * WARP_N, THREADS = 32 * WARPS_M * WARPS_N_;
    static constexpr int X_PIECES = SLABS * X_ROW / PIECE;         /* of a token in a stage */
    static constexpr int X_COPIES = N * X_PIECES / THREADS;        /* of a thread */
    static constexpr int X_SLAB = N * X_ROW + (SLABS > 1) * X_ROW; /* slabs of a stage begin in different banks */
};

/* Tiles of a product, M x N outputs by tokens, in groups of 16 token tiles: blocks that run at the same time share both operands
 * in the second-level cache. */
struct tile_at {
    int m, n;
};

template <class T> static int tile_count(int outputs, int tokens)
{
    return ceil_div(outputs, T::M) * ceil_div(tokens, T::N);
}

template <class T> __device__ __forceinline__ struct tile_at tile_of(int block, int outputs, int tokens)
{
    constexpr int GROUP = 16;
    const int rows = (outputs + T::M - 1) / T::M, columns = (tokens + T::N - 1) / T::N;
    const int group = block / (rows * GROUP), in_group = block - group * rows * GROUP;
    const int width = columns - group * GROUP < GROUP ? columns - group * GROUP : GROUP;
    return {in_group / width * T::M, (group * GROUP + in_group % width) * T::N};
}

/* Where a lane's outputs begin: those of fragment (mt, nt), register c, are token n + 8 nt + c % 2 and output m + 2 mt + c / 2. */
template <class T> __device__ __forceinline__ struct tile_at lane_of(struct tile_at tile)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    return {tile.m + warp % T::WARPS_M * T::WARP_M + lane / 4 * T::E, tile.n + warp / T::WARPS_M * T::WARP_N + lane % 4 * 2};
}

template <int BYTES> __device__ __forceinline__ void load_words(uint32_t word[BYTES / 4], const void *p)
{
    if constexpr (BYTES == 16) {
        const uint4 v = *(const uint4 *)p;
        word[0] = v.x;
        word[1] = v.y;
        word[2] = v.z;
        word[3] = v.w;
    } else if constexpr (BYTES == 8) {
        const uint2 v = *(const uint2 *)p;
        word[0] = v.x;
        word[1] = v.y;
    } else {
        word[0] = *(const uint32_t *)p;
    }
}

/* A lane's fragments of the token operand for both steps of a slab: step s is b[nt] + 2 s. */
template <class T> __device__ __forceinline__ void load_tokens(uint32_t b[T::NT][4], const unsigned char *slab)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned char *from = slab + (warp / T::WARPS_M * T::WARP_N + lane / 4) * X_ROW + lane % 4 * PIECE;
#pragma unroll
    for (int nt = 0; nt < T::NT; nt++)
        load_words<16>(b[nt], from + nt * 8 * X_ROW);
}

/* Two int8 codes, in bytes 0 and 2 of w, as bf16, exactly. 0x43 before a byte makes a bf16 of it: 128 + c % 128 of the low 7 bits;
 * of the sign's bit alone 128, or 256 of a negative code; their difference is c. Costs two logic operations and an fma for two
 * codes, after the byte_perm that puts them there. */
__device__ __forceinline__ uint32_t expand_codes(uint32_t w)
{
    const uint32_t low = and_or(w, 0x007f007fu, 0x43004300u), sign = and_or(w, 0x00800080u, 0x43004300u);
    return fma_bf16x2(sign, 0xbf80bf80u, low); /* low - sign */
}

/* E values of a token's outputs, side by side. p is aligned to their size. */
template <int E> __device__ __forceinline__ void store_values(bf16 *p, const float v[E])
{
    if constexpr (E == 8)
        store_pack(p, v);
    else if constexpr (E == 4)
        *(uint2 *)p = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
    else
        *(uint32_t *)p = pack_bf16(v[0], v[1]);
}

template <int E> __device__ __forceinline__ void store_values(float *p, const float v[E])
{
    if constexpr (E == 2)
        *(float2 *)p = make_float2(v[0], v[1]);
    else
#pragma unroll
        for (int i = 0; i < E; i += 4)
            *(float4 *)(p + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
}

#endif
