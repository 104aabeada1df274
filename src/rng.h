/* Random numbers by purpose and index: Philox4x32-10, a counter-based generator without state.
 *
 * The key names what the numbers are for, the counter which ones: nothing depends on the rank, the order of calls or
 * the thread. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC'11), section 3.3.
 */
#ifndef RLHF_SRC_RNG_H
#define RLHF_SRC_RNG_H

#include <stdint.h>

enum rng_purpose {
    RNG_INIT_WEIGHT = 1, /* random models: layer, module; element */
    RNG_INIT_ADAPTER,
    RNG_INIT_VALUE_HEAD,
    RNG_ORDER,   /* order of prompts and samples */
    RNG_LENGTH,  /* lengths drawn per sample */
    RNG_SAMPLE,  /* token draws */
    RNG_DROPOUT,
    RNG_CORPUS,
    RNG_TEST
};

struct rng_key {
    uint32_t word[2];
};

/* Key of (run.seed, purpose, layer, module): distinct tuples give distinct streams (mixed by Philox itself). */
struct rng_key rng_key(uint64_t seed, enum rng_purpose purpose, uint32_t layer, uint32_t module);

/* Four 32-bit words for the counter (a, b, c, d). */
void rng_draw(uint32_t out[4], struct rng_key key, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

/* The counter as DESIGN orders it: (step or update, global sample index, position, element / 4), word element % 4. */
uint32_t rng_word(struct rng_key key, uint32_t step, uint64_t sample, uint32_t position, uint32_t element);

/* Uniform in [0, 1), multiples of 2^-24 (float) or 2^-32 (double), from one word. */
float rng_uniform(uint32_t word);
double rng_uniform_double(uint32_t word);

/* Uniform integer in [low, high), from one word by multiplication (bias below 2^-32 * (high - low)). */
int64_t rng_range(uint32_t word, int64_t low, int64_t high);

/* Fills order[n] with a permutation of 0..n-1 (Fisher-Yates), a function of (key, step) alone. */
void rng_permutation(int64_t *order, int64_t n, struct rng_key key, uint32_t step);

#endif
