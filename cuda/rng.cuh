/* Random numbers on the device, the words of src/rng.c: Philox4x32-10 of a key and a counter. Dropout of the input of adapters on
 * top of it, the factors of src/cpu/dropout.c: a function of (key, step, sample, position, element) alone, so that backward draws
 * the mask again and nothing is stored.
 */
#ifndef RLHF_CUDA_RNG_CUH
#define RLHF_CUDA_RNG_CUH

#include "cuda/cuda.h"
#include "cuda/launch.cuh"

/* Four 32-bit words for the counter (a, b, c, d): rng_draw. */
__device__ __forceinline__ void philox(uint32_t w[4], struct rng_key key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    w[0] = a;
    w[1] = b;
    w[2] = c;
    w[3] = d;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t m0 = (uint64_t)0xD2511F53u * w[0], m1 = (uint64_t)0xCD9E8D57u * w[2];
        w[0] = (uint32_t)(m1 >> 32) ^ w[1] ^ k0;
        w[2] = (uint32_t)(m0 >> 32) ^ w[3] ^ k1;
        w[1] = (uint32_t)m1;
        w[3] = (uint32_t)m0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* First word of the counter of (step, sample): the high half of the sample shares it, as in rng_word. */
__device__ __forceinline__ uint32_t philox_step(uint32_t step, uint64_t sample)
{
    return step ^ (uint32_t)(sample >> 32) << 16;
}

/* rng_uniform: in [0, 1), multiples of 2^-24 */
__device__ __forceinline__ float philox_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* Dropout of one adapter in one pass; a kernel's argument. */
struct dropout {
    struct rng_key key;
    uint32_t step;
    float rate, keep;                   /* keep = 1 / (1 - rate); rate 0: no dropout, and the pointers are not used */
    const int32_t *sequence, *position; /* [N] */
    const int64_t *sample;              /* [S] */
};

static inline struct dropout dropout_of(const struct lora *a, const struct linear_pass *pass)
{
    struct dropout d = {};
    d.keep = 1.0f;
    if (!pass->dropout || a->dropout <= 0)
        return d;
    d.key = a->key;
    d.step = pass->step;
    d.rate = a->dropout;
    d.keep = 1.0f / (1.0f - a->dropout);
    d.sequence = pass->batch->sequence;
    d.position = pass->batch->position;
    d.sample = pass->batch->sample;
    return d;
}

/* The counter's words of one row (token) of x. */
struct dropout_row {
    uint32_t step, sample, position;
};

/* Of row n; with rate 0 zeros. */
__device__ __forceinline__ struct dropout_row dropout_row(const struct dropout &d, int n)
{
    struct dropout_row row = {0, 0, 0};
    if (d.rate > 0) {
        const uint64_t sample = (uint64_t)d.sample[d.sequence[n]];
        row.step = philox_step(d.step, sample);
        row.sample = (uint32_t)sample;
        row.position = (uint32_t)d.position[n];
    }
    return row;
}

/* Of the elements first .. first + 3 of the row (first a multiple of 4): keep for those that stay, else 0; 1 with rate 0. */
__device__ __forceinline__ void dropout_factor4(float factor[4], const struct dropout &d, const struct dropout_row &row,
                                                int first)
{
    uint32_t w[4] = {0, 0, 0, 0};
    if (d.rate > 0)
        philox(w, d.key, row.step, row.sample, row.position, (uint32_t)first / 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
        factor[i] = philox_uniform(w[i]) >= d.rate ? d.keep : 0.0f;
}

/* The same for first .. first + 7 */
__device__ __forceinline__ void dropout_factor8(float factor[8], const struct dropout &d, const struct dropout_row &row,
                                                int first)
{
    dropout_factor4(factor, d, row, first);
    dropout_factor4(factor + 4, d, row, first + 4);
}

/* x * factor; what is dropped is 0, also where x is not finite. */
__device__ __forceinline__ float dropped(float x, float factor)
{
    return factor != 0.0f ? x * factor : 0.0f;
}

#endif
