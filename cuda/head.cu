/* Log-probabilities of the language-model head and the way back; sampling.cu draws from the same logits.
 *
 * Logits are made for so many rows at a time as the scratch holds (at most ROWS), over the whole vocabulary: the weights are read
 * once for all of these rows, a row's statistics and its gradient need no second product, and [n][V] never exists whole. The
 * gradients of the logits, in bf16, take the place of the logits.
 * The products are gemm.cu's. What is hard: the same bits whatever the number of rows, in evaluation and in sampling (head.cuh).
 */
#include "cuda/gemm.h"
#include "cuda/head.cuh"
#include "cuda/ops.h"

enum {
    ROWS = 1024,              /* at a time: products take their largest tiles from 512 on, and read the weights once a round */
    ROWS_STEP = 64,           /* whole tiles of the products; so many at least */
    SCRATCH_MOST = 640 << 20, /* bytes: ROWS rows of 150 thousand tokens */
    PART_WARPS = 4,           /* parts_kernel */
    PART_THREADS = 128,
    SLOPE_THREADS = 512, /* slope_kernel */
    SLOPE_TOKENS = 4096, /* SLOPE_THREADS * PACK */
    THREADS = 256,       /* scatter_kernel, scaled_slope_kernel */
    COLUMNS = 2048       /* THREADS * PACK */
};

static int64_t vocabulary_ld(int V)
{
    return ((int64_t)V + 63) / 64 * 64;
}

static size_t row_bytes(int H, int V)
{
    return (size_t)vocabulary_ld(V) * sizeof(float) + (size_t)H * sizeof(float) +
           2 * (size_t)ceil_div(V, HEAD_PART) * sizeof(struct head_part);
}

static int rows_at_once(int H, int V)
{
    const int steps = (int)(SCRATCH_MOST / row_bytes(H, V) / ROWS_STEP);
    return steps < 1 ? +ROWS_STEP : steps < ROWS / ROWS_STEP ? steps * ROWS_STEP : +ROWS;
}

size_t cuda_head_workspace(struct backend *be, int max_tokens, int hidden, int vocab)
{
    (void)be;
    const int most = rows_at_once(hidden, vocab);
    const int rows = max_tokens < ROWS_STEP ? ROWS_STEP : max_tokens;
    return (size_t)(rows < most ? rows : most) * row_bytes(hidden, vocab);
}

struct head_scratch head_scratch(struct backend *be, int n, int H, int V)
{
    const size_t each = row_bytes(H, V), hold = cuda_state(be)->workspace_bytes / each;
    struct head_scratch s;
    s.rows = rows_at_once(H, V);
    s.rows = n < s.rows ? n : s.rows;
    s.rows = hold < (size_t)s.rows && hold > 0 ? (int)hold : s.rows;
    s.parts = ceil_div(V, HEAD_PART);
    s.ld = vocabulary_ld(V);
    s.logits = (float *)cuda_scratch(be, (size_t)s.rows * each);
    s.dx = s.logits + s.rows * s.ld;
    s.all = (struct head_part *)(s.dx + (int64_t)s.rows * H);
    s.left = s.all + (int64_t)s.rows * s.parts;
    return s;
}

/* Statistics of a warp's part, z its lanes' logits: each lane in ascending order, then the butterfly. Every lane gets them. */
__device__ __forceinline__ struct head_part part_of(const float z[HEAD_LANE])
{
    struct head_part p = {-INFINITY, 0, 0};
#pragma unroll
    for (int i = 0; i < HEAD_LANE; i++)
        p.max = z[i] > p.max ? z[i] : p.max;
    p.max = warp_reduce<reduce_max>(p.max);
#pragma unroll
    for (int i = 0; i < HEAD_LANE; i++) {
        const float e = head_exp(z[i], p.max);
        p.sum += e;
        p.weighted = z[i] == -INFINITY ? p.weighted : fmaf(e, z[i] - p.max, p.weighted);
    }
    p.sum = warp_reduce<reduce_sum>(p.sum);
    p.weighted = warp_reduce<reduce_sum>(p.weighted);
    return p;
}

