/* RMS norms of q's and k's heads (Qwen3), rotary positions (Su et al., arXiv:2104.09864), forward and back, and the keys' and values' way
 * into the cache.
 *
 *   norm: y = x s w, s = 1 / sqrt(mean(x^2) + eps);  back: g = dy w, dx = s (g - x s^2 mean(g x))
 */
#include "cuda/attention.cuh"
#include "cuda/ops.h"

enum { CHUNKS = 256 }; /* of 16 bytes: a block's share, whole heads; one a thread */

/* Where the heads of q, k and v (part 0, 1, 2) lie: part[] + token * row[] + head * head_stride. */
struct heads_place {
    bf16 *part[3];
    int64_t row[3];
    int head_stride;
};

struct rope {
    int heads, kv_heads, head_dim, half; /* half: of the rotary dimensions; 0: no rotation, no tables */
    float direction;                     /* 1, or -1 for the inverse */
    const float *cosine, *sine;          /* [positions][half] */
    const int32_t *position;
};

/* The cache that keys and values are written to; data NULL: none. */
struct rope_cache {
    bf16 *data;
    int max_tokens;
    const int32_t *slot, *sequence;
};

/* Of a token's head of a part. The index of an array among a kernel's arguments is a constant, or the arguments go to local memory. */
static __device__ __forceinline__ bf16 *head_of(const struct heads_place &x, int part, int token,
                                                int head)
{
    bf16 *const p = part == 0 ? x.part[0] : part == 1 ? x.part[1] : x.part[2];
    const int64_t row = part == 0 ? x.row[0] : part == 1 ? x.row[1] : x.row[2];
    return p + token * row + head * x.head_stride;
}

/* The thread's chunk: dimensions first .. first + 7 of a head, of whose chunks the first is chunk `at` of the block. */
struct chunk {
    int token, position, part, head, first, at;
    bool valid;
};

static __device__ __forceinline__ struct chunk own_chunk(const struct rope &r)
{
    const int chunks = r.head_dim / PACK, per_block = CHUNKS / chunks, local = threadIdx.x / chunks;
    const int any = (int)blockIdx.y * per_block + local,
              part = (any >= r.heads) + (any >= r.heads + r.kv_heads);
    return (struct chunk){
        .token = (int)blockIdx.x,
        .position = r.position[blockIdx.x],
        .part = part,
        .head = any - (part > 0 ? r.heads : 0) - (part > 1 ? r.kv_heads : 0),
        .first = (int)threadIdx.x % chunks * PACK,
        .at = local * chunks,
        .valid = local < per_block && any < r.heads + 2 * r.kv_heads,
    };
}

/* Dimensions first .. first + 7 of a head: v cos -+ partner sin. The partner is head's [hd], with weight: head scale weight. */
static __device__ __forceinline__ void turn(float v[PACK], const bf16 *head, const struct chunk &c,
                                            const struct rope &r, const float *weight, float scale)
{
    const int64_t row = (int64_t)c.position * r.half;
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        const int d = c.first + i;
        if (d >= 2 * r.half)
            return;
        const bool low = d < r.half;
        const int pair = low ? d : d - r.half, other = low ? d + r.half : pair;
        const float sine = r.sine[row + pair] * (low ? -r.direction : r.direction);
        float partner = __bfloat162float(head[other]);
        if (weight)
            partner = partner * scale * weight[other];
        v[i] = fmaf(v[i], r.cosine[row + pair], partner * sine);
    }
}

/* The norms of q and k; neither has a weight: none. */
struct head_norms {
    const float *weight[2]; /* [hd] */
    float eps[2], inverse;  /* inverse: 1 / hd */
};

static __device__ __forceinline__ const float *weight_of(const struct head_norms &n, int part)
{
    return part == 0 ? n.weight[0] : n.weight[1];
}

static __device__ __forceinline__ float dot(const float a[PACK], const float b[PACK])
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PACK; i++)
        sum = fmaf(a[i], b[i], sum);
    return sum;
}

/* Mean over a head of what its threads left of sums. */
static __device__ __forceinline__ float head_mean(const float *sums, const struct chunk &c,
                                                  const struct rope &r, const struct head_norms &n)
{
    float sum = 0;
    for (int i = 0; i < r.head_dim / PACK; i++)
        sum += sums[c.at + i];
    return sum * n.inverse;
}

/* s of a head, of its squares' mean */
static __device__ __forceinline__ float norm_scale(const struct head_norms &n, int part, float mean)
{
    return rsqrtf(mean + (part == 0 ? n.eps[0] : n.eps[1]));
}

