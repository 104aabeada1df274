/* What this machine's memory and arithmetic give at best, for --bench to compare with. */
#include "cpu/cpu.h"
#include "cpu/ops.h"

#include <stdlib.h>
#include <time.h>

enum { REPEATS = 5, CHAINS = 8, STEPS = 1 << 20 };

static const size_t copied_bytes = (size_t)128 << 20;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double copy_rate(int threads)
{
    char *from = malloc(copied_bytes), *to = malloc(copied_bytes);
    const size_t share = copied_bytes / (size_t)threads;
    double best = 0;
    CHECK(from && to, "out of memory");
    memset(from, 1, copied_bytes);
    memset(to, 2, copied_bytes);
    for (int i = 0; i < REPEATS; i++) {
        const double since = now();
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int t = 0; t < threads; t++)
            memcpy(to + (size_t)t * share, from + (size_t)t * share, share);
        const double rate = 2 * (double)(share * (size_t)threads) / (now() - since);
        best = rate > best ? rate : best;
    }
    free(from);
    free(to);
    return best;
}

/* Independent chains of multiply-adds, enough to hide their latency; the sum keeps them from being left out. */
static float multiply_adds(float start)
{
    v16 x[CHAINS];
    const v16 a = v16_all(0.999f), b = v16_all(1e-3f);
    for (int c = 0; c < CHAINS; c++)
        x[c] = v16_all(start + (float)c);
    for (int i = 0; i < STEPS; i++)
        for (int c = 0; c < CHAINS; c++)
            x[c] = v16_fma(x[c], a, b);
    float sum = 0;
    for (int c = 0; c < CHAINS; c++)
        sum += x[c].part[0][0];
    return sum;
}

static double arithmetic_rate(int threads)
{
    volatile float kept = 0;
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        const double since = now();
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int t = 0; t < threads; t++)
            kept = multiply_adds((float)t);
        const double rate = 2.0 * LANES * CHAINS * STEPS * threads / (now() - since);
        best = rate > best ? rate : best;
    }
    (void)kept;
    return best;
}

void CPU(measure)(struct backend *be, struct device_rates *rates)
{
    const int threads = cpu_state(be)->threads;
    *rates = (struct device_rates){copy_rate(threads), arithmetic_rate(threads), 0};
}