/* Statistics of the parts of the vocabulary (head.cuh), and the removal of banned tokens.
 *   logits [n][ld] float -> all, left [n][parts]
 * Block:   4 warps, a warp one part of one row: 32 logits a lane in registers (lane l has 4 l .. 4 l + 3 of each 128), no barrier
 * Launch:  grid (ceil(parts / 4), n); 128 threads; no shared memory
 * Bytes:   reads 4 n V, writes 24 n parts; bound by memory (n = 1024, V = 50432: 207 MB)
 * Same bits: a part's order is fixed and counted from token 0; nothing depends on n or on other rows
 * Limits:  n <= 65535 (head_scratch gives at most ROWS)
 */
__global__ void __launch_bounds__(PART_THREADS)
    parts_kernel(struct head_part *all, struct head_part *left, float *logits, int64_t ld, int V,
                 int parts, float factor, const uint8_t *banned, const int32_t *eos, int n_eos)
{
    const int p = blockIdx.x * PART_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (p >= parts)
        return;
    const int64_t row = blockIdx.y, place = row * parts + p;
    const int first = p * HEAD_PART + 4 * lane;
    logits += row * ld;
    float z[HEAD_LANE];
#pragma unroll
    for (int i = 0; i < HEAD_LANE / 4; i++)
        head_load4(z + 4 * i, logits, first + 4 * WARP * i, V, factor);
    struct head_part found = part_of(z);
    if (all && lane == 0)
        all[place] = found;
    if (!left)
        return;
    bool struck = false; /* the same in all lanes */
    for (int e = 0; banned && banned[row] && e < n_eos; e++) {
        if (eos[e] / HEAD_PART != p)
            continue;
        struck = true;
#pragma unroll
        for (int i = 0; i < HEAD_LANE; i++)
            z[i] = first + 4 * WARP * (i / 4) + i % 4 == eos[e] ? -INFINITY : z[i];
        if (lane == 0)
            logits[eos[e]] = -INFINITY;
    }
    if (struck)
        found = part_of(z);
    if (lane == 0)
        left[place] = found;
}

void head_parts(struct backend *be, struct head_part *all, struct head_part *left,
                const struct head_scratch *s, int V, int n, float factor, const uint8_t *banned,
                const int32_t *eos, int n_eos)
{
    LAUNCH(parts_kernel, dim3((unsigned)ceil_div(s->parts, PART_WARPS), (unsigned)n), PART_THREADS,
           0, cuda_state(be)->stream, all, left, s->logits, s->ld, V, s->parts, factor, banned, eos,
           n_eos);
}

/* Log-probability of the target, entropy and logsumexp of each row, from its parts.
 *   logits [n][ld], part [n][parts] -> logprob, entropy, lse [n] float
 * Block:   one warp, one row (head_join)
 * Launch:  grid n; 32 threads; no shared memory
 * Bytes:   reads 12 n parts; a few microseconds, of waiting
 * Same bits: a function of the row's parts
 */
__global__ void __launch_bounds__(WARP)
    logprob_kernel(float *logprob, float *entropy, float *lse, const float *logits, int64_t ld,
                   const struct head_part *part, int parts, const int32_t *target, float factor)
{
    const int64_t row = blockIdx.x;
    const struct head_row r = head_join(part + row * parts, parts);
    if (threadIdx.x > 0)
        return;
    logprob[row] = (float)((double)head_scaled(logits[row * ld + target[row]], factor) - r.lse);
    entropy[row] = (float)r.entropy;
    lse[row] = (float)r.lse;
}

/* A row's gradients by log-probability (g) and entropy (h); NULL: every g is 1, every h is 0. */
struct row_weights {
    const float *dlogprob, *dentropy, *lse, *entropy;
};

__device__ __forceinline__ bool row_is_idle(const struct row_weights &w, int64_t row)
{
    return w.dlogprob && w.dlogprob[row] == 0 && !(w.dentropy && w.dentropy[row] != 0);
}