/* y = x, q's and k's heads normed (NORMED), then rotated: for i < half, x[i] <- x[i] cos - x[i + half] sin; x[i + half] <- x[i + half] cos
 * + x[i] sin. Rounded to bf16 once. y may lie where x does.
 *   cache != NULL: k's and v's heads also to (slot, position)
 * Block:   one token, as many heads of q | k | v as have 256 chunks of 16 bytes; they pass through shared memory, where a rotated
 *          dimension finds its partner, and a norm its sum
 * Launch:  grid (N, ceil((nh + 2 nkv) / (256 / (hd / 8)))); 256 threads; 4 KiB of static shared memory, NORMED 5
 * Bytes:   reads and writes 2 N (nh + 2 nkv) hd each, 4 N nkv hd more with the cache; bound by memory (4096 tokens of gpt-neox-20b:
 *          302 MB, 403 MB with the cache)
 * Same bits: a row by itself; a head's sum: eight dimensions a thread, then the threads, in ascending order
 * Limits:  hd % 8 == 0, hd <= 2048 (checked by the launcher: 256)
 */
template <bool NORMED>
static __global__ void __launch_bounds__(CHUNKS)
    rope_kernel(struct heads_place to, struct heads_place from, struct rope r,
                struct rope_cache cache, struct head_norms norms)
{
    __shared__ uint4 staged[CHUNKS];
    __shared__ float squares[NORMED ? CHUNKS : 1];
    const struct chunk c = own_chunk(r);
    float v[PACK];
    if (c.valid) {
        staged[threadIdx.x] =
            *(const uint4 *)(head_of(from, c.part, c.token, c.head) + c.first);
        unpack(v, staged[threadIdx.x]);
        if (NORMED)
            squares[threadIdx.x] = dot(v, v);
    }
    __syncthreads();
    if (!c.valid)
        return;
    const float *weight = NULL;
    float scale = 1;
    if (NORMED && c.part < 2) {
        weight = weight_of(norms, c.part);
        scale = norm_scale(norms, c.part, head_mean(squares, c, r, norms));
#pragma unroll
        for (int i = 0; i < PACK; i++)
            v[i] = v[i] * scale * weight[c.first + i];
    }
    if (c.part < 2)
        turn(v, (const bf16 *)&staged[c.at], c, r, weight, scale);
    store_pack(head_of(to, c.part, c.token, c.head) + c.first, v);
    if (cache.data && c.part > 0) {
        const int slot = cache.slot[cache.sequence[c.token]];
        store_pack(cache.data +
                       cache_at(r.kv_heads, r.head_dim, cache.max_tokens, slot, c.head, c.part == 2,
                                c.position) +
                       c.first,
                   v);
    }
}

/* The way back with norms: dx of the projections x, of q's and k's heads rotated back and through the norms, v's as they are.
 *   x: of q and k. Rounded to bf16 once. dx may lie where dy does.
 * Block, Launch: as rope_kernel; 6 KiB of static shared memory
 * Bytes:   reads 2 N (nh + 2 nkv) hd and 2 N (nh + nkv) hd of x, writes 2 N (nh + 2 nkv) hd; bound by memory (4096 tokens of 32 heads of
 *          128 with 8 kv heads: 143 MB)
 * Same bits, Limits: as rope_kernel
 */
static __global__ void __launch_bounds__(CHUNKS)
    rope_norm_backward_kernel(struct heads_place dx, struct heads_place dy, struct heads_place x,
                              struct rope r, struct head_norms norms)
{
    __shared__ uint4 staged[CHUNKS];
    __shared__ float squares[CHUNKS], products[CHUNKS];
    const struct chunk c = own_chunk(r);
    const bool normed = c.valid && c.part < 2;
    float v[PACK] = {}, input[PACK] = {};
    if (c.valid) {
        staged[threadIdx.x] = *(const uint4 *)(head_of(dy, c.part, c.token, c.head) + c.first);
        unpack(v, staged[threadIdx.x]);
    }
    if (normed) {
        load_pack(input, head_of(x, c.part, c.token, c.head) + c.first);
        squares[threadIdx.x] = dot(input, input);
    }
    __syncthreads();
    if (normed) {
        const float *const weight = weight_of(norms, c.part);
        turn(v, (const bf16 *)&staged[c.at], c, r, NULL, 1);
#pragma unroll
        for (int i = 0; i < PACK; i++)
            v[i] *= weight[c.first + i];
        products[threadIdx.x] = dot(v, input);
    }
    __syncthreads();
    if (normed) {
        const float scale = norm_scale(norms, c.part, head_mean(squares, c, r, norms)),
                    along = scale * scale * head_mean(products, c, r, norms);
#pragma unroll
        for (int i = 0; i < PACK; i++)
            v[i] = fmaf(input[i], -along, v[i]) * scale;
    }
    if (c.valid)
        store_pack(head_of(dx, c.part, c.token, c.head) + c.first, v);
}

/* [N][heads * hd] each. */
static struct heads_place apart(const struct attention *a, const bf16 *q, const bf16 *k,
                                const bf16 *v)
{
    const int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    return (struct heads_place){
        {(bf16 *)q, (bf16 *)k, (bf16 *)v}, {(int64_t)a->heads * a->head_dim, kv, kv}, a->head_dim};
}

