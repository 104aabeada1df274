/* Drawing tokens from the head's logits, a row at a time, all of it on the device.
 *
 * The order of things is the CPU's (src/cpu/head.c): the log-probability is that of all tokens at this temperature, with head.cu's
 * bits; banned end tokens leave; top-k keeps the k largest, of equal ones those of the lower id; top-p keeps the fewest largest of
 * these whose shares add up to p, by the same tie rule; the token is the one in which, in order of ids, the cumulative sum of what is
 * left passes random / 2^32 of the whole. What left has the logit -infinity.
 *
 * Without filters (most runs) a row takes one pass over its logits, the statistics of its parts: the draw finds the part by their
 * sums and reads that part alone. The filters find the smallest logit that stays by a histogram of its distance to the largest, then
 * by the bytes of its bits, without sorting. What they add are integers (counts, or shares in units of 2^-40 of the largest), so that
 * the sums are exact, whatever order the atomics run in.
 */
#include "cuda/gemm.h"
#include "cuda/head.cuh"
#include "cuda/ops.h"

enum {
    FILTER_THREADS = 1024,
    FILTER_WARPS = 32,
    FILTER_LOGITS = 8,    /* a thread's at a time, consecutive */
    FILTER_STRIDE = 8192, /* a block's at a time */
    SLOTS = 1024,         /* of a histogram, one a thread */
    SLOTS_A_UNIT =
        16,    /* first level: slots in a logit difference of 1; the last slot has all beyond 64 */
    LEVELS = 5 /* the first, then the four bytes of the key */
};

/* An unsigned number that grows with the float (never -0: head_scaled). */
__device__ __forceinline__ uint32_t order_key(float z)
{
    const uint32_t bits = __float_as_uint(z);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The smallest logits that stay, as it is found: level by level one slot of the histogram, slot 0 having the largest logits. */
struct edge {
    int slot;                 /* of the first level */
    uint32_t key;             /* the bytes of the key found so far */
    unsigned long long above; /* what the logits of higher slots add up to */
};

__device__ __forceinline__ int first_slot(float z, float max)
{
    return (int)fminf((max - z) * (float)SLOTS_A_UNIT,
                      (float)(SLOTS - 1)); /* grows as z falls, as rounding keeps order */
}

/* Slot of a logit at a level; -1: it is not among those that the levels before have chosen. */
__device__ __forceinline__ int slot_of(float z, float max, int level, const struct edge &e)
{
    const int first = first_slot(z, max);
    if (level == 0)
        return first;
    const uint32_t key = order_key(z);
    const int shift = 8 * (LEVELS - 1 - level);
    if (first != e.slot || (level > 1 && key >> (shift + 8) != e.key))
        return -1;
    return 255 - (int)(key >> shift & 255u);
}

/* What a logit counts in the filter's sum: 1, or its share of the largest in units of 2^-40. */
template <bool by_share> __device__ __forceinline__ unsigned long long weight_of(float z, float max)
{
    return by_share ? (unsigned long long)(head_exp(z, max) * 0x1p40f) : 1ull;
}

/* 64-bit integers in two words of shared memory: atomics of 32 bits are instructions, those of 64 are loops. */
struct histogram {
    unsigned low[SLOTS], high[SLOTS];
};

__device__ __forceinline__ void histogram_add(struct histogram *h, int slot,
                                              unsigned long long weight)
{
    const unsigned low = (unsigned)weight, before = atomicAdd(&h->low[slot], low);
    const unsigned high = (unsigned)(weight >> 32) + (before + low < before);
    if (high)
        atomicAdd(&h->high[slot], high);
}

/* Sum over the threads up to this one, itself included; scratch: one a warp. All threads of a block of FILTER_THREADS. */
template <class T> __device__ __forceinline__ T sum_up_to(T v, T *scratch)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int distance = 1; distance < WARP; distance *= 2) {
        const T lower = __shfl_up_sync(ALL_LANES, v, distance);
        v += lane >= distance ? lower : 0;
    }
    __syncthreads(); /* scratch may still be read by an earlier call */
    if (lane == WARP - 1)
        scratch[warp] = v;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        v += scratch[w];
    return v;
}

