/* XXH64 after its published specification: four lanes of multiply-rotate, then an avalanche. */
#include "hash.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                      P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

static uint64_t rotate(uint64_t x, int r)
{
    return x << r | x >> (64 - r);
}

static uint64_t read64(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static uint64_t round64(uint64_t acc, uint64_t word)
{
    return rotate(acc + word * P2, 31) * P1;
}

static void stripe(uint64_t lane[4], const unsigned char *p)
{
    for (int i = 0; i < 4; i++)
        lane[i] = round64(lane[i], read64(p + 8 * i));
}

void hash_begin(struct hash *h, uint64_t seed)
{
    memset(h, 0, sizeof *h);
    h->seed = seed;
    h->lane[0] = seed + P1 + P2;
    h->lane[1] = seed + P2;
    h->lane[2] = seed;
    h->lane[3] = seed - P1;
}

void hash_add(struct hash *h, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    h->total += n;
    if (h->n_rest) {
        size_t take = 32 - h->n_rest < n ? 32 - h->n_rest : n;
        memcpy(h->rest + h->n_rest, p, take);
        h->n_rest += take;
        p += take;
        n -= take;
        if (h->n_rest < 32)
            return;
        stripe(h->lane, h->rest);
        h->n_rest = 0;
    }
    for (; n >= 32; p += 32, n -= 32)
        stripe(h->lane, p);
    if (n) {
        memcpy(h->rest, p, n);
        h->n_rest = n;
    }
}

uint64_t hash_end(const struct hash *h)
{
    uint64_t x;
    if (h->total >= 32) {
        x = rotate(h->lane[0], 1) + rotate(h->lane[1], 7) + rotate(h->lane[2], 12) +
            rotate(h->lane[3], 18);
        for (int i = 0; i < 4; i++)
            x = (x ^ round64(0, h->lane[i])) * P1 + P4;
    } else {
        x = h->seed + P5;
    }
    x += h->total;
    const unsigned char *p = h->rest;
    size_t n = h->n_rest;
    for (; n >= 8; p += 8, n -= 8)
        x = rotate(x ^ round64(0, read64(p)), 27) * P1 + P4;
    if (n >= 4) {
        uint32_t w;
        memcpy(&w, p, 4);
        x = rotate(x ^ w * P1, 23) * P2 + P3;
        p += 4;
        n -= 4;
    }
    for (; n; p++, n--)
        x = rotate(x ^ *p * P5, 11) * P1;
    x = (x ^ x >> 33) * P2;
    x = (x ^ x >> 29) * P3;
    return x ^ x >> 32;
}

uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed)
{
    struct hash h;
    hash_begin(&h, seed);
    hash_add(&h, bytes, n);
    return hash_end(&h);
}

uint32_t hash_crc32c(const void *bytes, size_t n)
{
    static const uint32_t POLYNOMIAL = 0x82F63B78u;
    const unsigned char *p = bytes;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return ~crc;
}