static struct heads_place projections(const struct attention *a, const bf16 *qkv0, const bf16 *qkv1,
                                      const bf16 *qkv2)
{
    if (a->layout == QKV_SPLIT)
        return apart(a, qkv0, qkv1, qkv2);
    bf16 *x = (bf16 *)qkv0;
    if (a->layout == QKV_FUSED) {
        const int64_t row = (int64_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
        bf16 *keys = x + (int64_t)a->heads * a->head_dim;
        return (struct heads_place){
            {x, keys, keys + (int64_t)a->kv_heads * a->head_dim}, {row, row, row}, a->head_dim};
    }
    CHECK(a->heads == a->kv_heads, "interleaved projections need as many kv heads as heads");
    const int64_t row = 3 * (int64_t)a->heads * a->head_dim;
    return (struct heads_place){
        {x, x + a->head_dim, x + 2 * a->head_dim}, {row, row, row}, 3 * a->head_dim};
}

static struct rope rope_of(const struct attention *a, float direction, const struct batch *b)
{
    CHECK(a->head_dim % PACK == 0 && a->head_dim <= HEAD_DIM_MOST, "a head size of %d",
          a->head_dim);
    CHECK(a->rotary_dims >= 0 && a->rotary_dims <= a->head_dim && a->rotary_dims % 2 == 0,
          "%d rotary dimensions of %d", a->rotary_dims, a->head_dim);
    return (struct rope){a->heads,  a->kv_heads, a->head_dim, a->rotary_dims / 2,
                         direction, a->rope_cos, a->rope_sin, b->position};
}

static struct head_norms norms_of(const struct attention *a)
{
    CHECK(!a->q_norm == !a->k_norm, "a norm of q or of k alone");
    if (!a->q_norm)
        return (struct head_norms){};
    CHECK(a->q_norm->kind == NORM_RMS && a->k_norm->kind == NORM_RMS, "norms of heads other than RMS");
    return (struct head_norms){{a->q_norm->weight, a->k_norm->weight},
                               {a->q_norm->eps, a->k_norm->eps},
                               1.0f / (float)a->head_dim};
}

static dim3 grid_of(const struct attention *a, const struct batch *b)
{
    const int per_block = CHUNKS / (a->head_dim / PACK);
    return dim3((unsigned)b->n_tokens, (unsigned)ceil_div(a->heads + 2 * a->kv_heads, per_block));
}

size_t cuda_cache_bytes(struct backend *be, const struct attention *a, int slots, int max_tokens)
{
    (void)be;
    const size_t bytes = (size_t)slots * (size_t)a->kv_heads * 2 * (size_t)max_tokens *
                         (size_t)a->head_dim * sizeof(bf16);
    return (bytes + 63) / 64 * 64;
}

void cuda_qkv_rope(struct backend *be, act_t *q, act_t *k, act_t *v, const act_t *qkv0,
                   const act_t *qkv1, const act_t *qkv2, const struct attention *a,
                   const struct kv_cache *cache, const struct batch *b)
{
    if (cuda_failed(be))
        return;
    const struct rope_cache into =
        cache ? (struct rope_cache){(bf16 *)cache->data, cache->max_tokens, b->slot, b->sequence}
              : (struct rope_cache){};
    const struct heads_place to = apart(a, q, k, v), from = projections(a, qkv0, qkv1, qkv2);
    if (a->q_norm)
        LAUNCH(rope_kernel<true>, grid_of(a, b), CHUNKS, 0, cuda_state(be)->stream, to, from,
               rope_of(a, 1, b), into, norms_of(a));
    else
        LAUNCH(rope_kernel<false>, grid_of(a, b), CHUNKS, 0, cuda_state(be)->stream, to, from,
               rope_of(a, 1, b), into, norms_of(a));
    cuda_check(be, "qkv_rope");
}

void cuda_qkv_rope_backward(struct backend *be, act_t *dqkv0, act_t *dqkv1, act_t *dqkv2,
                            const act_t *dq, const act_t *dk, const act_t *dv,
                            const act_t *qkv0, const act_t *qkv1, const struct attention *a,
                            const struct batch *b)
{
    if (cuda_failed(be))
        return;
    cudaStream_t stream = cuda_state(be)->stream;
    const struct heads_place dx = projections(a, dqkv0, dqkv1, dqkv2), dy = apart(a, dq, dk, dv);
    CHECK(!a->q_norm || (qkv0 && qkv1 && a->layout == QKV_SPLIT), "norms without the projections");
    if (a->q_norm)
        LAUNCH(rope_norm_backward_kernel, grid_of(a, b), CHUNKS, 0, stream, dx, dy,
               apart(a, qkv0, qkv1, NULL), rope_of(a, -1, b), norms_of(a));
    else
        LAUNCH(rope_kernel<false>, grid_of(a, b), CHUNKS, 0, stream, dx, dy, rope_of(a, -1, b),
               (struct rope_cache){}, norms_of(a));
    cuda_check(be, "qkv_rope_backward");
}
