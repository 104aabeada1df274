/* Opens a backend: the CPU's is linked in; CUDA's is a module that is opened only where a driver is.
 *
 * The module exports a table, backend_module, and the function that starts it, backend_module_open. The table's ABI number
 * is compared before anything else is read or called; then no row may be missing.
 */
#include "backend.h"

#include "error.h"
#include "log.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRIVER "libcuda.so.1"
#define MODULE "rlhf-hpc-cuda.so"

/* Sets be->state. The module's calls of error.h end in this program's, which exports its symbols. */
typedef int module_open(struct backend *be, const struct backend_choice *choice);

#define ROW(name)                                                                                  \
    {                                                                                              \
#name, offsetof(struct backend_ops, name)                                                  \
    }

static const struct {
    const char *name;
    size_t offset;
} rows[] = {
    ROW(describe),
    ROW(close),
    ROW(region_alloc),
    ROW(host_alloc),
    ROW(memory_free),
    ROW(overhead_bytes),
    ROW(device_id),
    ROW(sync),
    ROW(program_begin),
    ROW(program_end),
    ROW(workspace_bytes),
    ROW(workspace_set),
    ROW(linear_weight_bytes),
    ROW(lora_packed_bytes),
    ROW(linear_put_rows),
    ROW(linear_get_rows),
    ROW(linear_refresh),
    ROW(copy_in),
    ROW(zero),
    ROW(copy_out),
    ROW(embed),
    ROW(norm_forward),
    ROW(linear_forward),
    ROW(qkv_rope),
    ROW(add),
    ROW(cache_bytes),
    ROW(attn_forward),
    ROW(attn_decode),
    ROW(act_forward),
    ROW(head_logprob),
    ROW(head_logits),
    ROW(head_sample),
    ROW(score_head),
    ROW(head_logprob_backward),
    ROW(head_slope_backward),
    ROW(score_head_backward),
    ROW(norm_backward),
    ROW(linear_backward),
    ROW(qkv_rope_backward),
    ROW(attn_backward),
    ROW(act_backward),
    ROW(grads_zero),
    ROW(grads_norm),
    ROW(adamw),
    ROW(hash),
    ROW(measure),
};

enum { N_ROWS = sizeof rows / sizeof *rows };

/* A row that the list above lacks would go unchecked: all that follows the traits is rows, but for five that may be NULL:
 * embed_backward and the reduce_ rows. */
_Static_assert(sizeof(struct backend_ops) ==
                   offsetof(struct backend_ops, describe) + (N_ROWS + 5) * sizeof(void *),
               "the list of rows is not backend.h's");

static int check_table(const struct backend_ops *ops, const char *where)
{
    if (ops->abi != BACKEND_ABI)
        return error_set(
            ERR_SYSTEM, "%s: backend ABI %d, this program has %d; build both from the same sources",
            where, ops->abi, BACKEND_ABI);
    for (int i = 0; i < N_ROWS; i++) {
        void *row;
        memcpy(&row, (const char *)ops + rows[i].offset, sizeof row);
        if (!row)
            return error_set(ERR_SYSTEM, "%s: the operation %s is missing", where, rows[i].name);
    }
    return 0;
}

static bool has_driver(void)
{
    return dlopen(DRIVER, RTLD_NOW | RTLD_GLOBAL) != NULL;
}

/* The module where the loader looks (LD_LIBRARY_PATH), else beside the program (a build, a bundle), else where it was
 * installed. NULL: none; dlerror says why. */
static void *find_module(void)
{
    char path[PATH_MAX];
    void *module = dlopen(MODULE, RTLD_NOW);
    ssize_t n = module ? 0 : readlink("/proc/self/exe", path, sizeof path - sizeof "/" MODULE);
    if (n > 0) {
        path[n] = 0;
        strcpy(strrchr(path, '/') + 1, MODULE);
        if (access(path, R_OK) == 0)
            module = dlopen(path, RTLD_NOW);
    }
    return module || access(PKGLIBDIR "/" MODULE, R_OK) != 0 ? module : dlopen(PKGLIBDIR "/" MODULE, RTLD_NOW);
}

static int start_module(struct backend *be, void *module, const struct backend_choice *choice)
{
    const struct backend_ops *ops = dlsym(module, "backend_module");
    module_open *open = (module_open *)dlsym(module, "backend_module_open");
    if (!ops || !open)
        return error_set(ERR_SYSTEM, "%s: exports no %s", MODULE,
                         ops ? "backend_module_open" : "backend_module");
    TRY(check_table(ops, MODULE));
    be->ops = ops;
    return open(be, choice);
}

static int open_cpu(struct backend *be, const struct backend_choice *choice)
{
    TRY(cpu_open(be, NULL, choice->threads));
    return check_table(be->ops, "the CPU backend");
}

static int open_cuda(struct backend *be, const struct backend_choice *choice)
{
    if (!choice->plan_only && !has_driver())
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": no NVIDIA driver on this machine (%s)",
                         DRIVER);
    void *module = find_module();
    if (!module)
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": %s", dlerror());
    return start_module(be, module, choice);
}

/* A machine with a driver was meant to be used: going without its module is said, a module that is wrong is an error. */
static int open_auto(struct backend *be, const struct backend_choice *choice)
{
    if (!has_driver())
        return open_cpu(be, choice);
    void *module = find_module();
    if (module)
        return start_module(be, module, choice);
    log_warn("this machine has an NVIDIA driver, but %s is not here: running on the CPU (%s)",
             MODULE, dlerror());
    return open_cpu(be, choice);
}

static const struct {
    const char *name;
    int (*open)(struct backend *be, const struct backend_choice *choice);
} devices[] = {{"auto", open_auto}, {"cpu", open_cpu}, {"cuda", open_cuda}};

int backend_open(struct backend *be, const struct backend_choice *choice)
{
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (!strcmp(devices[i].name, choice->device))
            return devices[i].open(be, choice);
    return error_set(ERR_INPUT, "run.device: unknown device \"%s\"; one of auto, cpu, cuda",
                     choice->device);
}
