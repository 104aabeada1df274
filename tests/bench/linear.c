/* Speed of linear_forward on one thread, or as many as the first argument says: GFLOP/s, two operations a multiply-add. */
#include "backend.h"

#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_sec(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(float *x, int64_t n, uint32_t seed)
{
    const struct rng_key key = rng_key(seed, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < n; i++)
        x[i] = rng_uniform(rng_word(key, 0, 0, 0, (uint32_t)i)) - 0.5f;
}

/* The best of several runs of at least a twentieth of a second each. */
static double best_gflops(struct backend *be, struct linear *l, const float *x, float *y, int N)
{
    const struct linear_pass pass = {.adapter = -1};
    const double flop = 2.0 * N * l->out * l->in;
    double best = 0;
    for (int run = 0; run < 5; run++) {
        int times = 0;
        double start = now_sec(), taken;
        do {
            be->ops->linear_forward(be, &y, &l, 1, x, N, &pass);
            times++;
            taken = now_sec() - start;
        } while (taken < 0.05);
        double speed = flop * times / taken * 1e-9;
        best = speed > best ? speed : best;
    }
    return best;
}

static int bench_format(struct backend *be, const char *name, enum dtype t, enum matmul matmul)
{
    static const int shape[][2] = {{64, 64}, {288, 768}, {1024, 1024}}, rows[] = {1, 16, 256};
    for (int s = 0; s < 3; s++) {
        const int in = shape[s][0], out = shape[s][1];
        struct linear l = {.out = out, .in = in, .dtype = t, .matmul = matmul, .outlier_threshold = 6};
        l.weight = be->ops->region_alloc(be, "weights", be->ops->linear_weight_bytes(be, &l));
        l.absmax = be->ops->region_alloc(be, "weights", (size_t)out * sizeof *l.absmax);
        const size_t scratch = be->ops->workspace_bytes(be, 256, in, out, 256, 64, 64);
        float *w = be->ops->region_alloc(be, "host", (size_t)in * (size_t)out * sizeof *w);
        float *x = be->ops->region_alloc(be, "host", 256 * (size_t)in * sizeof *x);
        float *y = be->ops->region_alloc(be, "host", 256 * (size_t)out * sizeof *y);
        void *workspace = be->ops->region_alloc(be, "workspace", scratch);
        if (!l.weight || !l.absmax || !w || !x || !y || !workspace)
            return error_set(ERR_SYSTEM, "out of memory");
        be->ops->workspace_set(be, workspace, scratch);
        fill(w, (int64_t)in * out, 1);
        fill(x, 256 * (int64_t)in, 2);
        be->ops->linear_put_rows(be, &l, w, DTYPE_F32, 0, out);
        printf("%-16s %4d -> %4d ", name, in, out);
        for (int n = 0; n < 3; n++)
            printf("  N=%-3d %6.1f", rows[n], best_gflops(be, &l, x, y, rows[n]));
        printf("  GFLOP/s\n");
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct backend be = {0};
    if (cpu_open(&be, argc > 2 ? argv[2] : NULL, argc > 1 ? atoi(argv[1]) : 1) != 0) {
        fprintf(stderr, "%s\n", error_message());
        return 1;
    }
    printf("%s\n", be.ops->describe(&be));
    int rc = bench_format(&be, "F32", DTYPE_F32, MATMUL_PLAIN);
    rc = rc ? rc : bench_format(&be, "F16", DTYPE_F16, MATMUL_PLAIN);
    rc = rc ? rc : bench_format(&be, "BF16", DTYPE_BF16, MATMUL_PLAIN);
    rc = rc ? rc : bench_format(&be, "int8 dequantised", DTYPE_I8, MATMUL_DEQUANT);
    rc = rc ? rc : bench_format(&be, "LLM.int8()", DTYPE_I8, MATMUL_LLM_INT8);
    be.ops->close(&be);
    return rc ? 1 : 0;
}