/* Gradients of the logits, in their place.
 *   d[v] = factor (g ([v = target] - p_v) - h p_v (log p_v + entropy)),  p_v = e^(z_v - lse)
 *   logits [n][ld] float become d [n][2 ld] bf16, of which the first ld of a row are written, zeros from V on; rows with g = h = 0
 *   are left as they are
 * Block:   one row, 4096 tokens at a time, 8 a thread. What is written lies over logits that were read before: of the same 4096 (the
 *          barrier) or earlier ones
 * Launch:  grid n; 512 threads; no shared memory
 * Bytes:   reads 4 n V, writes 2 n V; bound by memory (n = 1024, V = 50432: 310 MB)
 * Same bits: element by element
 */
__global__ void __launch_bounds__(SLOPE_THREADS)
    slope_kernel(float *logits, int64_t ld, int V, struct row_weights w, const int32_t *target,
                 float factor)
{
    const int64_t row = blockIdx.x;
    if (row_is_idle(w, row))
        return;
    const float g = w.dlogprob ? w.dlogprob[row] * factor : factor,
                h = w.dentropy ? w.dentropy[row] * factor : 0;
    const float lse = w.lse[row], entropy = w.dentropy ? w.entropy[row] : 0;
    const int at = target[row];
    logits += row * ld;
    for (int first = 0; first < ld; first += SLOPE_TOKENS) {
        const int v = first + (int)threadIdx.x * PACK;
        float z[PACK], out[PACK];
        head_load4(z, logits, v, V, factor);
        head_load4(z + 4, logits, v + 4, V, factor);
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            const float log_p = z[i] - lse, slope = fmaf(-h, log_p + entropy, -g);
            out[i] = z[i] == -INFINITY ? 0.0f : fmaf(expf(log_p), slope, v + i == at ? g : 0.0f);
        }
        __syncthreads();
        if (v < ld)
            store_pack((bf16 *)logits + v, out);
    }
}

/* Rows of float to where they belong, rounded to bf16.
 *   y[row[i]] += from[i] where the row has a gradient; row NULL: y[i] = from[i]
 *   from [n][H] float; y [.][H] bf16; row [n] distinct
 * Block:   2048 columns of a row, 8 a thread
 * Launch:  grid (ceil(H / 2048), n); 256 threads; no shared memory
 * Bytes:   8 n H; bound by memory, small beside the product that made `from`
 * Same bits: element by element
 * Limits:  H % 8 == 0
 */
__global__ void __launch_bounds__(THREADS)
    scatter_kernel(bf16 *y, const float *from, int H, const int32_t *row, struct row_weights w)
{
    const int64_t i = blockIdx.y;
    const int k = (blockIdx.x * THREADS + threadIdx.x) * PACK;
    if (k >= H || row_is_idle(w, i))
        return;
    from += i * H + k;
    y += (row ? row[i] : i) * H + k;
    float v[PACK] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (row)
        load_pack(v, y);
    const float4 low = *(const float4 *)from, high = *(const float4 *)(from + 4);
    v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
    v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
    store_pack(y, v);
}

/* dx[row[i]] += dlogprob[i] * slope[i] where dlogprob[i] is not zero.
 *   slope [n][H] bf16; dx [.][H] bf16; row [n] distinct
 * Block:   2048 columns of a row, 8 a thread
 * Launch:  grid (n, ceil(H / 2048)); 256 threads; no shared memory
 * Bytes:   6 n H; bound by memory (n = 4096, H = 6144: 151 MB)
 * Same bits: element by element
 * Limits:  H % 8 == 0
 */
__global__ void __launch_bounds__(THREADS)
    scaled_slope_kernel(bf16 *dx, const float *dlogprob, const bf16 *slope, int H,
                        const int32_t *row)
{
    const int64_t i = blockIdx.x;
    const int k = (blockIdx.y * THREADS + threadIdx.x) * PACK;
    const float d = dlogprob[i];
    if (k >= H || d == 0)
        return;
    float s[PACK], v[PACK];
    dx += (int64_t)row[i] * H + k;
    load_pack(s, slope + i * H + k);
    load_pack(v, dx);
#pragma unroll
    for (int j = 0; j < PACK; j++)
        v[j] = fmaf(d, s[j], v[j]);
    store_pack(dx, v);
}

