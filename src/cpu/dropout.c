/* Dropout of the input of adapters. Which elements stay is a function of (key, step, sample, position, element) alone, so
 * backward draws the mask again and nothing is stored. */
#include "cpu/linear.h"

/* Counters drawn at once, each of four elements: Philox by vectors. */
enum { COUNTERS = 16 };

/* word[j][i]: word j of counter (a, b, c, d + i), as rng_draw gives it. */
static void draw_words(uint32_t word[4][COUNTERS], struct rng_key key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int i = 0; i < COUNTERS; i++) {
        word[0][i] = a;
        word[1][i] = b;
        word[2][i] = c;
        word[3][i] = d + (uint32_t)i;
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < COUNTERS; i++) {
            const uint64_t m0 = (uint64_t)0xD2511F53u * word[0][i], m1 = (uint64_t)0xCD9E8D57u * word[2][i];
            word[0][i] = (uint32_t)(m1 >> 32) ^ word[1][i] ^ k0;
            word[2][i] = (uint32_t)(m0 >> 32) ^ word[3][i] ^ k1;
            word[1][i] = (uint32_t)m1;
            word[3][i] = (uint32_t)m0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

const float *CPU(dropped)(struct backend *be, float *out, const float *x, int K, int N, const struct lora *a,
                          const struct linear_pass *pass)
{
    if (!pass->dropout || a->dropout <= 0)
        return x;
    const struct batch *b = pass->batch;
    const float keep = 1.0f / (1.0f - a->dropout);
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)N * K >= PARALLEL_PRODUCT)
    for (int n = 0; n < N; n++) {
        const uint64_t sample = (uint64_t)b->sample[b->sequence[n]];
        const uint32_t step = pass->step ^ (uint32_t)(sample >> 32) << 16; /* as rng_word */
        const float *from = x + (int64_t)n * K;
        float *to = out + (int64_t)n * K;
        for (int k = 0; k < K; k += 4 * COUNTERS) {
            const int left = K - k < 4 * COUNTERS ? K - k : 4 * COUNTERS;
            uint32_t word[4][COUNTERS];
            float factor[4 * COUNTERS];
            draw_words(word, a->key, step, (uint32_t)sample, (uint32_t)b->position[n], (uint32_t)k / 4);
            for (int i = 0; i < COUNTERS; i++)
                for (int j = 0; j < 4; j++)
                    factor[4 * i + j] = (float)(int32_t)(word[j][i] >> 8) * 0x1p-24f >= a->dropout ? keep : 0.0f;
            for (int i = 0; i < left; i++)
                to[k + i] = factor[i] != 0.0f ? from[k + i] * factor[i] : 0.0f;
        }
    }
    return out;
}
