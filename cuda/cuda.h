/* State of the CUDA backend and what its sources share on the host's side. */
#ifndef RLHF_CUDA_CUDA_H
#define RLHF_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define BACKEND_ACT __nv_bfloat16
extern "C" {
#include "backend.h"
#include "error.h"
}

struct cuda_memory; /* device.cu: what was allocated */
struct cuda_programs; /* program.cu: recorded graphs */
struct cuda_staging; /* device.cu: page-locked buffers that copies go through */
struct cuda_reduce;  /* mpi/nccl.cu: the group that sums */

/* Products that cuBLASLt was asked about (gemm_int8.cu), the next to be replaced. All zeros: none. */
enum { INT8_SHAPES = 16 };
struct int8_shape {
    int rows, out, ld;
    bool known; /* there is an algorithm */
    cublasLtMatmulAlgo_t algorithm;
};
struct int8_shapes {
    struct int8_shape shape[INT8_SHAPES];
    unsigned next;
};

struct cuda_state {
    cudaStream_t stream; /* all operations, in order */
    cublasLtHandle_t blas;
    struct int8_shapes int8;
    void *workspace; /* scratch of the operation that is being enqueued; the next one uses it again */
    size_t workspace_bytes;
    bool plan_only; /* no device is here: sizes are all there is */
    char error[256]; /* the first error, with the operation's name; empty: none */
    char description[320];
    unsigned char id[DEVICE_ID_BYTES];
    struct cuda_memory *memory;
    struct cuda_programs *programs;
    struct cuda_staging *staging;
    struct cuda_reduce *reduce;
};

static inline struct cuda_state *cuda_state(struct backend *be)
{
    return (struct cuda_state *)be->state;
}

/* True when an earlier operation failed: the caller returns without enqueuing anything. */
static inline bool cuda_failed(struct backend *be)
{
    return cuda_state(be)->error[0] != 0;
}

/* Keeps the first error, "operation: message (code)". status of a library's call, or of the last launch. */
void cuda_fail(struct backend *be, const char *operation, const char *message);
void cuda_check_status(struct backend *be, const char *operation, cudaError_t status);

/* After an operation's launches. */
static inline void cuda_check(struct backend *be, const char *operation)
{
    cuda_check_status(be, operation, cudaGetLastError());
}

/* Device memory from host memory through page-locked buffers, in the stream's order; host may be reused on return. */
void cuda_upload(struct backend *be, void *device, const void *host, size_t bytes);

/* bytes of the workspace; CHECKs that the plan's room suffices. */
void *cuda_scratch(struct backend *be, size_t bytes);

/* Weights and embeddings are stored by rows of linear_ld(in) elements, zeros behind in: int8 codes, or bf16 for every
 * floating dtype. Rows of activations are not padded: width_multiple makes them multiples of 16 bytes. */
static inline int linear_ld(int in)
{
    return (in + 31) / 32 * 32;
}

static inline int ceil_div(int64_t a, int64_t b)
{
    return (int)((a + b - 1) / b);
}

#endif
