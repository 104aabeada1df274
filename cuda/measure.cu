/* What the device's memory and tensor cores give at best, for --bench to compare with: a copy, and products by cuBLASLt. */
#include "cuda/ops.h"

enum { REPEATS = 10, MOST_SIZE = 8192 };

static const size_t copied_bytes = (size_t)256 << 20; /* several times the largest cache */
static const size_t blas_scratch_bytes = (size_t)32 << 20;

/* Best seconds of work(), which returns whether it was enqueued; 0: not known. */
template <class F> static double best_sec(struct backend *be, F work)
{
    cudaStream_t stream = cuda_state(be)->stream;
    cudaEvent_t begin, end;
    double best = 0;
    if (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess)
        return 0;
    for (int i = 0; i < REPEATS; i++) {
        float ms = 0;
        cudaEventRecord(begin, stream);
        const bool enqueued = work();
        cudaEventRecord(end, stream);
        cudaEventSynchronize(end);
        cudaEventElapsedTime(&ms, begin, end);
        if (enqueued && ms > 0 && (best == 0 || 1e-3 * ms < best))
            best = 1e-3 * ms;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return best;
}

/* Operations a second of a product of two square matrices in memory, at least 5 size^2 elements of 16 bits. */
static double product_rate(struct backend *be, char *memory, void *scratch, int size, cudaDataType_t type, cublasComputeType_t compute,
                           cudaDataType_t scale, cudaDataType_t out)
{
    struct cuda_state *s = cuda_state(be);
    const size_t element = type == CUDA_R_8I ? 1 : 2, all = (size_t)size * (size_t)size;
    const int32_t one_int = 1, zero_int = 0;
    const float one = 1, zero = 0;
    const bool whole = compute == CUBLAS_COMPUTE_32I;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t in, result;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    if (cublasLtMatmulDescCreate(&how, compute, scale) != CUBLAS_STATUS_SUCCESS)
        return 0;
    cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    cublasLtMatrixLayoutCreate(&in, type, size, size, size);
    cublasLtMatrixLayoutCreate(&result, out, size, size, size);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &blas_scratch_bytes,
                                         sizeof blas_scratch_bytes);
    cublasLtMatmulAlgoGetHeuristic(s->blas, how, in, in, result, result, preference, 1, &found, &n);
    const double sec = n == 0 ? 0 : best_sec(be, [&] {
        return cublasLtMatmul(s->blas, how, whole ? (const void *)&one_int : &one, memory, in, memory + element * all, in,
                       whole ? (const void *)&zero_int : &zero, memory + 2 * element * all, result, memory + 2 * element * all,
                              result, &found.algo, scratch, blas_scratch_bytes, s->stream) == CUBLAS_STATUS_SUCCESS;
    });
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(result);
    cublasLtMatrixLayoutDestroy(in);
    cublasLtMatmulDescDestroy(how);
    return sec > 0 ? 2.0 * size * (double)all / sec : 0;
}

/* Random values, as zeros take less power and run at a higher clock: bf16 of both signs from 0.5 to 2; as int8, every other byte is
 * any. */
static void fill(struct backend *be, char *memory, size_t bytes)
{
    uint16_t value[1 << 15];
    uint64_t random = 1;
    for (uint16_t &v : value) {
        random = random * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
        v = (uint16_t)(0x3f00u | (random >> 40 & 0x80ffu));
    }
    cuda_upload(be, memory, value, sizeof value);
    for (size_t n = sizeof value; n < bytes; n *= 2)
        cudaMemcpyAsync(memory + n, memory, n < bytes - n ? n : bytes - n, cudaMemcpyDeviceToDevice, cuda_state(be)->stream);
}

/* Rows and columns of a product that fills the device several times over. */
static int product_size(void)
{
    struct cudaDeviceProp p;
    int device = 0, size = 64;
    if (cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&p, device) == cudaSuccess)
        size *= p.multiProcessorCount;
    return size < MOST_SIZE ? size : MOST_SIZE;
}

void cuda_measure(struct backend *be, struct device_rates *rates)
{
    char *memory = NULL;
    cudaStream_t stream = cuda_state(be)->stream;
    *rates = (struct device_rates){0, 0, 0};
    if (cuda_failed(be))
        return;
    if (cudaMalloc((void **)&memory, 2 * copied_bytes + blas_scratch_bytes) != cudaSuccess) {
        cudaGetLastError(); /* the plan left too little: rates stay unknown */
        return;
    }
    fill(be, memory, 2 * copied_bytes);
    const double sec = best_sec(be, [&] {
        return cudaMemcpyAsync(memory + copied_bytes, memory, copied_bytes, cudaMemcpyDeviceToDevice, stream) == cudaSuccess;
    });
    rates->copy_bytes_per_sec = sec > 0 ? 2.0 * (double)copied_bytes / sec : 0;
    const int size = product_size();
    void *scratch = memory + 2 * copied_bytes;
    rates->matrix_per_sec = product_rate(be, memory, scratch, size, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF);
    rates->matrix_int8_per_sec = product_rate(be, memory, scratch, size, CUDA_R_8I, CUBLAS_COMPUTE_32I, CUDA_R_32I, CUDA_R_32I);
    cudaStreamSynchronize(stream);
    cudaFree(memory);
    cuda_check(be, "measure");
}
