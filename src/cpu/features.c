/* Which build of the CPU backend this machine can run. Compiled once. */
#include "backend.h"

#include "error.h"
#include "text.h"

#include <string.h>
#if defined CPU_AVX2 || defined CPU_AVX512
#include <cpuid.h>
#endif

extern const struct backend_ops cpu_table_plain;
int cpu_start_plain(struct backend *be, int threads);
#ifdef CPU_AVX2
extern const struct backend_ops cpu_table_avx2;
int cpu_start_avx2(struct backend *be, int threads);
#endif
#ifdef CPU_AVX512
extern const struct backend_ops cpu_table_avx512;
int cpu_start_avx512(struct backend *be, int threads);
#endif

#if defined CPU_AVX2 || defined CPU_AVX512
/* clang 14 does not know the name "f16c" */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
#endif

#ifdef CPU_AVX512
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

#endif

static bool always(void)
{
    return true;
}

/* Best first. */
static const struct build {
    const char *isa;
    const struct backend_ops *ops;
    int (*start)(struct backend *be, int threads);
    bool (*runs_here)(void);
} builds[] = {
#ifdef CPU_AVX512
    {"avx512", &cpu_table_avx512, cpu_start_avx512, has_avx512},
#endif
#ifdef CPU_AVX2
    {"avx2", &cpu_table_avx2, cpu_start_avx2, has_avx2},
#endif
    {"plain", &cpu_table_plain, cpu_start_plain, always},
};

static const struct build *find(const char *isa)
{
    for (size_t i = 0; i < sizeof builds / sizeof *builds; i++)
        if ((!isa || !strcmp(builds[i].isa, isa)) && builds[i].runs_here())
            return &builds[i];
    return NULL;
}

const struct backend_ops *cpu_ops(const char *isa)
{
    const struct build *b = find(isa);
    return b ? b->ops : NULL;
}

int cpu_open(struct backend *be, const char *isa, int threads)
{
    const struct build *b = find(isa);
    if (!b)
        return error_set(ERR_SYSTEM, "the CPU backend for %s is not built or cannot run on this machine", isa);
    be->ops = b->ops;
    return b->start(be, threads);
}

void cpu_describe(struct text *out)
{
#if defined CPU_AVX2 || defined CPU_AVX512
    const struct {
        const char *name;
        bool here;
    } features[] = {
        {"avx2", __builtin_cpu_supports("avx2")},         {"fma", __builtin_cpu_supports("fma")},
        {"f16c", has_f16c()},                             {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512bw", __builtin_cpu_supports("avx512bw")}, {"avx512vl", __builtin_cpu_supports("avx512vl")},
        {"avx512dq", __builtin_cpu_supports("avx512dq")}, {"avx512vnni", __builtin_cpu_supports("avx512vnni")},
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (features[i].here)
            text_format(out, "%s ", features[i].name);
#endif
    text_add_string(out, "(built:");
    for (size_t i = 0; i < sizeof builds / sizeof *builds; i++)
        text_format(out, " %s", builds[i].isa);
    text_format(out, "; chosen: %s)", find(NULL)->isa);
}
