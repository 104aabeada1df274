/* Adding float gradients to the exact accumulators: v * 2^48, rounded half to even, added to int64.
 *
 * Integer sums do not depend on order, so samples may be added by any thread or rank. The rounding is done on two halves
 * of 32 bits, so that it needs nothing but double arithmetic and 64-bit adds, and vectorises without AVX512:
 * x = v * 2^48 is exact and below 2^62; high = rint(x * 2^-32), low = rint(x - high * 2^32); high * 2^32 is even, so low
 * rounds as x would. Adding 1.5 * 2^52 to a double below 2^51 leaves its rounded value in the low bits.
 */
#ifndef RLHF_SRC_CPU_FIXED_H
#define RLHF_SRC_CPU_FIXED_H

#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

static inline int64_t fixed_bits(double x)
{
    int64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

/* v * 2^48 rounded half to even, |v| < 2^14 */
static inline int64_t fixed_of(float v)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    double x = (double)v * 281474976710656.0;
    double high = x * 0x1p-32 + magic;
    double low = (x - (high - magic) * 0x1p32) + magic;
    uint64_t h = (uint64_t)fixed_bits(high) - (uint64_t)fixed_bits(magic);
    uint64_t l = (uint64_t)fixed_bits(low) - (uint64_t)fixed_bits(magic);
    return (int64_t)((h << 32) + l);
}

/* The element as a double, rounded once: sum * 1, without the instruction that only AVX512 has by vectors. The halves of
 * sum are put in the low bits of 2^52 and of 2^84. */
static inline double fixed_double(int64_t sum)
{
    uint64_t low_bits = ((uint64_t)sum & 0xffffffffu) | 0x4330000000000000u;
    uint64_t high_bits = (((uint64_t)sum >> 32) ^ 0x80000000u) | 0x4530000000000000u;
    double low, high;
    memcpy(&low, &low_bits, 8);
    memcpy(&high, &high_bits, 8);
    return (high - (0x1p84 + 0x1p63 + 0x1p52)) + low;
}

/* Notes that the contribution to the element is refused. Threads may call it at once. */
static inline void grads_refuse(struct grads *g, int64_t element)
{
    int64_t seen = __atomic_load_n(g->overflow, __ATOMIC_RELAXED);
    while ((seen == 0 || seen > element + 1) &&
           !__atomic_compare_exchange_n(g->overflow, &seen, element + 1, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
}

/* Adds v[n], n <= 16; what is refused is left out. */
static inline void grads_add_slowly(struct grads *g, int64_t offset, const float *v, int n)
{
    for (int i = 0; i < n; i++) {
        if (fabsf(v[i]) < g->limit && fabsf(v[i]) < 0x1p14f)
            g->sum[offset + i] = (int64_t)((uint64_t)g->sum[offset + i] + (uint64_t)fixed_of(v[i]));
        else
            grads_refuse(g, offset + i);
    }
}

/* Adds v[n] to the elements offset .. offset + n - 1; none but the calling thread may touch them meanwhile. A value that
 * is not finite or of magnitude >= limit (or >= 2^14) is left out and raises overflow. */
static inline void grads_add(struct grads *g, int64_t offset, const float *v, int64_t n)
{
    enum { STRIP = 16 };
    const float limit = g->limit < 0x1p14f ? g->limit : 0x1p14f;
    int64_t i = 0;
    for (; i + STRIP <= n; i += STRIP) {
        int64_t add[STRIP], *sum = g->sum + offset + i;
        int fine = 1;
        for (int j = 0; j < STRIP; j++)
            fine &= fabsf(v[i + j]) < limit; /* not a number: not fine */
        if (!fine) {
            grads_add_slowly(g, offset + i, v + i, STRIP);
            continue;
        }
        for (int j = 0; j < STRIP; j++)
            add[j] = fixed_of(v[i + j]);
        for (int j = 0; j < STRIP; j++)
            sum[j] = (int64_t)((uint64_t)sum[j] + (uint64_t)add[j]);
    }
    grads_add_slowly(g, offset + i, v + i, (int)(n - i));
}

#endif
