/* What the files of src/cpu share. Each of them is compiled once per instruction set with CPU_ISA=plain, avx2 or avx512;
 * CPU(name) gives a public function a name of its own in each build. The code is the same C for all: vectors are loops
 * over 16 lanes, sums have one written order, a*b+c is fused only where fmaf says so (-ffp-contract=off). So the bits
 * cannot differ between instruction sets. Exceptions are integer products, which are exact in any order. */
#ifndef RLHF_SRC_CPU_CPU_H
#define RLHF_SRC_CPU_CPU_H

#define BACKEND_ACT float
#include "backend.h"
#include "error.h"

#include <math.h>
#include <string.h>
#if defined __AVX512F__ || defined __FMA__
#include <immintrin.h>
#endif

#define CPU_JOIN2(name, isa) name##_##isa
#define CPU_JOIN(name, isa)  CPU_JOIN2(name, isa)
#define CPU(name)            CPU_JOIN(name, CPU_ISA)

/* PARALLEL_MIN: elements below which an operation stays on one thread. */
enum { LANES = 16, K_BLOCK = 512, PARALLEL_MIN = 65536 };

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

/* memory.c: bytes that a plan may use; zeroed memory from a multiple of 64, for free() (NULL: none left) */
size_t cpu_memory_free(void);
void *cpu_memory_alloc(size_t bytes);

static inline struct cpu_state *cpu_state(const struct backend *be)
{
    return be->state;
}

/* A thread's scratch of an operation: part number `thread` of equal parts of bytes each, from the workspace's start. An
 * operation may use the whole workspace; nothing in it outlives the operation. */
static inline float *cpu_scratch(const struct backend *be, int thread, size_t bytes)
{
    const struct cpu_state *state = cpu_state(be);
    const size_t part = (bytes + 63) / 64 * 64;
    CHECK(part * ((size_t)thread + 1) <= state->workspace_bytes,
          "workspace of %zu bytes, %zu needed by thread %d", state->workspace_bytes,
          part * ((size_t)thread + 1), thread);
    return (float *)(void *)(state->workspace + part * (size_t)thread);
}

/* vec: the machine's own vector of floats. This is the one place that names instruction sets; all operations are lane by
 * lane, so their bits are the same in each. v16: 16 floats, as many vec as hold them. (One vector type of 64 bytes would
 * live in memory wherever registers are shorter.) */
#if defined __AVX512F__
#define VECTOR_BYTES     64
#define VEC_FMA(a, b, c) ((vec)_mm512_fmadd_ps(a, b, c))
#elif defined __FMA__
#define VECTOR_BYTES     32
#define VEC_FMA(a, b, c) ((vec)_mm256_fmadd_ps(a, b, c))
#else
#define VECTOR_BYTES 16
#define VEC_FMA(a, b, c)                                                                           \
    ((vec){fmaf((a)[0], (b)[0], (c)[0]), fmaf((a)[1], (b)[1], (c)[1]),                             \
           fmaf((a)[2], (b)[2], (c)[2]), fmaf((a)[3], (b)[3], (c)[3])})
#endif

enum { VECTORS = 64 / VECTOR_BYTES, VECTOR_LANES = VECTOR_BYTES / 4 };

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef float vec_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static inline vec vec_all(float a)
{
    return a - (vec){0};
}

/* a where the mask (all bits of a lane set) says so, else b */
static inline vec vec_select(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

typedef struct {
    vec part[VECTORS];
} v16;

/* For each part i of a v16. */
#define V16_PARTS(i) _Pragma("GCC unroll 4") for (int i = 0; i < VECTORS; i++)

static inline v16 v16_load(const float *p)
{
    v16 x;
    V16_PARTS(i)
    {
        x.part[i] = *(const vec_anywhere *)(p + i * VECTOR_LANES);
    }
    return x;
}

static inline void v16_store(float *p, v16 x)
{
    V16_PARTS(i)
    {
        *(vec_anywhere *)(p + i * VECTOR_LANES) = x.part[i];
    }
}

/* The first n <= 16 of p, then zeros. */
static inline v16 v16_load_part(const float *p, int n)
{
    if (n == LANES)
        return v16_load(p);
    float x[LANES] = {0};
    memcpy(x, p, (size_t)n * sizeof *p);
    return v16_load(x);
}

static inline void v16_store_part(float *p, v16 x, int n)
{
    if (n == LANES) {
        v16_store(p, x);
        return;
    }
    float y[LANES];
    v16_store(y, x);
    memcpy(p, y, (size_t)n * sizeof *p);
}

static inline v16 v16_all(float a)
{
    v16 x;
    V16_PARTS(i)
    {
        x.part[i] = vec_all(a);
    }
    return x;
}

static inline v16 v16_add(v16 a, v16 b)
{
    V16_PARTS(i)
    {
        a.part[i] += b.part[i];
    }
    return a;
}

static inline v16 v16_sub(v16 a, v16 b)
{
    V16_PARTS(i)
    {
        a.part[i] -= b.part[i];
    }
    return a;
}

static inline v16 v16_mul(v16 a, v16 b)
{
    V16_PARTS(i)
    {
        a.part[i] *= b.part[i];
    }
    return a;
}

/* a * b + c, fused */
static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    V16_PARTS(i)
    {
        c.part[i] = VEC_FMA(a.part[i], b.part[i], c.part[i]);
    }
    return c;
}

/* a > b ? a : b, lane by lane */
static inline v16 v16_greater(v16 a, v16 b)
{
    V16_PARTS(i)
    {
        a.part[i] = vec_select(a.part[i] > b.part[i], a.part[i], b.part[i]);
    }
    return a;
}

/* The fixed tree of 16 lanes: halves are added to halves. */
static inline float v16_sum(v16 x)
{
    float a[LANES], s[8], t[4];
    v16_store(a, x);
    for (int i = 0; i < 8; i++)
        s[i] = a[i] + a[i + 8];
    for (int i = 0; i < 4; i++)
        t[i] = s[i] + s[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

static inline float v16_max(v16 x)
{
    float a[LANES];
    v16_store(a, x);
    float m = a[0];
    for (int i = 1; i < LANES; i++)
        m = a[i] > m ? a[i] : m;
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
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.3f ? 0.0f : y * scale;
}

/* fast_exp of each lane: the same operations, so the same bits. */
static inline vec vec_exp(vec x)
{
    const vec high = vec_all(88.7f), low = vec_all(-87.3f), magic = vec_all(12582912.0f);
    vec held = vec_select(x > high, high, vec_select(x < low, low, x));
    vec n = VEC_FMA(held, vec_all(1.44269504f), magic) - magic;
    vec r = VEC_FMA(n, vec_all(-0.693359375f), held);
    r = VEC_FMA(n, vec_all(2.12194440e-4f), r);
    vec p = vec_all(1.9875691500e-4f);
    p = VEC_FMA(p, r, vec_all(1.3981999507e-3f));
    p = VEC_FMA(p, r, vec_all(8.3334519073e-3f));
    p = VEC_FMA(p, r, vec_all(4.1665795894e-2f));
    p = VEC_FMA(p, r, vec_all(1.6666665459e-1f));
    p = VEC_FMA(p, r, vec_all(5.0000001201e-1f));
    vec square = r * r;
    vec y = VEC_FMA(p, square, r) + vec_all(1.0f);
    vec scale = (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
    return (vec)((ivec)(y * scale) & ~(x < low));
}

static inline v16 v16_exp(v16 x)
{
    V16_PARTS(i)
    {
        x.part[i] = vec_exp(x.part[i]);
    }
    return x;
}

#endif
