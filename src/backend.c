/* Opens a backend: the CPU's is linked in; CUDA's is a module that is opened only where a driver is.
 *
 * The module exports a table, backend_module, and the function that starts it, backend_module_open. The table's ABI number
 * is compared before anything else is read or called; then no row may be missing.
 */
#include "backend.h"

#include "error.h"
#include "log.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define DRIVER "libcuda.so.1"
#define MODULE "rlhf-hpc-cuda.so"

/* In the module's own copy of the error slot nobody would see a message: it writes it here. */
typedef int module_open(struct backend *be, int threads, char *message, size_t bytes);

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
    ROW(memory_free),
    ROW(sync),
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
    ROW(scalar_head),
    ROW(head_logprob_backward),
    ROW(head_slope_backward),
    ROW(scalar_head_backward),
    ROW(norm_backward),
    ROW(linear_backward),
    ROW(qkv_rope_backward),
    ROW(attn_backward),
    ROW(act_backward),
    ROW(embed_backward),
    ROW(grads_zero),
    ROW(grads_norm),
    ROW(adamw),
    ROW(hash),
};

enum { N_ROWS = sizeof rows / sizeof *rows };

/* A row that the list above lacks would go unchecked: all that follows abi and name is rows. */
_Static_assert(sizeof(struct backend_ops) == (N_ROWS + 2) * sizeof(void *),
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

/* The module, NULL where there is none; dlerror says why. */
static void *find_module(void)
{
    return dlopen(MODULE, RTLD_NOW);
}

static int start_module(struct backend *be, void *module, int threads)
{
    char message[256] = "";
    const struct backend_ops *ops = dlsym(module, "backend_module");
    module_open *open = (module_open *)dlsym(module, "backend_module_open");
    if (!ops || !open)
        return error_set(ERR_SYSTEM, "%s: exports no %s", MODULE,
                         ops ? "backend_module_open" : "backend_module");
    TRY(check_table(ops, MODULE));
    be->ops = ops;
    if (open(be, threads, message, sizeof message) != 0)
        return error_set(ERR_SYSTEM, "%s: %s", MODULE, message);
    return 0;
}

static int open_cpu(struct backend *be, int threads)
{
    TRY(cpu_open(be, NULL, threads));
    return check_table(be->ops, "the CPU backend");
}

static int open_cuda(struct backend *be, int threads)
{
    if (!has_driver())
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": no NVIDIA driver on this machine (%s)",
                         DRIVER);
    void *module = find_module();
    if (!module)
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": %s", dlerror());
    return start_module(be, module, threads);
}

/* A machine with a driver was meant to be used: going without its module is said, a module that is wrong is an error. */
static int open_auto(struct backend *be, int threads)
{
    if (!has_driver())
        return open_cpu(be, threads);
    void *module = find_module();
    if (module)
        return start_module(be, module, threads);
    log_warn("this machine has an NVIDIA driver, but %s is not here: running on the CPU (%s)",
             MODULE, dlerror());
    return open_cpu(be, threads);
}

static const struct {
    const char *name;
    int (*open)(struct backend *be, int threads);
} devices[] = {{"auto", open_auto}, {"cpu", open_cpu}, {"cuda", open_cuda}};

int backend_open(struct backend *be, const char *device, int threads)
{
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (!strcmp(devices[i].name, device))
            return devices[i].open(be, threads);
    return error_set(ERR_INPUT, "run.device: unknown device \"%s\"; one of auto, cpu, cuda",
                     device);
}
