/* Activations, plain or gated: y = act(up), or act(gate) * up; and their derivatives. Element by element in float, so nothing but
 * the values decides the bits. The kind is a constant of each kernel: the switch is in the launcher.
 */
#include "cuda/load.cuh"
#include "cuda/ops.h"

/* sqrt(2 / pi), and the cubic term of Hendrycks & Gimpel 2016 (arXiv:1606.08415) */
#define GELU_SCALE 0.797884561f
#define GELU_CUBIC 0.044715f
#define ROOT_HALF  0.707106781f

static __device__ __forceinline__ float logistic(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

template <enum activation act> __device__ __forceinline__ float value(float x)
{
    switch (act) {
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * ROOT_HALF));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(GELU_SCALE * fmaf(GELU_CUBIC * x, x * x, x)));
    case ACT_SILU:
        return x * logistic(x);
    case ACT_RELU:
        return x < 0.0f ? 0.0f : x; /* not a number stays so */
    case ACT_QUICK_GELU:
        return x * logistic(1.702f * x);
    case ACT_TANH:
        return tanhf(x);
    }
    return x;
}

template <enum activation act> __device__ __forceinline__ float slope(float x)
{
    switch (act) {
    case ACT_GELU: { /* Phi(x) + x phi(x) */
        const float density = 0.398942280f * expf(-0.5f * x * x);
        return fmaf(x, density, 0.5f * (1.0f + erff(x * ROOT_HALF)));
    }
    case ACT_GELU_TANH: { /* u = c (x + a x^3): (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) c (1 + 3 a x^2) */
        const float square = x * x, t = tanhf(GELU_SCALE * fmaf(GELU_CUBIC * x, square, x));
        const float du = GELU_SCALE * fmaf(3 * GELU_CUBIC, square, 1.0f);
        return fmaf(0.5f * x * (1.0f - t * t), du, 0.5f * (1.0f + t));
    }
    case ACT_SILU: {
        const float s = logistic(x);
        return s * fmaf(x, 1.0f - s, 1.0f);
    }
    case ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case ACT_QUICK_GELU: {
        const float s = logistic(1.702f * x);
        return s * fmaf(1.702f * x, 1.0f - s, 1.0f);
    }
    case ACT_TANH: {
        const float t = tanhf(x);
        return 1.0f - t * t;
    }
    }
    return 1.0f;
}

/* y = act(up), or act(gate) * up.
 *   all [N I] bf16; y may be up or gate; gate NULL: plain
 * Block:   256 packs of eight, one a thread
 * Launch:  grid ceil(N I / 2048), 256 threads
 * Bytes:   reads 2NI (4NI gated), writes 2NI; bound by memory, the erf and tanh of the gelus nearly as much by
 *          arithmetic (N = 4096, I = 24576: 403 MB)
 * Same bits: element by element
 */
template <enum activation act> __global__ void act_forward_kernel(bf16 *y, const bf16 *up, const bf16 *gate, int64_t packs)
{
    const int64_t pack = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs)
        return;
    float u[PACK], g[PACK];
    load_pack(u, up + pack * PACK);
    if (gate) {
        load_pack(g, gate + pack * PACK);
#pragma unroll
        for (int i = 0; i < PACK; i++)
            u[i] *= value<act>(g[i]);
    } else {
#pragma unroll
        for (int i = 0; i < PACK; i++)
            u[i] = value<act>(u[i]);
    }
    store_pack(y + pack * PACK, u);
}

/* dup = dy act'(up); or dup = dy act(gate), dgate = dy up act'(gate).
 *   all [N I] bf16; dup and dgate may each be any of the inputs: a thread reads its pack of all of them before it writes
 * Block, Launch: as forward
 * Bytes:   reads 4NI (6NI gated), writes 2NI (4NI gated); bound by memory
 * Same bits: element by element
 */
template <enum activation act>
__global__ void act_backward_kernel(bf16 *dup, bf16 *dgate, const bf16 *dy, const bf16 *up, const bf16 *gate, int64_t packs)
{
    const int64_t pack = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= packs)
        return;
    float d[PACK], u[PACK], g[PACK];
    load_pack(d, dy + pack * PACK);
    load_pack(u, up + pack * PACK);
    if (gate) {
        load_pack(g, gate + pack * PACK);
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            u[i] *= d[i] * slope<act>(g[i]);
            d[i] *= value<act>(g[i]);
        }
        store_pack(dgate + pack * PACK, u);
    } else {
#pragma unroll
        for (int i = 0; i < PACK; i++)
            d[i] *= slope<act>(u[i]);
    }
    store_pack(dup + pack * PACK, d);
}

enum { THREADS = 256 };

#define LAUNCH_ACT(kernel, act, packs, stream, ...)                                                                              \
    switch (act) {                                                                                                               \
    case ACT_GELU:                                                                                                               \
        LAUNCH((kernel<ACT_GELU>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                                   \
        break;                                                                                                                   \
    case ACT_GELU_TANH:                                                                                                          \
        LAUNCH((kernel<ACT_GELU_TANH>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                              \
        break;                                                                                                                   \
    case ACT_SILU:                                                                                                               \
        LAUNCH((kernel<ACT_SILU>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                                   \
        break;                                                                                                                   \
    case ACT_RELU:                                                                                                               \
        LAUNCH((kernel<ACT_RELU>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                                   \
        break;                                                                                                                   \
    case ACT_QUICK_GELU:                                                                                                         \
        LAUNCH((kernel<ACT_QUICK_GELU>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                             \
        break;                                                                                                                   \
    case ACT_TANH:                                                                                                               \
        LAUNCH((kernel<ACT_TANH>), ceil_div(packs, THREADS), THREADS, 0, stream, __VA_ARGS__);                                   \
        break;                                                                                                                   \
    }

static int64_t packs_of(int N, int I)
{
    CHECK(I % PACK == 0, "an activation over rows of %d", I);
    return (int64_t)N * I / PACK;
}

void cuda_act_forward(struct backend *be, act_t *y, const act_t *up, const act_t *gate, enum activation act, int N, int I)
{
    if (cuda_failed(be) || !N)
        return;
    const int64_t packs = packs_of(N, I);
    LAUNCH_ACT(act_forward_kernel, act, packs, cuda_state(be)->stream, y, up, gate, packs);
    cuda_check(be, "act_forward");
}

void cuda_act_backward(struct backend *be, act_t *dup, act_t *dgate, const act_t *dy, const act_t *up, const act_t *gate,
                       enum activation act, int N, int I)
{
    if (cuda_failed(be) || !N)
        return;
    const int64_t packs = packs_of(N, I);
    LAUNCH_ACT(act_backward_kernel, act, packs, cuda_state(be)->stream, dup, dgate, dy, up, gate, packs);
    cuda_check(be, "act_backward");
}