struct filter_shared {
    struct histogram held;
    unsigned long long warp[FILTER_WARPS];
    unsigned long long total;
    struct edge edge;
};

/* Removes from a row what is not among the fewest largest logits whose weights add up to the goal, of equal ones the lower ids:
 * goal = k, or the share p of the sum (at least one unit: the largest logit stays). logits are tempered by factor on the way. */
template <bool by_share>
__device__ __forceinline__ void keep_largest(float *logits, int V, float factor, float max, int k,
                                             float p, struct filter_shared *s)
{
    const int t = threadIdx.x;
    unsigned long long goal = (unsigned long long)k;
    struct edge edge = {0, 0, 0};
    for (int level = 0; level < LEVELS; level++) {
        s->held.low[t] = 0;
        s->held.high[t] = 0;
        __syncthreads();
        for (int v = FILTER_LOGITS * t; v < V; v += FILTER_STRIDE) {
            float z[FILTER_LOGITS];
            head_load4(z, logits, v, V, factor);
            head_load4(z + 4, logits, v + 4, V, factor);
#pragma unroll
            for (int i = 0; i < FILTER_LOGITS; i++) {
                const int slot = v + i < V ? slot_of(z[i], max, level, edge) : -1;
                const unsigned long long weight = slot < 0 ? 0 : weight_of<by_share>(z[i], max);
                if (weight)
                    histogram_add(&s->held, slot, weight);
            }
        }
        __syncthreads();
        const unsigned long long held = (unsigned long long)s->held.high[t] << 32 | s->held.low[t];
        const unsigned long long sum = edge.above + sum_up_to(held, s->warp);
        if (by_share && level == 0) {
            if (t == FILTER_THREADS - 1)
                s->total = sum;
            __syncthreads();
            goal = (unsigned long long)ceil((double)p * (double)s->total);
            goal = goal > 1 ? goal : 1;
        }
        if (t == 0)
            s->edge = edge; /* of logits that are not numbers no slot is found: any edge will do */
        __syncthreads();
        if (sum >= goal && sum - held < goal)
            s->edge = {level ? edge.slot : t, level ? edge.key << 8 | (uint32_t)(255 - t) : 0,
                       sum - held};
        __syncthreads();
        edge = s->edge;
    }
    unsigned long long equals = 0; /* of lower ids than this round's */
    for (int first = 0; first < V; first += FILTER_STRIDE) {
        const int v = first + FILTER_LOGITS * t;
        float z[FILTER_LOGITS];
        unsigned long long mine = 0;
        head_load4(z, logits, v, V, factor);
        head_load4(z + 4, logits, v + 4, V, factor);
#pragma unroll
        for (int i = 0; i < FILTER_LOGITS; i++)
            mine += v + i < V && order_key(z[i]) == edge.key;
        const unsigned long long up_to = equals + sum_up_to(mine, s->warp);
        unsigned long long rank = up_to - mine;
#pragma unroll
        for (int i = 0; i < FILTER_LOGITS; i++) {
            if (v + i >= V || order_key(z[i]) > edge.key)
                continue;
            const bool equal = order_key(z[i]) == edge.key;
            if (!equal || edge.above + rank * weight_of<by_share>(z[i], max) >= goal)
                logits[v + i] = -INFINITY;
            rank += equal;
        }
        if (t == FILTER_THREADS - 1)
            s->total = up_to;
        __syncthreads();
        equals = s->total;
    }
}

/* Top-k, then top-p of what it leaves.
 *   logits [n][ld] float: what is excluded becomes -infinity; left [n][parts]: their largest are read
 * Block:   one row, 1024 threads, 8 logits a thread at a time; a filter reads the row six times (from L2)
 * Launch:  grid n; 1024 threads; 8.5 KiB of static shared memory
 * Bytes:   reads 24 n V a filter; bound by the latency of these passes
 * Same bits: sums of integers, exact in any order; of equal logits those of the lower ids stay
 * Limits:  V < 2^23 (the sum of shares)
 */
