/* The score head (of values, rewards, classes): w[k] . x + bias[k] of rows of x, and its derivatives. w and bias may lie in the
 * trainable vector, at any offset. */
#include "cuda/fixed.cuh"
#include "cuda/load.cuh"
#include "cuda/ops.h"
#include "cuda/reduce.cuh"

enum { DOT_THREADS = 256, THREADS = 128 };

/* value[i][k] = w[k] . x[row[i]] + bias[k] (bias NULL: without)
 *   x [N][H] bf16, w [K][H] float, row [n]
 * Block:   one row, one class; thread t takes the packs t, t + 256, ... in ascending order, then the block's sum
 * Launch:  grid (n, K), 256 threads
 * Bytes:   reads 2nHK, x from L2 after the first class; w from L1 or L2; bound by memory
 * Same bits: a row's value depends on the row alone
 * Limits:  H % 8 == 0 (checked by the launcher)
 */
__global__ void __launch_bounds__(DOT_THREADS)
    score_head_kernel(float *value, const float *w, const float *bias, const bf16 *x, int H, const int32_t *row)
{
    __shared__ float scratch[DOT_THREADS / WARP];
    const bf16 *from = x + (int64_t)row[blockIdx.x] * H;
    w += (int64_t)blockIdx.y * H;
    float sum = 0;
    for (int k = threadIdx.x * PACK; k < H; k += DOT_THREADS * PACK) {
        float v[PACK];
        load_pack(v, from + k);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            sum = fmaf(v[j], w[k + j], sum);
    }
    sum = block_reduce<reduce_sum>(sum, scratch);
    if (threadIdx.x == 0)
        value[(int64_t)blockIdx.x * gridDim.y + blockIdx.y] = bias ? sum + bias[blockIdx.y] : sum;
}

/* dx[row[i]] += sum over k of dvalue[i][k] w[k], rounded to bf16 once. No row occurs twice.
 * Block:   128 packs of one row, one a thread
 * Launch:  grid (n, ceil(H / 1024)), 128 threads
 * Bytes:   reads and writes 2nH; bound by memory
 * Same bits, Limits: as score_head_kernel
 */
__global__ void score_dx_kernel(bf16 *dx, const float *dvalue, const float *w, int K, int H, const int32_t *row)
{
    const int k = ((int)blockIdx.y * THREADS + (int)threadIdx.x) * PACK;
    if (k >= H)
        return;
    bf16 *at = dx + (int64_t)row[blockIdx.x] * H + k;
    float v[PACK];
    load_pack(v, at);
    for (int c = 0; c < K; c++) {
        const float d = dvalue[(int64_t)blockIdx.x * K + c];
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] = fmaf(d, w[(int64_t)c * H + k + j], v[j]);
    }
    store_pack(at, v);
}

/* The gradients of w and bias: rows are in the order of sequences, and each run of rows of one sequence is one contribution,
 * summed in float in the order of rows.
 * Block:   one class; 128 packs of columns, and the bias as one more, of the run that starts at row blockIdx.x; blocks of other rows return
 * Launch:  grid (n, ceil((H / 8 + 1) / 128), K), 128 threads
 * Bytes:   reads 2nHK, adds 8HK a sequence; bound by latency, four loads in flight a thread
 * Same bits: written order, then integers
 * Limits:  H % 8 == 0 (checked by the launcher)
 */
__global__ void __launch_bounds__(THREADS)
    score_gradient_kernel(struct grads g, int64_t offset, bool no_bias, const float *dvalue, const bf16 *x, int H,
                          const int32_t *row, int n, const int32_t *sequence)
{
    __shared__ int first_behind;
    const int first = blockIdx.x, mine = sequence[row[first]];
    if (first > 0 && sequence[row[first - 1]] == mine)
        return;
    if (threadIdx.x == 0)
        first_behind = n;
    __syncthreads();
    for (int i = first + (int)threadIdx.x; i < n; i += THREADS) {
        if (sequence[row[i]] != mine) {
            atomicMin(&first_behind, i);
            break;
        }
    }
    __syncthreads();
    const int end = first_behind, k = ((int)blockIdx.y * THREADS + (int)threadIdx.x) * PACK;
    const int K = (int)gridDim.z, c = (int)blockIdx.z;
    if (k > H || (k == H && no_bias))
        return;
    if (k == H) {
        float bias = 0;
        for (int i = first; i < end; i++)
            bias += dvalue[(int64_t)i * K + c];
        grads_add_atomic(g, offset + (int64_t)K * H + c, bias);
        return;
    }
    float sum[PACK] = {0};
#pragma unroll 4
    for (int i = first; i < end; i++) {
        float v[PACK];
        load_pack(v, x + (int64_t)row[i] * H + k);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            sum[j] = fmaf(dvalue[(int64_t)i * K + c], v[j], sum[j]);
    }
#pragma unroll
    for (int j = 0; j < PACK; j++)
        grads_add_atomic(g, offset + (int64_t)c * H + k + j, sum[j]);
}

void cuda_score_head(struct backend *be, float *value, const float *w, const float *bias, int K, const act_t *x, int H,
                     const struct head_rows *rows)
{
    if (cuda_failed(be) || !rows->n)
        return;
    CHECK(H % PACK == 0, "a score head on %d columns", H);
    LAUNCH(score_head_kernel, dim3(rows->n, K), DOT_THREADS, 0, cuda_state(be)->stream, value, w, bias, x, H, rows->row);
    cuda_check(be, "score_head");
}

void cuda_score_head_backward(struct backend *be, act_t *dx, const float *dvalue, const float *w, int K, const act_t *x, int H,
                              const struct head_rows *rows, struct grads *g, int64_t offset, bool no_bias, const struct batch *b)
{
    if (cuda_failed(be) || !rows->n)
        return;
    CHECK(H % PACK == 0, "a score head on %d columns", H);
    cudaStream_t stream = cuda_state(be)->stream;
    LAUNCH(score_dx_kernel, dim3(rows->n, ceil_div(H / PACK, THREADS)), THREADS, 0, stream, dx, dvalue, w, K, H, rows->row);
    LAUNCH(score_gradient_kernel, dim3(rows->n, ceil_div(H / PACK + 1, THREADS), K), THREADS, 0, stream, *g, offset, no_bias, dvalue,
           x, H, rows->row, rows->n, b->sequence);
    cuda_check(be, "score_head_backward");
}
