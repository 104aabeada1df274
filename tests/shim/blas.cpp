/* Products of cuBLASLt: int8 x int8 into int32, in the one form that the library offers for them: column-major, A transposed, B not;
 * m and k multiples of 4, leading dimensions multiples of 4, addresses aligned as the preference said. What it would refuse is refused. */
#include <cublasLt.h>

#include "device_memory.h"
#include "stream.h"

#include <string.h>

struct cublasLtContext {
    int unused;
};

namespace shim {

/* The value of an attribute, of exactly its size. */
template <class T> static cublasStatus_t set(T *field, const void *value, size_t bytes)
{
    if (!value || bytes != sizeof *field)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                            cublasLtMatrixLayout_t d)
{
    if (!desc || !a || !b || !c || !d)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a->rows != b->rows || a->columns != d->rows || b->columns != d->columns ||
        a->ld < (int64_t)a->rows || b->ld < (int64_t)b->rows || d->ld < (int64_t)d->rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool form = desc->transpose_a == CUBLAS_OP_T && desc->transpose_b == CUBLAS_OP_N &&
                      a->order == CUBLASLT_ORDER_COL && b->order == CUBLASLT_ORDER_COL &&
                      d->order == CUBLASLT_ORDER_COL;
    const bool types = desc->compute == CUBLAS_COMPUTE_32I && desc->scale == CUDA_R_32I &&
                       a->type == CUDA_R_8I && b->type == CUDA_R_8I && c->type == CUDA_R_32I &&
                       d->type == CUDA_R_32I;
    const bool sizes =
        a->rows % 4 == 0 && d->rows % 4 == 0 && a->ld % 4 == 0 && b->ld % 4 == 0 && d->ld % 4 == 0;
    return form && types && sizes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* Addresses are multiples of what the algorithm was asked for (without one: of 4). */
static bool aligned(const cublasLtMatmulAlgo_t *algo, const void *a, const void *b, const void *c,
                    const void *d)
{
    const void *const address[4] = {a, b, c, d};
    uint32_t alignment[4] = {4, 4, 4, 4};
    if (algo)
        memcpy(alignment, algo->data, sizeof alignment);
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)address[i] % alignment[i] != 0)
            return false;
    return true;
}

static int32_t dot(const int8_t *a, const int8_t *b, int64_t k)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += a[i] * b[i];
    return sum;
}

} // namespace shim

using namespace shim;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion()
{
    return 130000;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    static const struct {
        cublasStatus_t status;
        const char *name;
    } names[] = {{CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS"},
                 {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED"},
                 {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED"},
                 {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE"},
                 {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH"},
                 {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED"},
                 {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR"},
                 {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED"}};
    for (const auto &n : names)
        if (n.status == status)
            return n.name;
    return "unknown status";
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute,
                                      cudaDataType_t scale)
{
    *desc = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *desc = new cublasLtMatmulDescOpaque_t;
    return cublasLtMatmulDescInit(*desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    return set(attribute == CUBLASLT_MATMUL_DESC_TRANSA ? &desc->transpose_a : &desc->transpose_b,
               value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type,
                                        uint64_t rows, uint64_t columns, int64_t ld)
{
    *layout = {type, rows, columns, ld, CUBLASLT_ORDER_COL};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    *layout = new cublasLtMatrixLayoutOpaque_t;
    return cublasLtMatrixLayoutInit(*layout, type, rows, columns, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t, const void *value,
                                                size_t bytes)
{
    return set(&layout->order, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference)
{
    *preference = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreferenceOpaque_t;
    return cublasLtMatmulPreferenceInit(*preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return set(&preference->workspace_bytes, value, bytes);
    return set(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
               value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    *found = 0;
    if (asked < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t status = check(desc, a, b, c, d))
        return status;
    results[0] = {};
    memcpy(results[0].algo.data, preference->alignment, sizeof preference->alignment);
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *, size_t, cudaStream_t stream)
{
    if (!handle || !alpha || !beta || !c)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t status = check(desc, a_layout, b_layout, c_layout, d_layout))
        return status;
    int32_t one, zero;
    memcpy(&one, alpha, sizeof one);
    memcpy(&zero, beta, sizeof zero);
    if (one != 1 || zero != 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!aligned(algo, a, b, c, d))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!memory_on_device(a) || !memory_on_device(b) || !memory_on_device(d))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    const int64_t m = d_layout->rows, n = d_layout->columns, k = a_layout->rows;
    const int64_t lda = a_layout->ld, ldb = b_layout->ld, ldd = d_layout->ld;
    enqueue(stream, [=] {
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++)
                ((int32_t *)d)[j * ldd + i] =
                    dot((const int8_t *)a + i * lda, (const int8_t *)b + j * ldb, k);
    });
    return CUBLAS_STATUS_SUCCESS;
}