__global__ void __launch_bounds__(FILTER_THREADS)
    filter_kernel(float *logits, int64_t ld, int V, float factor, const struct head_part *left,
                  int parts, int top_k, float top_p)
{
    __shared__ struct filter_shared s;
    __shared__ float scratch[FILTER_WARPS];
    logits += blockIdx.x * ld;
    left += (int64_t)blockIdx.x * parts;
    float max = -INFINITY;
    for (int p = threadIdx.x; p < parts; p += FILTER_THREADS)
        max = left[p].max > max ? left[p].max : max;
    max = block_reduce<reduce_max>(max, scratch);
    if (top_k > 0 && top_k < V)
        keep_largest<false>(logits, V, factor, max, top_k, 1, &s);
    __syncthreads();
    if (top_p < 1)
        keep_largest<true>(logits, V, factor, max, 0, top_p, &s);
}

/* Sum over the lanes up to this one, itself included. */
__device__ __forceinline__ double warp_sum_up_to(double v)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const double lower = __shfl_up_sync(ALL_LANES, v, distance);
        v += lane >= distance ? lower : 0;
    }
    return v;
}

/* The lowest lane that says yes; else the highest that says maybe; else -1. The same in all lanes. */
__device__ __forceinline__ int choose_lane(bool yes, bool maybe)
{
    const unsigned first = __ballot_sync(ALL_LANES, yes), any = __ballot_sync(ALL_LANES, maybe);
    return first ? __ffs((int)first) - 1 : 31 - __clz((int)any);
}

/* A place in a row: the part, and what the weights before it add up to. */
struct place {
    int part;
    double before;
};

/* The part in which the cumulative sum of e^(z - max) passes the goal (rounding may leave it unpassed: the last part that has any). */
__device__ __forceinline__ struct place find_part(const struct head_part *part, int parts,
                                                  float max, double goal)
{
    struct place at = {0, 0};
    double before = 0;
    for (int first = 0; first < parts; first += WARP) {
        const int p = first + threadIdx.x;
        const double weight =
            p < parts ? (double)part[p].sum * (double)head_exp(part[p].max, max) : 0;
        const double up_to = before + warp_sum_up_to(weight);
        const bool passed = weight > 0 && up_to > goal;
        const int lane = choose_lane(passed, weight > 0);
        if (lane >= 0)
            at = {first + lane, __shfl_sync(ALL_LANES, up_to - weight, lane)};
        if (__any_sync(ALL_LANES, passed))
            break;
        before = __shfl_sync(ALL_LANES, up_to, WARP - 1);
    }
    return at;
}

/* The token of a part in which the sum of e^(z - max), in order of ids, passes the goal; else the last that is left. Each lane has 32
 * consecutive tokens; the sums up to each lane decide the lane, which then goes through its own. */
__device__ __forceinline__ int find_token(const float z[HEAD_LANE], float max, double goal)
{
    double mine = 0;
    for (int i = 0; i < HEAD_LANE; i++)
        mine += (double)head_exp(z[i], max);
    const double up_to = warp_sum_up_to(mine);
    const int lane = choose_lane(mine > 0 && up_to > goal, mine > 0);
    double sum = up_to - mine;
    int token = 0;
    bool passed = false;
    for (int i = 0; i < HEAD_LANE; i++) {
        const double e = (double)head_exp(z[i], max);
        sum += e;
        token = e > 0 && !passed ? i : token;
        passed = passed || (e > 0 && sum > goal);
    }
    return __shfl_sync(ALL_LANES, (int)threadIdx.x * HEAD_LANE + token, lane < 0 ? 0 : lane);
}