/* Gradients of n rows of s->logits through the head, in s->dx, then to y (scatter_kernel). */
static void backward_rows(struct backend *be, act_t *y, const int32_t *row,
                          const struct head_scratch *s, const struct linear *head, int n,
                          const struct row_weights *w, const int32_t *target, float factor)
{
    const cudaStream_t stream = cuda_state(be)->stream;
    const int H = head->in;
    LAUNCH(slope_kernel, (unsigned)n, SLOPE_THREADS, 0, stream, s->logits, s->ld, head->out, *w,
           target, factor);
    cudaMemsetAsync(s->dx, 0, (size_t)n * (size_t)H * sizeof(float), stream);
    gemm_logits_backward(be, s->dx, head, 0, head->out, (const bf16 *)s->logits, 2 * s->ld, n);
    LAUNCH(scatter_kernel, dim3((unsigned)ceil_div(H, COLUMNS), (unsigned)n), THREADS, 0, stream, y,
           s->dx, H, row, *w);
}

static int rows_from(const struct head_rows *rows, const struct head_scratch *s, int first)
{
    return rows->n - first < s->rows ? rows->n - first : s->rows;
}

void cuda_head_logprob(struct backend *be, float *logprob, float *entropy, float *lse, act_t *slope,
                       const struct linear *head, const act_t *x, int H,
                       const struct head_rows *rows, float temperature)
{
    if (cuda_failed(be) || rows->n == 0)
        return;
    const float factor = 1.0f / temperature;
    const struct head_scratch s = head_scratch(be, rows->n, H, head->out);
    for (int first = 0; first < rows->n; first += s.rows) {
        const int n = rows_from(rows, &s, first);
        const int32_t *target = rows->target + first;
        gemm_logits(be, s.logits, s.ld, head, 0, head->out, x, rows->row + first, n);
        head_parts(be, s.all, NULL, &s, head->out, n, factor, NULL, NULL, 0);
        LAUNCH(logprob_kernel, (unsigned)n, WARP, 0, cuda_state(be)->stream, logprob + first,
               entropy + first, lse + first, s.logits, s.ld, s.all, s.parts, target, factor);
        if (!slope)
            continue;
        const struct row_weights w = {NULL, NULL, lse + first, NULL};
        backward_rows(be, slope + (int64_t)first * H, NULL, &s, head, n, &w, target, factor);
    }
    cuda_check(be, "head_logprob");
}

void cuda_head_logits(struct backend *be, float *logits, const struct linear *head, const act_t *x,
                      int H, const struct head_rows *rows)
{
    (void)H;
    if (cuda_failed(be) || rows->n == 0)
        return;
    gemm_logits(be, logits, head->out, head, 0, head->out, x, rows->row, rows->n);
    cuda_check(be, "head_logits");
}

void cuda_head_logprob_backward(struct backend *be, act_t *dx, const float *dlogprob,
                                const float *dentropy, const float *lse, const float *entropy,
                                const struct linear *head, const act_t *x, int H,
                                const struct head_rows *rows, float temperature, struct grads *g,
                                const struct batch *b)
{
    (void)g;
    (void)b;
    CHECK(!head->master, "the CUDA backend trains no head");
    if (cuda_failed(be) || rows->n == 0)
        return;
    const float factor = 1.0f / temperature;
    const struct head_scratch s = head_scratch(be, rows->n, H, head->out);
    for (int first = 0; first < rows->n; first += s.rows) {
        const int n = rows_from(rows, &s, first);
        const struct row_weights w = {dlogprob + first, dentropy ? dentropy + first : NULL,
                                      lse + first, entropy + first};
        gemm_logits(be, s.logits, s.ld, head, 0, head->out, x, rows->row + first, n);
        backward_rows(be, dx, rows->row + first, &s, head, n, &w, rows->target + first, factor);
    }
    cuda_check(be, "head_logprob_backward");
}

void cuda_head_slope_backward(struct backend *be, act_t *dx, const float *dlogprob,
                              const act_t *slope, int H, const struct head_rows *rows)
{
    if (cuda_failed(be) || rows->n == 0)
        return;
    LAUNCH(scaled_slope_kernel, dim3((unsigned)rows->n, (unsigned)ceil_div(H, COLUMNS)), THREADS, 0,
           cuda_state(be)->stream, dx, dlogprob, slope, H, rows->row);
    cuda_check(be, "head_slope_backward");
}
