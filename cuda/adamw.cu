/* AdamW in float32 (Loshchilov & Hutter, arXiv:1711.05101), as PyTorch orders it: decay, moments, step. The operations and their
 * order are those of src/cpu/adamw.c.
 *
 *   p <- p (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
 *   p <- p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)
 *
 * All constants are worked out in double and rounded once. Elements without gradient, moments and decay keep their bits.
 */
#include "cuda/fixed.cuh"
#include "cuda/ops.h"

#include <math.h>

struct constants {
    double gradient; /* 2^-48 * clip */
    float decay, beta1, rest1, beta2, rest2, epsilon, inverse_root, step;
};

/* Four sums; p aligned to 16 bytes. */
static __device__ __forceinline__ void load_sums(int64_t sum[4], const int64_t *p)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint4 raw = ((const uint4 *)p)[i];
        sum[2 * i] = (int64_t)((uint64_t)raw.y << 32 | raw.x);
        sum[2 * i + 1] = (int64_t)((uint64_t)raw.w << 32 | raw.z);
    }
}

static __device__ __forceinline__ void update(float *p, float *m, float *v, int64_t sum, const struct constants &c)
{
    const float g = (float)(fixed_double(sum) * c.gradient);
    *m = fmaf(c.beta1, *m, c.rest1 * g);
    *v = fmaf(c.beta2, *v, c.rest2 * g * g);
    *p = fmaf(-c.step, *m / fmaf(sqrtf(*v), c.inverse_root, c.epsilon), *p * c.decay);
}

/* One update of n parameters and their moments.
 *   p, m, v [n] float, sum [n] int64
 * Block:   256 quads of elements, one a thread; the last n % 4 elements one by one
 * Launch:  grid ceil(n / 1024), 256 threads
 * Bytes:   reads 20n, writes 12n; bound by memory
 * Same bits: element by element, explicit fma
 * Limits:  pointers aligned to 16 bytes (checked by the launcher)
 */
__global__ void adamw_kernel(float *p, float *m, float *v, const int64_t *sum, int64_t n, struct constants c)
{
    const int64_t first = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (first + 4 <= n) {
        float4 p4 = *(float4 *)(p + first), m4 = *(float4 *)(m + first), v4 = *(float4 *)(v + first);
        int64_t sum4[4];
        load_sums(sum4, sum + first);
        update(&p4.x, &m4.x, &v4.x, sum4[0], c);
        update(&p4.y, &m4.y, &v4.y, sum4[1], c);
        update(&p4.z, &m4.z, &v4.z, sum4[2], c);
        update(&p4.w, &m4.w, &v4.w, sum4[3], c);
        *(float4 *)(p + first) = p4;
        *(float4 *)(m + first) = m4;
        *(float4 *)(v + first) = v4;
        return;
    }
    for (int64_t i = first; i < n; i++)
        update(p + i, m + i, v + i, sum[i], c);
}

void cuda_adamw(struct backend *be, float *p, float *m, float *v, const struct grads *g, const struct adamw *how)
{
    enum { THREADS = 256 };
    if (cuda_failed(be) || !g->n)
        return;
    CHECK(((uintptr_t)p | (uintptr_t)m | (uintptr_t)v | (uintptr_t)g->sum) % 16 == 0, "trainables are not aligned");
    struct constants c;
    c.gradient = 0x1p-48 * how->clip;
    c.decay = (float)(1 - how->learning_rate * how->weight_decay);
    c.beta1 = (float)how->beta1;
    c.rest1 = (float)(1 - how->beta1);
    c.beta2 = (float)how->beta2;
    c.rest2 = (float)(1 - how->beta2);
    c.epsilon = (float)how->epsilon;
    c.inverse_root = (float)(1 / sqrt(how->correction2));
    c.step = (float)(how->learning_rate / how->correction1);
    LAUNCH(adamw_kernel, ceil_div(g->n, 4 * THREADS), THREADS, 0, cuda_state(be)->stream, p, m, v, g->sum, g->n, c);
    cuda_check(be, "adamw");
}
