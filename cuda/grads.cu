/* The exact gradient accumulators: set to zero, and the sum of squares for clipping. */
#include "cuda/fixed.cuh"
#include "cuda/ops.h"
#include "cuda/reduce.cuh"

enum { CHUNK = 4096, LANES = 16, CHUNK_THREADS = 128, CHUNKS_PER_BLOCK = CHUNK_THREADS / LANES };

void cuda_grads_zero(struct backend *be, struct grads *g)
{
    cuda_zero(be, g->sum, (size_t)g->n * sizeof *g->sum);
    cuda_zero(be, g->overflow, sizeof *g->overflow);
}

/* part[i] = sum of squares of the chunk's elements as doubles: element e to lane e % 16, each lane in ascending order by fma,
 * then the lanes by the tree 8, 4, 2, 1: the sum of src/cpu/grads.c.
 *   sum [n] int64 -> part [ceil(n / 4096)] double
 * Block:   eight chunks, each of a half warp
 * Launch:  grid ceil(n / 32768), 128 threads
 * Bytes:   reads 8n; bound by memory, on cards with few double units by their conversions
 * Same bits: written order
 */
__global__ void __launch_bounds__(CHUNK_THREADS) grads_norm_kernel(double *part, const int64_t *sum, int64_t n)
{
    const int64_t chunk = (int64_t)blockIdx.x * CHUNKS_PER_BLOCK + threadIdx.x / LANES;
    const int64_t end = (chunk + 1) * CHUNK < n ? (chunk + 1) * CHUNK : n;
    double acc = 0;
#pragma unroll 8
    for (int64_t i = chunk * CHUNK + threadIdx.x % LANES; i < end; i += LANES) {
        const double x = fixed_double(sum[i]) * 0x1p-48;
        acc = fma(x, x, acc);
    }
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2)
        acc += __shfl_down_sync(ALL_LANES, acc, half); /* lanes from half on get what nobody reads */
    if (threadIdx.x % LANES == 0 && chunk * CHUNK < n)
        part[chunk] = acc;
}

size_t cuda_update_workspace(void)
{
    return UPDATE_PARTS * sizeof(double);
}

double cuda_grads_norm(struct backend *be, const struct grads *g)
{
    const int64_t most = (int64_t)UPDATE_PARTS * CHUNK; /* elements at once */
    double *part = (double *)cuda_scratch(be, cuda_update_workspace()), total = 0;
    for (int64_t first = 0; first < g->n && !cuda_failed(be); first += most) {
        const int64_t n = g->n - first < most ? g->n - first : most;
        const int chunks = ceil_div(n, CHUNK);
        double host[UPDATE_PARTS] = {0};
        LAUNCH(grads_norm_kernel, ceil_div(chunks, CHUNKS_PER_BLOCK), CHUNK_THREADS, 0, cuda_state(be)->stream, part,
               g->sum + first, n);
        cuda_check(be, "grads_norm");
        cuda_copy_out(be, host, part, (size_t)chunks * sizeof *host);
        for (int i = 0; i < chunks; i++)
            total += host[i];
    }
    return total;
}