/* The lowest token of a part whose logit is the largest of the row. */
__device__ __forceinline__ int find_largest(const float z[HEAD_LANE], float max)
{
    int token = -1;
    for (int i = HEAD_LANE - 1; i >= 0; i--)
        token = z[i] == max ? i : token;
    const int lane = choose_lane(token >= 0, false);
    return __shfl_sync(ALL_LANES, (int)threadIdx.x * HEAD_LANE + token, lane < 0 ? 0 : lane);
}

/* The token of each row and its log-probability.
 *   logits [n][ld] float, all, left [n][parts] -> token [n] int32, logprob [n] float; random NULL: the largest logit
 * Block:   one warp, one row: the parts' sums, then 32 logits a lane of the one part that is hit
 * Launch:  grid n; 32 threads; no shared memory
 * Bytes:   reads 24 parts + 4096 a row; a few microseconds, of waiting
 * Same bits: a row's sums in a written order; log-probability as head_logprob's (head_join of the same parts)
 */
__global__ void __launch_bounds__(WARP)
    draw_kernel(int32_t *token, float *logprob, const float *logits, int64_t ld, int V,
                const struct head_part *all, const struct head_part *left, int parts, float factor,
                const uint32_t *random)
{
    const int64_t row = blockIdx.x;
    logits += row * ld;
    const struct head_row whole = head_join(all + row * parts, parts),
                          rest = head_join(left + row * parts, parts);
    struct place at = {0, 0};
    double goal = 0;
    if (random) {
        goal = (double)random[row] * 0x1p-32 * rest.sum;
        at = find_part(left + row * parts, parts, rest.max, goal);
    } else {
        for (int p = parts - 1; p >= 0; p--)
            at.part = left[row * parts + p].max == rest.max ? p : at.part;
    }
    float z[HEAD_LANE];
    const int first = at.part * HEAD_PART;
#pragma unroll
    for (int i = 0; i < HEAD_LANE; i += 4)
        head_load4(z + i, logits, first + (int)threadIdx.x * HEAD_LANE + i, V, factor);
    const int found =
        first + (random ? find_token(z, rest.max, goal - at.before) : find_largest(z, rest.max));
    if (threadIdx.x > 0)
        return;
    const int32_t v = found >= first && found < V ? found : 0; /* 0 where no logit is a number */
    token[row] = v;
    logprob[row] = (float)((double)head_scaled(logits[v], factor) - whole.lse);
}

void cuda_head_sample(struct backend *be, int32_t *token, float *logprob, const struct linear *head,
                      const act_t *x, int H, const struct head_rows *rows,
                      const struct sampling *how, const uint32_t *random, const uint8_t *banned,
                      const int32_t *eos, int n_eos)
{
    if (cuda_failed(be) || rows->n == 0)
        return;
    const cudaStream_t stream = cuda_state(be)->stream;
    const int V = head->out;
    const bool greedy = how->temperature <= 0;
    const bool filters = !greedy && ((how->top_k > 0 && how->top_k < V) || how->top_p < 1);
    const float factor = 1.0f / (greedy ? 1.0f : how->temperature);
    const struct head_scratch s = head_scratch(be, rows->n, H, V);
    for (int first = 0; first < rows->n; first += s.rows) {
        const int n = rows->n - first < s.rows ? rows->n - first : s.rows;
        gemm_logits(be, s.logits, s.ld, head, 0, V, x, rows->row + first, n);
        head_parts(be, s.all, s.left, &s, V, n, factor, banned ? banned + first : NULL, eos, n_eos);
        if (filters) {
            LAUNCH(filter_kernel, (unsigned)n, FILTER_THREADS, 0, stream, s.logits, s.ld, V, factor,
                   s.left, s.parts, how->top_k, how->top_p);
            head_parts(be, NULL, s.left, &s, V, n, factor, NULL, NULL, 0);
        }
        LAUNCH(draw_kernel, (unsigned)n, WARP, 0, stream, token + first, logprob + first, s.logits,
               s.ld, V, s.all, s.left, s.parts, factor, greedy ? NULL : random + first);
    }
    cuda_check(be, "head_sample");
}
