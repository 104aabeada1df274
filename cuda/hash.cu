/* A hash of device memory: equality of state across ranks. Not cryptographic.
 *
 * Chunks of 64 KiB, each of 256 lanes that run the multiply-rotate rounds of XXH64 (xxHash specification 0.1.1) over every 256th
 * word of 8 bytes from a start of their own. A chunk's hash is the integer sum of its mixed lanes, so any order gives the same;
 * the host chains the chunks and the length.
 */
#include "cuda/ops.h"
#include "cuda/reduce.cuh"

enum { HASH_THREADS = 256, CHUNK_BYTES = 64 << 10, WORD = 8 };

#define P1 0x9E3779B185EBCA87u
#define P2 0xC2B2AE3D27D4EB4Fu
#define P3 0x165667B19E3779F9u
#define P4 0x85EBCA77C2B2AE63u

static __host__ __device__ __forceinline__ uint64_t round64(uint64_t acc, uint64_t word)
{
    acc += word * P2;
    return (acc << 31 | acc >> 33) * P1;
}

static __host__ __device__ __forceinline__ uint64_t avalanche(uint64_t x)
{
    x = (x ^ x >> 33) * P2;
    x = (x ^ x >> 29) * P3;
    return x ^ x >> 32;
}

/* The word at p, of which left bytes are there: zeros behind. */
static __device__ __forceinline__ uint64_t load_word(const unsigned char *p, int64_t left)
{
    if (left >= WORD && (uintptr_t)p % WORD == 0)
        return *(const uint64_t *)p;
    uint64_t word = 0;
    for (int i = 0; i < WORD && i < left; i++)
        word |= (uint64_t)p[i] << 8 * i;
    return word;
}

/* part[i] = hash of chunk i.
 *   bytes [n] -> part [ceil(n / 64 KiB)]
 * Block:   one chunk; thread t takes the words t, t + 256, ...
 * Launch:  grid ceil(n / 64 KiB), 256 threads
 * Bytes:   reads n; bound by memory
 * Same bits: integers
 */
__global__ void __launch_bounds__(HASH_THREADS) hash_kernel(uint64_t *part, const unsigned char *bytes, int64_t n)
{
    __shared__ unsigned long long scratch[HASH_THREADS / WARP];
    const int64_t begin = (int64_t)blockIdx.x * CHUNK_BYTES, end = begin + CHUNK_BYTES < n ? begin + CHUNK_BYTES : n;
    uint64_t acc = (threadIdx.x + 1) * P4;
#pragma unroll 4
    for (int64_t at = begin + threadIdx.x * WORD; at < end; at += HASH_THREADS * WORD)
        acc = round64(acc, load_word(bytes + at, end - at));
    const unsigned long long sum = block_reduce<reduce_sum>((unsigned long long)avalanche(acc), scratch);
    if (threadIdx.x == 0)
        part[blockIdx.x] = sum;
}

uint64_t cuda_hash(struct backend *be, const void *bytes, size_t n)
{
    const size_t most = (size_t)UPDATE_PARTS * CHUNK_BYTES; /* bytes at once */
    uint64_t acc = P3, *part = (uint64_t *)cuda_scratch(be, cuda_update_workspace());
    for (size_t first = 0; first < n && !cuda_failed(be); first += most) {
        const int64_t count = (int64_t)(n - first < most ? n - first : most);
        const int chunks = ceil_div(count, CHUNK_BYTES);
        uint64_t host[UPDATE_PARTS] = {0};
        LAUNCH(hash_kernel, chunks, HASH_THREADS, 0, cuda_state(be)->stream, part, (const unsigned char *)bytes + first, count);
        cuda_check(be, "hash");
        cuda_copy_out(be, host, part, (size_t)chunks * sizeof *host);
        for (int i = 0; i < chunks; i++)
            acc = round64(acc, host[i]);
    }
    return avalanche(round64(acc, n));
}
