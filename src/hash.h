/* Checksums: equality of state across ranks, integrity of files. Not cryptographic. */
#ifndef RLHF_SRC_HASH_H
#define RLHF_SRC_HASH_H

#include <stddef.h>
#include <stdint.h>

/* 64-bit hash of n bytes (XXH64; Collet, xxHash specification 0.1.1). Little-endian machines. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);

/* The same over a stream; hash_end gives what hash_bytes gives for the concatenation. */
struct hash {
    uint64_t lane[4], total, seed;
    unsigned char rest[32];
    size_t n_rest;
};
void hash_begin(struct hash *h, uint64_t seed);
void hash_add(struct hash *h, const void *bytes, size_t n);
uint64_t hash_end(const struct hash *h);

/* CRC-32C (Castagnoli polynomial, reflected; RFC 3720 appendix B.4), one bit at a time: for short records. */
uint32_t hash_crc32c(const void *bytes, size_t n);

#endif
