/* What the language-model head's log-probabilities (head.cu) and its sampling (sampling.cu) share, so that both see the same bits.
 *
 * The vocabulary is cut into parts of 1024 tokens, counted from token 0. A warp makes the statistics of a part (of one row), another
 * one joins the parts of a row; both in a written order, in which neither the other rows nor the number of rows handled at once
 * occur. Logits are kept as the product left them; whoever reads them divides by the temperature through head_scaled. Multiplications
 * whose results are added are fmaf or fma by name: nothing is left for the compiler to contract in one place and not in the other.
 */
#ifndef RLHF_CUDA_HEAD_CUH
#define RLHF_CUDA_HEAD_CUH

#include "cuda/cuda.h"
#include "cuda/load.cuh"
#include "cuda/reduce.cuh"

enum {
    HEAD_PART = 1024,            /* tokens of the vocabulary */
    HEAD_LANE = HEAD_PART / WARP /* of them, a lane's */
};

/* Of the logits z (tempered) of a part of a row. max -infinity, sums 0: no token is left in it. */
struct head_part {
    float max;
    float sum;      /* of e^(z - max) */
    float weighted; /* of e^(z - max) (z - max) */
};

/* Scratch for the rows that are handled at once. */
struct head_scratch {
    int rows, parts;
    int64_t ld;    /* of logits: the vocabulary, rounded up to 64 */
    float *logits; /* [rows][ld], not tempered; in the way back d, bf16 [rows][2 ld] */
    float *dx;     /* [rows][H] */
    struct head_part *all, *left; /* [rows][parts]: of all tokens; of those that may be drawn */
};

/* Scratch for at most n rows: as many at a time as are worth it and as the workspace holds. */
struct head_scratch head_scratch(struct backend *be, int n, int H, int V);

/* Statistics of every part of n rows of s->logits, divided by the temperature, into all and left (each may be NULL). With left, the
 * rows i with banned[i] lose the n_eos tokens eos: their logits become -infinity once `all` has them. banned NULL: none. */
void head_parts(struct backend *be, struct head_part *all, struct head_part *left,
                const struct head_scratch *s, int V, int n, float factor, const uint8_t *banned,
                const int32_t *eos, int n_eos);

/* logit * factor, never fused with what follows; -0 becomes 0. factor: 1 / temperature. */
__device__ __forceinline__ float head_scaled(float logit, float factor)
{
    return fmaf(logit, factor, 0.0f);
}

/* e^(z - max); 0 for a token that is left out, whatever max is. */
__device__ __forceinline__ float head_exp(float z, float max)
{
    return z == -INFINITY ? 0.0f : expf(z - max);
}

/* Tempered logits v .. v + 3 of a row, v % 4 == 0; -infinity from V on. */
__device__ __forceinline__ void head_load4(float z[4], const float *logits, int v, int V,
                                           float factor)
{
    const float4 raw = v < V ? *(const float4 *)(logits + v) : make_float4(0, 0, 0, 0);
    z[0] = v < V ? head_scaled(raw.x, factor) : -INFINITY;
    z[1] = v + 1 < V ? head_scaled(raw.y, factor) : -INFINITY;
    z[2] = v + 2 < V ? head_scaled(raw.z, factor) : -INFINITY;
    z[3] = v + 3 < V ? head_scaled(raw.w, factor) : -INFINITY;
}

struct head_row {
    float max;
    double sum; /* of e^(z - max) over the vocabulary */
    double lse, entropy;
};

/* What the parts of one row are together, by a warp: lane l takes parts l, l + 32, .. in ascending order, then the butterfly. */
__device__ __forceinline__ struct head_row head_join(const struct head_part *part, int parts)
{
    const int lane = threadIdx.x % WARP;
    struct head_row r;
    float max = -INFINITY;
    for (int p = lane; p < parts; p += WARP)
        max = part[p].max > max ? part[p].max : max;
    r.max = warp_reduce<reduce_max>(max);
    double sum = 0, weighted = 0;
    for (int p = lane; p < parts; p += WARP) {
        const struct head_part one = part[p];
        if (one.sum == 0)
            continue;
        const double d = (double)one.max - (double)r.max, share = (double)expf((float)d);
        sum = fma((double)one.sum, share, sum);
        weighted = fma(fma((double)one.sum, d, (double)one.weighted), share, weighted);
    }
    r.sum = warp_reduce<reduce_sum>(sum);
    weighted = warp_reduce<reduce_sum>(weighted);
    const double log_sum = log(r.sum);
    r.lse = (double)r.max + log_sum;
    r.entropy = log_sum - weighted / r.sum;
    return r;
}

#endif
