/* Dropout of the input of adapters. Which elements stay is a function of (key, step, sample, position, element) alone, so
 * backward draws the mask again and nothing is stored. */
#include "cpu/linear.h"

/* Counters drawn at once, each of four elements. */
enum { COUNTERS = 16, DRAWN = 4 * COUNTERS };

typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t wide __attribute__((vector_size(VECTOR_BYTES)));

/* 64-bit products of the low halves of a's elements with m */
static inline wide multiply(wide a, uint32_t m)
{
#if defined __AVX512F__
    return (wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined __AVX2__
    return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#else
    return (a & 0xffffffffu) * (uint64_t)m;
#endif
}

/* The high and low words of x * m, lane by lane. */
static inline words multiply_words(words *low, words x, uint32_t m)
{
    const wide even = multiply((wide)x, m), odd = multiply((wide)x >> 32, m),
               low_half = (wide){0} + 0xffffffffu;
    *low = (words)((even & low_half) | (odd << 32));
    return (words)((even >> 32) | (odd & ~low_half));
}

/* Philox4x32-10 (rng.c) of the counters (a, b, c, d + lane). */
static inline void draw_words(words w[4], struct rng_key key, uint32_t a, uint32_t b, uint32_t c,
                              uint32_t d)
{
    w[0] = (words){0} + a;
    w[1] = (words){0} + b;
    w[2] = (words){0} + c;
    for (int i = 0; i < VECTOR_LANES; i++)
        w[3][i] = d + (uint32_t)i;
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < 10; round++) {
        words low0, low1, high0 = multiply_words(&low0, w[0], 0xD2511F53u),
                          high1 = multiply_words(&low1, w[2], 0xCD9E8D57u);
        w[0] = high1 ^ w[1] ^ k0;
        w[2] = high0 ^ w[3] ^ k1;
        w[1] = low1;
        w[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* factor[e]: keep for the elements first + e that stay, else 0; first a multiple of 4. */
static void draw_factors(float factor[DRAWN], struct rng_key key, uint32_t step, uint32_t sample,
                         uint32_t position, int first, float dropout, float keep)
{
    float by_word[4][COUNTERS];
    for (int i = 0; i < COUNTERS; i += VECTOR_LANES) {
        words w[4];
        draw_words(w, key, step, sample, position, (uint32_t)(first / 4 + i));
        for (int j = 0; j < 4; j++) {
            const vec uniform = __builtin_convertvector((ivec)(w[j] >> 8), vec) * vec_all(0x1p-24f);
            *(vec_anywhere *)&by_word[j][i] =
                vec_select(uniform >= vec_all(dropout), vec_all(keep), vec_all(0.0f));
        }
    }
    for (int i = 0; i < COUNTERS; i += 4)
        transpose4(factor + 4 * i, 4, &by_word[0][i], COUNTERS);
}

const float *CPU(dropped)(struct backend *be, float *out, const float *x, int K, int N,
                          const struct lora *a, const struct linear_pass *pass)
{
    if (!pass->dropout || a->dropout <= 0)
        return x;
    const struct batch *b = pass->batch;
    const float keep = 1.0f / (1.0f - a->dropout);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * K >= PARALLEL_MIN)
    for (int n = 0; n < N; n++) {
        const uint64_t sample = (uint64_t)b->sample[b->sequence[n]];
        const uint32_t step = pass->step ^ (uint32_t)(sample >> 32) << 16; /* as rng_word */
        for (int k = 0; k < K; k += DRAWN) {
            const float *from = x + (int64_t)n * K + k;
            float factor[DRAWN], *to = out + (int64_t)n * K + k;
            draw_factors(factor, a->key, step, (uint32_t)sample, (uint32_t)b->position[n], k,
                         a->dropout, keep);
            for (int i = 0; i < DRAWN && k + i < K; i += LANES) {
                const int left = K - k - i < LANES ? K - k - i : LANES;
                const v16 f = v16_load(factor + i), y = v16_mul(v16_load_part(from + i, left), f);
                v16 kept;
                V16_PARTS(j)
                {
                    kept.part[j] = vec_select(f.part[j] != vec_all(0.0f), y.part[j], vec_all(0.0f));
                }
                v16_store_part(to + i, kept, left);
            }
        }
    }
    return out;
}
