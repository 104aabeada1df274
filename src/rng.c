/* Philox4x32-10 and what is drawn from it. */
#include "rng.h"

static void philox_round(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    uint64_t m0 = (uint64_t)0xD2511F53u * c[0], m1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t x0 = (uint32_t)(m1 >> 32) ^ c[1] ^ k0, x2 = (uint32_t)(m0 >> 32) ^ c[3] ^ k1;
    c[0] = x0;
    c[1] = (uint32_t)m1;
    c[2] = x2;
    c[3] = (uint32_t)m0;
}

void rng_draw(uint32_t out[4], struct rng_key key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
    for (int i = 0; i < 10; i++) {
        philox_round(out, k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

struct rng_key rng_key(uint64_t seed, enum rng_purpose purpose, uint32_t layer, uint32_t module)
{
    struct rng_key root = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    uint32_t w[4];
    rng_draw(w, root, (uint32_t)purpose, layer, module, 0x6b657931u);
    return (struct rng_key){{w[0], w[1]}};
}

uint32_t rng_word(struct rng_key key, uint32_t step, uint64_t sample, uint32_t position, uint32_t element)
{
    uint32_t w[4];
    /* global sample indices stay below 2^32; their high half would share the word of the step */
    rng_draw(w, key, step ^ (uint32_t)(sample >> 32) << 16, (uint32_t)sample, position, element / 4);
    return w[element % 4];
}

float rng_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

double rng_uniform_double(uint32_t word)
{
    return word * 0x1p-32;
}

int64_t rng_range(uint32_t word, int64_t low, int64_t high)
{
    return low + (int64_t)(((unsigned __int128)word * (uint64_t)(high - low)) >> 32);
}

void rng_permutation(int64_t *order, int64_t n, struct rng_key key, uint32_t step)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = rng_range(rng_word(key, step, (uint64_t)i, 0, 0), 0, i + 1);
        int64_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}
