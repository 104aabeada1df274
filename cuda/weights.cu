/* Storage of weights and embeddings: rows of linear_ld(in) int8 codes or bf16. Rows come from the host as they lie in the file and
 * become what is stored on the device: the host neither converts nor keeps a copy. The codes are those of src/cpu/linear.c. */
#include "cuda/int8.cuh"
#include "cuda/ops.h"

enum { ROW_THREADS = 256 };

/* An f16 value, exactly. */
__device__ __forceinline__ float half_value(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, size = (uint32_t)(h & 0x7fff) << 13;
    if (size >= 0x0f800000) /* infinite, or not a number */
        return __uint_as_float(sign | 0x70000000u | size);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(size) * 0x1p112f)); /* its exponents are 112 lower */
}

template <enum dtype t> __device__ __forceinline__ float value_at(const void *rows, int64_t i)
{
    if (t == DTYPE_F32)
        return ((const float *)rows)[i];
    return t == DTYPE_F16 ? half_value(((const uint16_t *)rows)[i]) : __bfloat162float(((const bf16 *)rows)[i]);
}

/* Rows of any floating dtype to codes.
 *   rows [n][in] -> codes [n][ld] int8, absmax [n];  absmax = max |x|, code = rint(x * (127 / absmax))
 * Block:   one row, read twice (the second time from L2)
 * Launch:  grid n, 256 threads
 * Bytes:   reads 2 or 4 in, writes ld a row; far below the time of the copy to the device
 */
template <enum dtype t> static __global__ void put_codes_kernel(int8_t *codes, float *absmax, const void *rows, int in, int ld)
{
    __shared__ int scratch[WARP];
    const int64_t n = blockIdx.x;
    int most = 0;
    for (int k = threadIdx.x; k < in; k += blockDim.x)
        most = max(most, __float_as_int(value_at<t>(rows, n * in + k)) & 0x7fffffff);
    most = block_reduce<reduce_max>(most, scratch);
    const float factor = code_factor(__int_as_float(most));
    if (threadIdx.x == 0)
        absmax[n] = __int_as_float(most);
    for (int k = threadIdx.x; k < ld; k += blockDim.x)
        codes[n * ld + k] = k < in ? (int8_t)code_of(value_at<t>(rows, n * in + k), factor) : 0;
}

/* Rows of any floating dtype to bf16.
 *   rows [n][in] -> weight [n][ld] bf16
 * Block:   one row
 * Launch:  grid n, 256 threads
 * Bytes:   reads 2 or 4 in, writes 2 ld a row
 */
template <enum dtype t> static __global__ void put_floats_kernel(bf16 *weight, const void *rows, int in, int ld)
{
    const int64_t n = blockIdx.x;
    for (int k = threadIdx.x; k < ld; k += blockDim.x)
        weight[n * ld + k] = __float2bfloat16_rn(k < in ? value_at<t>(rows, n * in + k) : 0.0f);
}

/* Stored rows as floats.
 *   weight [n][ld] -> rows [n][in];  absmax NULL: bf16, else code * (absmax / 127)
 * Block:   one row
 * Launch:  grid n, 256 threads
 * Bytes:   reads ld or 2 ld, writes 4 in a row
 */
static __global__ void get_rows_kernel(float *rows, const void *weight, const float *absmax, int in, int ld)
{
    const int64_t n = blockIdx.x;
    const float scale = absmax ? absmax[n] / 127.0f : 1.0f;
    for (int k = threadIdx.x; k < in; k += blockDim.x)
        rows[n * in + k] =
            absmax ? (float)((const int8_t *)weight)[n * ld + k] * scale : __bfloat162float(((const bf16 *)weight)[n * ld + k]);
}

static size_t row_bytes(const struct linear *l)
{
    return (size_t)linear_ld(l->in) * (l->dtype == DTYPE_I8 ? 1 : sizeof(bf16));
}

size_t cuda_linear_weight_bytes(struct backend *be, const struct linear *l)
{
    (void)be;
    return (size_t)l->out * row_bytes(l);
}

/* Rows of bytes each that the workspace holds. */
static int rows_at_once(struct backend *be, size_t bytes)
{
    const size_t fit = cuda_state(be)->workspace_bytes / bytes;
    CHECK(fit > 0, "rows of %zu bytes, workspace of %zu", bytes, cuda_state(be)->workspace_bytes);
    return fit < 65536 ? (int)fit : 65536;
}

template <enum dtype t> static void put_launch(struct backend *be, struct linear *l, const void *rows, int first, int n)
{
    const int ld = linear_ld(l->in);
    char *to = (char *)l->weight + (size_t)first * row_bytes(l);
    if (l->dtype == DTYPE_I8)
        LAUNCH((put_codes_kernel<t>), n, ROW_THREADS, 0, cuda_state(be)->stream, (int8_t *)to, l->absmax + first, rows, l->in,
               ld);
    else
        LAUNCH((put_floats_kernel<t>), n, ROW_THREADS, 0, cuda_state(be)->stream, (bf16 *)to, rows, l->in, ld);
}

void cuda_linear_put_rows(struct backend *be, struct linear *l, const void *rows, enum dtype dtype, int first, int n)
{
    CHECK(!l->master, "the CUDA backend trains no weights");
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "rows of dtype %d", dtype);
    const size_t bytes = (size_t)l->in * dtype_bytes(dtype);
    const int most = rows_at_once(be, bytes);
    for (int at = 0; at < n && !cuda_failed(be); at += most) {
        const int part = n - at < most ? n - at : most;
        void *landed = cuda_scratch(be, (size_t)part * bytes);
        cuda_upload(be, landed, (const char *)rows + (size_t)at * bytes, (size_t)part * bytes);
        if (dtype == DTYPE_F32)
            put_launch<DTYPE_F32>(be, l, landed, first + at, part);
        else if (dtype == DTYPE_F16)
            put_launch<DTYPE_F16>(be, l, landed, first + at, part);
        else
            put_launch<DTYPE_BF16>(be, l, landed, first + at, part);
        cuda_check(be, "linear_put_rows");
    }
}

void cuda_linear_get_rows(struct backend *be, const struct linear *l, float *rows, int first, int n)
{
    const size_t bytes = (size_t)l->in * sizeof *rows;
    const int most = rows_at_once(be, bytes);
    for (int at = 0; at < n && !cuda_failed(be); at += most) {
        const int part = n - at < most ? n - at : most;
        float *floats = (float *)cuda_scratch(be, (size_t)part * bytes);
        const char *from = (const char *)l->weight + (size_t)(first + at) * row_bytes(l);
        LAUNCH(get_rows_kernel, part, ROW_THREADS, 0, cuda_state(be)->stream, floats, from,
               l->dtype == DTYPE_I8 ? l->absmax + first + at : NULL, l->in, linear_ld(l->in));
        cuda_check(be, "linear_get_rows");
        cuda_copy_out(be, rows + (int64_t)at * l->in, floats, (size_t)part * bytes);
    }
}
