/* What the files of src/cpu share. Each of them is compiled once per instruction set with CPU_ISA=plain, avx2 or avx512;
 * CPU(name) gives a public function a name of its own in each build. The code is the same C for all: vectors are loops
 * over 16 lanes, sums have one written order, a*b+c is fused only where fmaf says so (-ffp-contract=off). So the bits
 * cannot differ between instruction sets. Exceptions are integer products, which are exact in any order. */
#ifndef RLHF_SRC_CPU_CPU_H
#define RLHF_SRC_CPU_CPU_H

#include "backend.h"
#include "error.h"

#include <math.h>
#include <string.h>

#define CPU_JOIN2(name, isa) name##_##isa
#define CPU_JOIN(name, isa) CPU_JOIN2(name, isa)
#define CPU(name) CPU_JOIN(name, CPU_ISA)

enum { LANES = 16, K_BLOCK = 512 };

struct cpu_region {
    void *p;
    struct cpu_region *next;
};

struct cpu_state {
    int threads;
    unsigned char *workspace; /* threads equal parts, one a thread, after a part shared by all */
    size_t workspace_bytes;
    char error[256]; /* sticky, "" for none */
    struct cpu_region *regions;
    char description[128];
};

static inline struct cpu_state *cpu_state(const struct backend *be)
{
    return be->state;
}

/* A vector of 16 floats. The compiler makes one, two or sixteen registers of it. */
typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16x32 __attribute__((vector_size(64)));

static inline v16 v16_load(const float *p)
{
    v16 x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void v16_store(float *p, v16 x)
{
    memcpy(p, &x, sizeof x);
}

static inline v16 v16_all(float a)
{
    return (v16){a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a};
}

/* a * b + c, fused, lane by lane */
static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    v16 y;
    for (int i = 0; i < LANES; i++)
        y[i] = fmaf(a[i], b[i], c[i]);
    return y;
}

/* The fixed tree of 16 lanes: halves are added to halves. */
static inline float v16_sum(v16 x)
{
    float s[8], t[4];
    for (int i = 0; i < 8; i++)
        s[i] = x[i] + x[i + 8];
    for (int i = 0; i < 4; i++)
        t[i] = s[i] + s[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

static inline float v16_max(v16 x)
{
    float m = x[0];
    for (int i = 1; i < LANES; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

/* e^x: x = n ln 2 + r, polynomial of degree 6 in r (coefficients: Cephes expf, S. Moshier), within 2 ulp.
 * Below -87.3 it gives 0, above 88.7 it is held at e^88.7. */
static inline float fast_exp(float x)
{
    float held = x > 88.7f ? 88.7f : x < -87.3f ? -87.3f : x;
    float n = fmaf(held, 1.44269504f, 12582912.0f) - 12582912.0f; /* rounds to an integer */
    float r = fmaf(n, -0.693359375f, held);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    float y = fmaf(p, r * r, r) + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.3f ? 0.0f : y * scale;
}

#endif
