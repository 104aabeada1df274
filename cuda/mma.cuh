/* Tensor cores, asynchronous copies and the quick power of two, a function an instruction (compute capability 8.0 and above). tests/shim has an mma.cuh of
 * its own that does the same lane by lane on a CPU. All 32 lanes of a warp call these together.
 *
 * Fragments of m16n8k16 (bf16) by lane, g = lane / 4, t = lane % 4; two values a register, the lower column in the low half:
 *   a[0] A[g][2t, 2t+1]      a[1] A[g+8][2t, 2t+1]    a[2] A[g][2t+8, 2t+9]    a[3] A[g+8][2t+8, 2t+9]
 *   b[0] B[2t, 2t+1][g]      b[1] B[2t+8, 2t+9][g]
 *   c[0] C[g][2t]            c[1] C[g][2t+1]          c[2] C[g+8][2t]          c[3] C[g+8][2t+1]
 * of m16n8k32 (int8): four values a register; a[0] A[g][4t..4t+3], a[1] A[g+8][4t..], a[2] A[g][4t+16..], a[3] A[g+8][4t+16..],
 *   b[0] B[4t..4t+3][g], b[1] B[4t+16..][g], c as above.
 */
#ifndef RLHF_CUDA_MMA_CUH
#define RLHF_CUDA_MMA_CUH

#include "cuda/launch.cuh"

/* c += A B in float: A [16][16] bf16 by rows, B [16][8] bf16 by columns. */
__device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* c += A B in int32, exact: A [16][32] int8 by rows, B [32][8] int8 by columns. */
__device__ __forceinline__ void mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* a b + c of two bf16 values a register, each rounded once. */
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* (a & b) | c. Where b and c are constants the compiler would take two instructions. */
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* Four (or two) 8x8 matrices of 16-bit values from shared memory. Lane i gives the address of row i % 8 of matrix i / 8 (16
 * bytes, aligned to 16; ldmatrix_x2 reads the addresses of lanes 0 to 15); r[j] of a lane holds of matrix j: row lane / 4,
 * columns 2 (lane % 4) and the next. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *shared)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void *shared)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
}

/* The same, each matrix transposed: r[j] holds rows 2 (lane % 4) and the next of column lane / 4. */
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *shared)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t r[2], const void *shared)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
}

/* 16 bytes from global to shared memory, both aligned to 16, without passing through registers; zeros where valid is false
 * (global is not read then and may point anywhere). */
__device__ __forceinline__ void copy_async16(void *shared, const void *global, bool valid)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(bytes) : "memory");
}

/* Closes a group of this thread's copies; waits until all but the newest `pending` groups have arrived. The other threads'
 * copies are seen after the __syncthreads that follows. */
__device__ __forceinline__ void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending> __device__ __forceinline__ void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/* 2^x to 2 units in the last place; 0 where that is below 2^-126. One instruction, where exp2f has four for the sake of such results. */
__device__ __forceinline__ float exp2_ftz(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
