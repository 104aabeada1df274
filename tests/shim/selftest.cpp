/* The shim itself: what runs on it must behave as on a device, and what is wrong must be seen to be wrong. */
#include "cuda/launch.cuh"
#include "cuda/load.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"

#include "order.h"

#include <cublasLt.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

template <class T> static T *device(size_t n)
{
    T *p;
    EXPECT(cudaMalloc(&p, n * sizeof(T)) == cudaSuccess);
    return p;
}

static uint32_t random_state = 1;

static uint32_t draw()
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

/* --- threads --- */

static __global__ void number_threads(int *out)
{
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

static void test_threads_are_numbered()
{
    const int n = 2 * 3 * 2 * 64;
    int *out = device<int>(n);
    LAUNCH(number_threads, dim3(2, 3, 2), dim3(8, 4, 2), 0, 0, out);
    for (int i = 0; i < n; i++)
        EXPECT(out[i] == i / 64 * 1000 + i % 64);
    EXPECT(cudaFree(out) == cudaSuccess);
}

/* Reverses the block's values through shared memory; without the barrier it is a race. */
template <bool correct> static __global__ void reverse(int *out, const int *in)
{
    DYN_SHARED(int, room);
    const int i = threadIdx.x, n = blockDim.x;
    room[i] = in[blockIdx.x * n + i];
    if (correct)
        __syncthreads();
    out[blockIdx.x * n + i] = room[n - 1 - i];
}

#ifndef __SANITIZE_ADDRESS__ /* which watches static shared memory, and does not poison it */
/* Counts the blocks that find in shared memory, static and dynamic, what another left there. */
static __global__ void leftovers(int *found)
{
    __shared__ int fixed[32];
    DYN_SHARED(int, room);
    if (fixed[threadIdx.x] != -1 || room[threadIdx.x] != -1)
        atomicAdd(found, 1);
    fixed[threadIdx.x] = room[threadIdx.x] = threadIdx.x;
}

static void test_shared_memory_is_poisoned()
{
    int *found = device<int>(1);
    cudaMemset(found, 0, sizeof *found);
    for (int i = 0; i < 10; i++)
        LAUNCH(leftovers, 5, 32, 32 * sizeof(int), 0, found);
    EXPECT(*found == 0);
    cudaFree(found);
}
#endif

/* Depends on the order in which blocks run: not what a kernel may do. */
static __global__ void last_block(int *out)
{
    if (threadIdx.x == 0)
        *out = blockIdx.x;
}

static void test_barriers()
{
    enum { BLOCKS = 5, THREADS = 1024, N = BLOCKS * THREADS };
    int *in = device<int>(N), *out = device<int>(N);
    for (int i = 0; i < N; i++)
        in[i] = draw();
    for (uint64_t seed = 0; seed < 4; seed++) {
        shim::order_set(seed);
        LAUNCH(reverse<true>, BLOCKS, THREADS, THREADS * sizeof(int), 0, out, in);
        for (int i = 0; i < N; i++)
            EXPECT(out[i] == in[i / THREADS * THREADS + THREADS - 1 - i % THREADS]);
        LAUNCH(reverse<false>, BLOCKS, THREADS, THREADS * sizeof(int), 0, out, in);
        int wrong = 0;
        for (int i = 0; i < N; i++)
            wrong += out[i] != in[i / THREADS * THREADS + THREADS - 1 - i % THREADS];
        EXPECT(wrong > 0);
    }
    int n_last = 0;
    for (uint64_t seed = 1; seed < 9; seed++) {
        shim::order_set(seed);
        LAUNCH(last_block, 100, 32, 0, 0, out);
        n_last += *out == 99;
    }
    EXPECT(n_last < 8);
    shim::order_set(0);
    cudaFree(in);
    cudaFree(out);
}

static __global__ void reductions(float *sum, int *maximum, const int *in)
{
    __shared__ float sums[32];
    __shared__ int maxima[32];
    const int v = in[threadIdx.x];
    const float s = block_reduce<reduce_sum>((float)v, sums);
    const int m = block_reduce<reduce_max>(v, maxima);
    sum[threadIdx.x] = s;
    maximum[threadIdx.x] = m;
}

static __global__ void lanes(int *out, long long *wide, unsigned *votes)
{
    const int lane = threadIdx.x % 32, i = threadIdx.x;
    const unsigned all = ALL_LANES;
    int *o = out + i * 6;
    o[0] = __shfl_sync(all, i, 5);
    o[1] = __shfl_xor_sync(all, i, 3);
    o[2] = __shfl_down_sync(all, i, 4);
    o[3] = __shfl_up_sync(all, i, 4);
    o[4] = __shfl_sync(all, i, 1, 8);
    o[5] = __shfl_down_sync(all, i, 3, 8);
    wide[i] = __shfl_xor_sync(all, (long long)i << 40, 16);
    votes[i * 3] = __ballot_sync(all, lane % 3 == 0);
    votes[i * 3 + 1] = __any_sync(all, lane == 7);
    votes[i * 3 + 2] = __all_sync(all, lane < 31);
}

static void test_warps()
{
    enum { THREADS = 256 };
    int *in = device<int>(THREADS), *maximum = device<int>(THREADS),
        *out = device<int>(6 * THREADS);
    float *sum = device<float>(THREADS);
    long long *wide = device<long long>(THREADS);
    unsigned *votes = device<unsigned>(3 * THREADS);
    int s = 0, m = 0;
    for (int i = 0; i < THREADS; i++) {
        in[i] = draw() % 1000;
        s += in[i];
        m = max(m, in[i]);
    }
    for (uint64_t seed = 0; seed < 4; seed++) {
        shim::order_set(seed);
        LAUNCH(reductions, 1, THREADS, 0, 0, sum, maximum, in);
        LAUNCH(lanes, 1, THREADS, 0, 0, out, wide, votes);
        for (int i = 0; i < THREADS; i++) {
            const int lane = i % 32, first = i - lane;
            EXPECT(sum[i] == s && maximum[i] == m);
            const int *o = out + i * 6;
            EXPECT(o[0] == first + 5 && o[1] == (i ^ 3));
            EXPECT(o[2] == (lane < 28 ? i + 4 : i) && o[3] == (lane >= 4 ? i - 4 : i));
            EXPECT(o[4] == i / 8 * 8 + 1 && o[5] == (i % 8 < 5 ? i + 3 : i));
            EXPECT(wide[i] == (long long)(i ^ 16) << 40);
            EXPECT(votes[i * 3] == 0x49249249 && votes[i * 3 + 1] == 1 && votes[i * 3 + 2] == 0);
        }
    }
    shim::order_set(0);
    cudaFree(in);
    cudaFree(maximum);
    cudaFree(out);
    cudaFree(sum);
    cudaFree(wide);
    cudaFree(votes);
}

/* --- tensor cores --- */

/* c [16][8] += a [16][16] b [8 columns][16], through shared memory and ldmatrix; b_rows: b as [16][8], by the transposing load. */
static __global__ void multiply(float *c, const bf16 *a, const bf16 *b, const bf16 *b_rows)
{
    __shared__ __align__(16) bf16 as[16 * 16], bs[8 * 16], bt[16 * 8];
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += 32)
        as[i] = a[i];
    for (int i = lane; i < 128; i += 32) {
        bs[i] = b[i];
        bt[i] = b_rows[i];
    }
    __syncwarp();
    uint32_t fa[4], fb[2], ft[2], f4[4], f4t[4];
    ldmatrix_x4(fa, as + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x2(fb, bs + lane % 8 * 16 + lane / 8 % 2 * 8);
    ldmatrix_x2_trans(ft, bt + lane % 16 * 8);
    ldmatrix_x4_trans(f4t, bt + lane % 16 * 8);
    ldmatrix_x4(f4, bs + lane % 8 * 16 + lane / 8 % 2 * 8);
    float sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_bf16(sum, fa, fb);
    for (int i = 0; i < 2; i++)
        if (fb[i] != ft[i] || fb[i] != f4[i] || fb[i] != f4t[i] || f4[i + 2] != f4[i])
            sum[0] = NAN;
    for (int i = 0; i < 4; i++)
        c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

/* c [16][8] += a [16][32] b [8 columns][32]. */
static __global__ void multiply_s8(int32_t *c, const int8_t *a, const int8_t *b)
{
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    const uint32_t fa[4] = {*(const uint32_t *)(a + g * 32 + 4 * t),
                            *(const uint32_t *)(a + (g + 8) * 32 + 4 * t),
                            *(const uint32_t *)(a + g * 32 + 4 * t + 16),
                            *(const uint32_t *)(a + (g + 8) * 32 + 4 * t + 16)};
    const uint32_t fb[2] = {*(const uint32_t *)(b + g * 32 + 4 * t),
                            *(const uint32_t *)(b + g * 32 + 4 * t + 16)};
    int32_t sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_s8(sum, fa, fb);
    for (int i = 0; i < 4; i++)
        c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

static void test_products()
{
    float *c = device<float>(128), expected[128];
    bf16 *a = device<bf16>(256), *b = device<bf16>(128), *b_rows = device<bf16>(128);
    for (int i = 0; i < 128; i++)
        expected[i] = c[i] = (int)(draw() % 1000) / 100.0f - 5;
    for (int i = 0; i < 256; i++)
        a[i] = __float2bfloat16_rn((int)(draw() % 2000) / 500.0f - 2);
    for (int i = 0; i < 128; i++)
        b_rows[i % 16 * 8 + i / 16] = b[i] = __float2bfloat16_rn((int)(draw() % 2000) / 500.0f - 2);
    for (int i = 0; i < 128; i++)
        for (int k = 0; k < 16; k++)
            expected[i] +=
                __bfloat162float(a[i / 8 * 16 + k]) * __bfloat162float(b[i % 8 * 16 + k]);
    LAUNCH(multiply, 1, 32, 0, 0, c, a, b, b_rows);
    EXPECT(!memcmp(c, expected, sizeof expected));

    int32_t *n = device<int32_t>(128), sums[128];
    int8_t *p = device<int8_t>(512), *q = device<int8_t>(256);
    for (int i = 0; i < 512; i++)
        p[i] = draw();
    for (int i = 0; i < 256; i++)
        q[i] = draw();
    for (int i = 0; i < 128; i++) {
        sums[i] = n[i] = draw();
        for (int k = 0; k < 32; k++)
            sums[i] += p[i / 8 * 32 + k] * q[i % 8 * 32 + k];
    }
    LAUNCH(multiply_s8, 1, 32, 0, 0, n, p, q);
    EXPECT(!memcmp(n, sums, sizeof sums));
    cudaFree(c);
    cudaFree(a);
    cudaFree(b);
    cudaFree(b_rows);
    cudaFree(n);
    cudaFree(p);
    cudaFree(q);
}

/* Copies a block's 16-byte pieces, read back by the neighbour. Mode 0: right; 1: the wait is missing; 2: the barrier is; 3: waits for
 * the older of two groups, whose pieces alone are read; 4: reads the newer one's. */
static __global__ void copies(uint4 *out, const uint4 *in, int mode)
{
    __shared__ uint4 room[2 * 64];
    const int i = threadIdx.x, n = blockDim.x;
    copy_async16(&room[i], &in[i], i % 4 != 3);
    copy_async_commit();
    copy_async16(&room[n + i], &in[n + i], true);
    copy_async_commit();
    if (mode == 3 || mode == 4)
        copy_async_wait<1>();
    else if (mode != 1)
        copy_async_wait<0>();
    if (mode != 2)
        __syncthreads();
    out[i] = room[(mode == 4 ? n : 0) + (i + 1) % n];
}

static void test_copies()
{
    enum { N = 64 };
    uint4 *in = device<uint4>(2 * N), *out = device<uint4>(N);
    for (int i = 0; i < 2 * N; i++)
        in[i] = make_uint4(i, draw(), draw(), draw());
    for (int mode = 0; mode < 5; mode++) {
        LAUNCH(copies, 1, N, 0, 0, out, in, mode);
        int wrong = 0;
        for (int i = 0; i < N; i++) {
            const int from = (i + 1) % N;
            const uint4 zero = {};
            wrong += memcmp(&out[i],
                            from % 4 == 3 && mode != 4 ? &zero : &in[mode == 4 ? N + from : from],
                            sizeof zero) != 0;
        }
        EXPECT((wrong == 0) == (mode == 0 || mode == 3));
    }
    cudaFree(in);
    cudaFree(out);
}

/* --- words --- */

static void test_words()
{
    for (uint32_t high = 0; high < 65536; high++) {
        const float v = __uint_as_float(high << 16);
        const unsigned short back = __bfloat16_as_ushort(__float2bfloat16_rn(v));
        EXPECT(v != v ? back == 0x7fff : back == high);
    }
    EXPECT(__float2bfloat16_rn(__uint_as_float(0x3f808000)).bits == 0x3f80);
    EXPECT(__float2bfloat16_rn(__uint_as_float(0x3f818000)).bits == 0x3f82);
    EXPECT(__float2bfloat16_rn(__uint_as_float(0x3f808001)).bits == 0x3f81);
    EXPECT(__float2bfloat16_rn(__uint_as_float(0x7f7fffff)).bits == 0x7f80);
    EXPECT(__byte_perm(0x33221100, 0x77665544, 0x7421) == 0x77442211);
    EXPECT(__byte_perm(0x80, 0, 0x0008) == 0x808080ff);
    EXPECT(__dp4a(0x01ff80ff, 0x020280ff, 5) == 2 - 2 + 16384 + 1 + 5);
    EXPECT(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu);
    EXPECT(__clz(0) == 32 && __clz(1) == 31 && __ffs(0) == 0 && __ffs(8) == 4 && __popc(0xff) == 8);
    EXPECT(__float2int_rn(2.5f) == 2 && __float2int_rn(3.5f) == 4 &&
           __float2int_rn(1e20f) == INT32_MAX);
    EXPECT(__double2ll_rn(-2.5) == -2 && __double2ll_rn(1e300) == INT64_MAX);
}

/* --- memory, launches --- */

static void test_memory()
{
    size_t free, total, after;
    EXPECT(cudaMemGetInfo(&free, &total) == cudaSuccess && free == total);
    unsigned char *p = device<unsigned char>(1000), *pinned;
    EXPECT(cudaMallocHost(&pinned, 100) == cudaSuccess);
    EXPECT((uintptr_t)p % 256 == 0 && p[0] == 0xff && p[999] == 0xff);
    EXPECT(cudaMemGetInfo(&after, &total) == cudaSuccess && after == free - 1000);
    char here[100] = "text", back[100];
    EXPECT(cudaMemcpy(p, here, sizeof here, cudaMemcpyHostToDevice) == cudaSuccess);
    EXPECT(cudaMemcpy(p + 500, p, sizeof here, cudaMemcpyDeviceToDevice) == cudaSuccess);
    EXPECT(cudaMemcpy(back, p + 500, sizeof here, cudaMemcpyDefault) == cudaSuccess);
    EXPECT(!memcmp(here, back, sizeof here));
    EXPECT(cudaMemset(p, 7, 3) == cudaSuccess && p[2] == 7 && p[3] == 't');
    EXPECT(cudaMemcpy(here, p, 8, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
    EXPECT(cudaMemcpy(p + 950, here, sizeof here, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    EXPECT(cudaMemset(here, 0, 4) == cudaErrorInvalidValue);
    void *large;
    EXPECT(cudaMalloc(&large, total) == cudaErrorMemoryAllocation && !large);
    EXPECT(cudaFree(pinned) == cudaErrorInvalidValue);
    EXPECT(cudaFreeHost(pinned) == cudaSuccess && cudaFree(p) == cudaSuccess);
    cudaGetLastError();
}

static void test_launch_errors()
{
    int *out = device<int>(64);
    *out = 5;
    const struct {
        dim3 grid, block;
        size_t shared;
        cudaError_t error;
    } cases[] = {
        {1, 2048, 0, cudaErrorInvalidConfiguration},
        {0, 32, 0, cudaErrorInvalidConfiguration},
        {dim3(1, 65536), 32, 0, cudaErrorInvalidConfiguration},
        {dim3(1, 1, 65536), 32, 0, cudaErrorInvalidConfiguration},
        {1, dim3(1, 1, 96), 0, cudaErrorInvalidConfiguration},
        {1, 32, 100 << 10, cudaErrorInvalidValue},
    };
    for (const auto &c : cases) {
        LAUNCH(last_block, c.grid, c.block, c.shared, 0, out);
        EXPECT(cudaPeekAtLastError() == c.error);
        EXPECT(cudaGetLastError() == c.error && cudaGetLastError() == cudaSuccess);
        EXPECT(*out == 5);
    }
    LAUNCH(last_block, 7, 32, 99 << 10, 0, out);
    EXPECT(cudaGetLastError() == cudaSuccess && *out == 6);
    EXPECT(!strcmp(cudaGetErrorName(cudaErrorInvalidValue), "cudaErrorInvalidValue"));
    cudaFree(out);
}

/* --- graphs --- */

static __global__ void add(int *p, int by, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] += by;
}

static void test_graphs()
{
    enum { N = 100 };
    cudaStream_t stream, other;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
           cudaStreamCreate(&other) == cudaSuccess);
    EXPECT(cudaEventCreate(&fork) == cudaSuccess && cudaEventCreate(&join) == cudaSuccess);
    int *p = device<int>(N), *pinned, by = 2, here[N];
    EXPECT(cudaMallocHost(&pinned, N * sizeof(int)) == cudaSuccess);
    EXPECT(cudaMemset(p, 0, N * sizeof(int)) == cudaSuccess);

    EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    LAUNCH(add, 4, 32, 0, stream, p, 0,
           N); /* its first launch: a recording has no place for loading it */
    EXPECT(cudaGetLastError() == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
    LAUNCH(add, 4, 32, 0, stream, p, 0, N);
    EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);

    EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    LAUNCH(add, 4, 32, 0, stream, p, by, N);
    by = 100; /* arguments were copied */
    EXPECT(cudaEventRecord(fork, stream) == cudaSuccess &&
           cudaStreamWaitEvent(other, fork) == cudaSuccess);
    LAUNCH(add, 4, 32, 0, other, p, 1, N);
    EXPECT(cudaEventRecord(join, other) == cudaSuccess &&
           cudaStreamWaitEvent(stream, join) == cudaSuccess);
    EXPECT(cudaMemcpyAsync(pinned, p, N * sizeof(int), cudaMemcpyDeviceToHost, stream) ==
           cudaSuccess);
    EXPECT(p[0] == 0 && pinned[0] == -1);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    EXPECT(cudaGraphInstantiate(&exec, graph) == cudaSuccess &&
           cudaGraphDestroy(graph) == cudaSuccess);
    for (int i = 1; i < 4; i++) {
        EXPECT(cudaGraphLaunch(exec, stream) == cudaSuccess &&
               cudaStreamSynchronize(stream) == cudaSuccess);
        EXPECT(p[0] == 3 * i && p[N - 1] == 3 * i && pinned[N - 1] == 3 * i);
    }
    EXPECT(cudaGraphExecDestroy(exec) == cudaSuccess);

    const struct {
        const char *what;
        cudaError_t error;
    } forbidden[] = {
        {"malloc", cudaErrorStreamCaptureInvalidated},
        {"synchronise", cudaErrorStreamCaptureInvalidated},
        {"pageable", cudaErrorStreamCaptureInvalidated},
        {"unjoined", cudaErrorStreamCaptureUnjoined},
    };
    for (const auto &f : forbidden) {
        void *q;
        EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        if (!strcmp(f.what, "malloc"))
            EXPECT(cudaMalloc(&q, 4) == cudaErrorStreamCaptureUnsupported);
        if (!strcmp(f.what, "synchronise"))
            EXPECT(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
        if (!strcmp(f.what, "pageable"))
            EXPECT(cudaMemcpyAsync(here, p, 4, cudaMemcpyDeviceToHost, stream) ==
                   cudaErrorStreamCaptureUnsupported);
        if (!strcmp(f.what, "unjoined")) {
            EXPECT(cudaEventRecord(fork, stream) == cudaSuccess &&
                   cudaStreamWaitEvent(other, fork) == cudaSuccess);
            LAUNCH(add, 4, 32, 0, other, p, 1, N);
        }
        EXPECT(cudaStreamEndCapture(stream, &graph) == f.error && !graph);
        cudaGetLastError();
    }
    cudaFree(p);
    cudaFreeHost(pinned);
    cudaEventDestroy(fork);
    cudaEventDestroy(join);
    EXPECT(cudaStreamDestroy(stream) == cudaSuccess && cudaStreamDestroy(other) == cudaSuccess);
}

/* --- cuBLASLt --- */

static void test_int8_product()
{
    const int m = 20, n = 3, k = 36, lda = 40, ldb = 36, ldd = 24;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, ld;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int n_found;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const int32_t one = 1, zero = 0;
    int8_t *a = device<int8_t>(m * lda), *b = device<int8_t>(n * ldb);
    int32_t *d = device<int32_t>(n * ldd);
    for (int i = 0; i < m * lda; i++)
        a[i] = draw();
    for (int i = 0; i < n * ldb; i++)
        b[i] = draw();
    EXPECT(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32I, CUDA_R_32I) ==
           CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatrixLayoutCreate(&la, CUDA_R_8I, k, m, lda) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatrixLayoutCreate(&lb, CUDA_R_8I, k, n, ldb) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatrixLayoutCreate(&ld, CUDA_R_32I, m, n, ldd) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatmulAlgoGetHeuristic(handle, desc, la, lb, ld, ld, preference, 1, &found,
                                          &n_found) == CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                          sizeof transpose) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatmulAlgoGetHeuristic(handle, desc, la, lb, ld, ld, preference, 1, &found,
                                          &n_found) == CUBLAS_STATUS_SUCCESS &&
           n_found == 1);
    EXPECT(cublasLtMatmul(handle, desc, &one, a, la, b, lb, &zero, d, ld, d, ld, &found.algo, NULL,
                          0, 0) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cublasLtMatmul(handle, desc, &one, a + 4, la, b, lb, &zero, d, ld, d, ld, &found.algo,
                          NULL, 0, 0) ==
           CUBLAS_STATUS_INVALID_VALUE); /* the preference says 256, unless told otherwise */
    for (int j = 0; j < n; j++)
        for (int i = 0; i < ldd; i++) {
            int32_t sum = i < m ? 0 : -1;
            for (int x = 0; i < m && x < k; x++)
                sum += a[i * lda + x] * b[j * ldb + x];
            EXPECT(d[j * ldd + i] == sum);
        }
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(la);
    cublasLtMatrixLayoutDestroy(lb);
    cublasLtMatrixLayoutDestroy(ld);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
    cudaFree(a);
    cudaFree(b);
    cudaFree(d);
}

/* --- what ends the process --- */

static __global__ void some_threads_wait()
{
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncwarp();
}

static __global__ void two_barriers()
{
    if (threadIdx.x == 33)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void lane_stays_away(int *out)
{
    if (threadIdx.x != 3)
        *out = __shfl_sync(ALL_LANES, 1, 3);
}

static __global__ void misaligned(const char *in)
{
    __shared__ uint4 room[2];
    copy_async16((char *)room + 8, in, true);
}

static __global__ void reads(const int *in, int *out)
{
    *out = *in;
}

static __global__ void overruns()
{
    DYN_SHARED(int, room);
    room[1024 + threadIdx.x] = 1;
}

static __global__ void swallows_stack(int *out)
{
    volatile char large[1 << 20];
    large[0] = 1;
    *out = large[0];
}

static void run_overruns()
{
    LAUNCH(overruns, dim3(3, 2), 64, 4096, 0);
}

static void run_deadlock()
{
    LAUNCH(some_threads_wait, dim3(3, 2), 64, 0, 0);
}

static void run_divergence()
{
    LAUNCH(two_barriers, 1, 64, 0, 0);
}

static void run_exited()
{
    LAUNCH(lane_stays_away, 1, 32, 0, 0, (int *)NULL);
}

static void run_misaligned()
{
    LAUNCH(misaligned, 1, 32, 0, 0, (const char *)NULL);
}

static void run_part_of_warp()
{
    LAUNCH(last_block, 1, 48, 0, 0, (int *)NULL);
}

static void run_host_argument()
{
    int here = 1;
    LAUNCH(reads, 1, 32, 0, 0, &here, (int *)NULL);
}

static void run_stack()
{
    LAUNCH(swallows_stack, 1, 32, 0, 0, device<int>(1));
}

/* --- settings --- */

/* RLHF_SHIM_LAZY: nothing before someone waits; what the host does too early, or a stream without its event, shows. */
static void run_lazy()
{
    cudaStream_t stream, other;
    cudaEvent_t event;
    int *p = device<int>(1), *pinned, here = 0;
    EXPECT(cudaStreamCreate(&stream) == cudaSuccess && cudaStreamCreate(&other) == cudaSuccess);
    EXPECT(cudaEventCreate(&event) == cudaSuccess &&
           cudaMallocHost(&pinned, sizeof *pinned) == cudaSuccess);
    *pinned = 5;
    EXPECT(cudaMemcpyAsync(p, pinned, sizeof *p, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    LAUNCH(add, 1, 32, 0, stream, p, 1, 1);
    EXPECT(cudaEventRecord(event, stream) == cudaSuccess);
    EXPECT(*p == -1);
    *pinned = 7; /* too early */
    LAUNCH(add, 1, 32, 0, other, p, 100, 1);
    EXPECT(cudaStreamSynchronize(other) == cudaSuccess && *p == 99);
    EXPECT(cudaStreamWaitEvent(other, event) == cudaSuccess);
    LAUNCH(add, 1, 32, 0, other, p, 100, 1);
    EXPECT(cudaStreamSynchronize(other) == cudaSuccess && *p == 108);
    LAUNCH(add, 1, 32, 0, stream, p, 1, 1);
    EXPECT(cudaMemcpyAsync(&here, p, sizeof here, cudaMemcpyDeviceToHost, stream) == cudaSuccess &&
           here == 109);
    EXPECT(cudaEventQuery(event) == cudaSuccess && cudaEventDestroy(event) == cudaSuccess);
    cudaFree(p);
    cudaFreeHost(pinned);
    cudaStreamDestroy(stream);
    cudaStreamDestroy(other);
}

static void run_guard()
{
    int *p = device<int>(1), here = 0;
    EXPECT(cudaMemset(p, 0, sizeof *p) == cudaSuccess);
    LAUNCH(add, 1, 32, 0, 0, p, 3, 1);
    EXPECT(cudaMemcpy(&here, p, sizeof here, cudaMemcpyDeviceToHost) == cudaSuccess && here == 3);
    if (failures == 0)
        printf("%d\n", *p);
}

/* RLHF_SHIM_FAIL: the error stays. */
static void run_fail()
{
    int *p = device<int>(1);
    LAUNCH(last_block, 1, 32, 0, 0, p);
    EXPECT(cudaGetLastError() == cudaSuccess && *p == 0);
    LAUNCH(add, 1, 32, 0, 0, p, 3, 1);
    EXPECT(*p == 0 && cudaGetLastError() == cudaErrorIllegalAddress &&
           cudaGetLastError() == cudaErrorIllegalAddress);
    EXPECT(cudaFree(p) == cudaErrorIllegalAddress);
}

static void run_log()
{
    int *p = device<int>(64);
    LAUNCH(last_block, 1, 32, 0, 0, p);
    LAUNCH(last_block, 1, 32, 0, 0, p);
    LAUNCH((reverse<true>), 1, 32, 4 * 32, 0, p, p);
    cudaFree(p);
}

static const struct {
    const char *name;
    void (*run)();
} cases[] = {
    {"overruns", run_overruns},
    {"deadlock", run_deadlock},
    {"divergence", run_divergence},
    {"exited", run_exited},
    {"misaligned", run_misaligned},
    {"part of a warp", run_part_of_warp},
    {"host argument", run_host_argument},
    {"stack", run_stack},
    {"lazy", run_lazy},
    {"guard", run_guard},
    {"fail", run_fail},
    {"log", run_log},
};

/* Runs a case in a process of its own, with a setting ("NAME=value" or NULL). Puts what it wrote on stderr into message, returns its
 * status. */
static int run_case(const char *name, char *setting, char message[4096])
{
    int ends[2], status = -1;
    size_t n = 0;
    EXPECT(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        if (setting)
            putenv(setting);
        execl("/proc/self/exe", "selftest", name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    for (ssize_t got; n < 4095 && (got = read(ends[0], message + n, 4095 - n)) > 0;)
        n += got;
    message[n] = 0;
    close(ends[0]);
    EXPECT(waitpid(child, &status, 0) == child);
    return status;
}

/* The case must be aborted with a message that holds the texts. */
static void expect_message(const char *name, char *setting, const char *first, const char *second,
                           const char *third)
{
    char message[4096];
    const int status = run_case(name, setting, message);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(message, first) ||
        !strstr(message, second) || !strstr(message, third)) {
        fprintf(stderr, "%s: status %d; expected \"%s\", \"%s\", \"%s\" in: %s\n", name, status,
                first, second, third, message);
        failures++;
    }
}

static void expect_success(const char *name, char *setting)
{
    char message[4096];
    const int status = run_case(name, setting, message);
    if (status != 0 || *message) {
        fprintf(stderr, "%s: status %d: %s\n", name, status, message);
        failures++;
    }
}

static void test_what_ends_the_process()
{
    expect_message("deadlock", NULL, "kernel some_threads_wait", "block (0,0,0) thread (40,0,0)",
                   "deadlock");
    expect_message("divergence", NULL, "kernel two_barriers", "thread (33,0,0)", "divergence");
    expect_message("exited", NULL, "kernel lane_stays_away", "lane 3", "exited");
    expect_message("misaligned", NULL, "kernel misaligned", "copy_async16", "aligned");
    expect_message("part of a warp", NULL, "kernel last_block", "48 threads", "whole warps");
    expect_message("host argument", NULL, "kernel reads", "argument 1", "not memory of the device");
#ifndef __SANITIZE_ADDRESS__
    char guard[] = "RLHF_SHIM_GUARD=1";
    expect_message("overruns", NULL, "kernel overruns", "block (0,0,0) thread (0,0,0)", "touched");
    expect_message("stack", NULL, "kernel swallows_stack", "thread (0,0,0)", "touched");
    expect_message("guard", guard, "host code touched", "memory of the device", "");
#endif
}

static void test_settings()
{
    char lazy[] = "RLHF_SHIM_LAZY=1", fail[] = "RLHF_SHIM_FAIL=add";
    expect_success("lazy", lazy);
    expect_success("fail", fail);

    char path[] = "/tmp/shim-selftest-XXXXXX", setting[64], text[256];
    const int fd = mkstemp(path);
    EXPECT(fd >= 0);
    snprintf(setting, sizeof setting, "RLHF_SHIM_LOG=%s", path);
    expect_success("log", setting);
    expect_success("log", setting);
    const ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    EXPECT(!strcmp(text, "last_block 2\nreverse 1\nlast_block 2\nreverse 1\n"));
    close(fd);
    unlink(path);
}

static void test_device()
{
    int count, device_number;
    cudaDeviceProp one;
    EXPECT(cudaGetDeviceCount(&count) == cudaSuccess && count == 1);
    EXPECT(cudaSetDevice(0) == cudaSuccess && cudaSetDevice(1) == cudaErrorInvalidDevice);
    EXPECT(cudaGetDevice(&device_number) == cudaSuccess && device_number == 0);
    EXPECT(cudaGetDeviceProperties(&one, 0) == cudaSuccess && !strcmp(one.name, "shim"));
    cudaGetLastError();
}

int main(int argc, char **argv)
{
    for (const auto &c : cases)
        if (argc > 1 && !strcmp(argv[1], c.name)) {
            c.run();
            return failures > 0;
        }
    unsetenv("RLHF_SHIM_LOG"); /* these kernels are not the module's */
    test_threads_are_numbered();
#ifndef __SANITIZE_ADDRESS__
    test_shared_memory_is_poisoned();
#endif
    test_barriers();
    test_warps();
    test_products();
    test_copies();
    test_words();
    test_memory();
    test_launch_errors();
    test_graphs();
    test_int8_product();
    test_device();
    test_settings();
    test_what_ends_the_process();
    return failures > 0;
}
