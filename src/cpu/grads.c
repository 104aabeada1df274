/* The exact gradient accumulators: set to zero, and the sum of squares for clipping. */
#include "cpu/fixed.h"
#include "cpu/ops.h"

enum { CHUNK = 4096, BATCH = 256 };

void CPU(grads_zero)(struct backend *be, struct grads *g)
{
    const int64_t n = g->n;
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if (n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += CHUNK)
        memset(g->sum + i, 0, (size_t)(n - i < CHUNK ? n - i : CHUNK) * sizeof *g->sum);
    *g->overflow = 0;
}

/* Sum of squares of n <= CHUNK elements: 16 lanes by index, then the fixed tree. */
static double chunk_norm(const int64_t *sum, int n)
{
    double acc[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            double x = fixed_double(sum[i + lane]) * 0x1p-48;
            acc[lane] = fma(x, x, acc[lane]);
        }
    }
    for (; i < n; i++) {
        double x = fixed_double(sum[i]) * 0x1p-48;
        acc[i % LANES] = fma(x, x, acc[i % LANES]);
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++)
            acc[lane] += acc[lane + half];
    }
    return acc[0];
}

double CPU(grads_norm)(struct backend *be, const struct grads *g)
{
    const int64_t chunks = (g->n + CHUNK - 1) / CHUNK;
    double total = 0;
    for (int64_t first = 0; first < chunks; first += BATCH) {
        double part[BATCH];
        const int m = chunks - first < BATCH ? (int)(chunks - first) : BATCH;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_state(be)->threads) if (m * CHUNK >= 2 * PARALLEL_MIN)
        for (int i = 0; i < m; i++) {
            const int64_t at = (first + i) * CHUNK;
            part[i] = chunk_norm(g->sum + at, g->n - at < CHUNK ? (int)(g->n - at) : CHUNK);
        }
        for (int i = 0; i < m; i++)
            total += part[i];
    }
    return total;
}
