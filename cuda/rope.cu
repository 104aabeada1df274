/* Rotary positions (Su et al., arXiv:2104.09864), forward and back, and the keys' and values' way into the cache. */
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
    int heads, kv_heads, head_dim, half; /* half: of the rotary dimensions */
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

/* The thread's chunk, dimensions first .. first + 7 of a head of which shared memory holds all: x cos -+ partner sin. */
static __device__ __forceinline__ void turn(float v[PACK], const bf16 *head, int first,
                                            const struct rope *r, int position)
{
    const int64_t row = (int64_t)position * r->half;
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        const int d = first + i;
        if (d >= 2 * r->half)
            return;
        const bool low = d < r->half;
        const int pair = low ? d : d - r->half;
        const float sine = r->sine[row + pair] * (low ? -r->direction : r->direction);
        v[i] = fmaf(v[i], r->cosine[row + pair],
                    __bfloat162float(head[low ? d + r->half : pair]) * sine);
    }
}

/* Of a token's head of a part. The index of an array among a kernel's arguments is a constant, or the arguments go to local memory. */
static __device__ __forceinline__ bf16 *head_of(const struct heads_place &x, int part, int token,
                                                int head)
{
    bf16 *const p = part == 0 ? x.part[0] : part == 1 ? x.part[1] : x.part[2];
    const int64_t row = part == 0 ? x.row[0] : part == 1 ? x.row[1] : x.row[2];
    return p + token * row + head * x.head_stride;
}

/* y = x, q's and k's heads rotated: for i < half, x[i] <- x[i] cos - x[i + half] sin; x[i + half] <- x[i + half] cos + x[i] sin.
 * Rounded to bf16 once. y may lie where x does.
 *   cache != NULL: k's and v's heads also to (slot, position)
 * Block:   one token, as many heads of q | k | v as have 256 chunks of 16 bytes; they pass through shared memory, where a rotated
 *          dimension finds its partner
 * Launch:  grid (N, ceil((nh + 2 nkv) / (256 / (hd / 8)))); 256 threads; 4 KiB of static shared memory
 * Bytes:   reads and writes 2 N (nh + 2 nkv) hd each, 4 N nkv hd more with the cache; bound by memory (4096 tokens of gpt-neox-20b:
 *          302 MB, 403 MB with the cache)
 * Same bits: a row by itself
 * Limits:  hd % 8 == 0, hd <= 2048 (checked by the launcher: 256)
 */
static __global__ void __launch_bounds__(CHUNKS)
    rope_kernel(struct heads_place to, struct heads_place from, struct rope r,
                struct rope_cache cache)
{
    __shared__ uint4 staged[CHUNKS];
    const int chunks = r.head_dim / PACK, per_block = CHUNKS / chunks, local = threadIdx.x / chunks;
    const int token = blockIdx.x, position = r.position[token],
              any = (int)blockIdx.y * per_block + local, first = (int)threadIdx.x % chunks * PACK;
    const bool valid = local < per_block && any < r.heads + 2 * r.kv_heads;
    const int part = (any >= r.heads) + (any >= r.heads + r.kv_heads);
    const int head = any - (part > 0 ? r.heads : 0) - (part > 1 ? r.kv_heads : 0);
    if (valid)
        staged[threadIdx.x] = *(const uint4 *)(head_of(from, part, token, head) + first);
    __syncthreads();
    if (!valid)
        return;
    float v[PACK];
    load_pack(v, (const bf16 *)&staged[threadIdx.x]);
    if (part < 2)
        turn(v, (const bf16 *)&staged[local * chunks], first, &r, position);
    store_pack(head_of(to, part, token, head) + first, v);
    if (cache.data && part > 0) {
        const int slot = cache.slot[cache.sequence[token]];
        store_pack(cache.data +
                       cache_at(r.kv_heads, r.head_dim, cache.max_tokens, slot, head, part == 2,
                                position) +
                       first,
                   v);
    }
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

static void launch_rope(struct backend *be, struct heads_place to, struct heads_place from,
                        const struct attention *a, float direction, struct rope_cache cache,
                        const struct batch *b)
{
    CHECK(a->head_dim % PACK == 0 && a->head_dim <= HEAD_DIM_MOST, "a head size of %d",
          a->head_dim);
    CHECK(a->rotary_dims >= 0 && a->rotary_dims <= a->head_dim && a->rotary_dims % 2 == 0,
          "%d rotary dimensions of %d", a->rotary_dims, a->head_dim);
    const struct rope r = {a->heads,  a->kv_heads, a->head_dim, a->rotary_dims / 2,
                           direction, a->rope_cos, a->rope_sin, b->position};
    const int per_block = CHUNKS / (a->head_dim / PACK);
    LAUNCH(rope_kernel,
           dim3((unsigned)b->n_tokens, (unsigned)ceil_div(a->heads + 2 * a->kv_heads, per_block)),
           CHUNKS, 0, cuda_state(be)->stream, to, from, r, cache);
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
    launch_rope(be, apart(a, q, k, v), projections(a, qkv0, qkv1, qkv2), a, 1, into, b);
    cuda_check(be, "qkv_rope");
}

void cuda_qkv_rope_backward(struct backend *be, act_t *dqkv0, act_t *dqkv1, act_t *dqkv2,
                            const act_t *dq, const act_t *dk, const act_t *dv,
                            const act_t *qkv0, const act_t *qkv1, const struct attention *a,
                            const struct batch *b)
{
    (void)qkv0;
    (void)qkv1;
    if (cuda_failed(be))
        return;
    launch_rope(be, projections(a, dqkv0, dqkv1, dqkv2), apart(a, dq, dk, dv), a, -1,
                (struct rope_cache){}, b);
    cuda_check(be, "qkv_rope_backward");
}
