/* Opens a backend: the CPU's is linked in; CUDA's is a module that is opened only where a driver is. */
#include "backend.h"

#include "error.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define MODULE "rlhf-hpc-cuda.so"

/* Every row of a table is a pointer: none may be missing. */
static int check_table(const struct backend_ops *ops)
{
    if (ops->abi != BACKEND_ABI)
        return error_set(ERR_SYSTEM, "%s: backend ABI %d, this program has %d; build both from the same sources", MODULE,
                         ops->abi, BACKEND_ABI);
    void *const *row = (void *const *)&ops->name;
    size_t n = (sizeof *ops - offsetof(struct backend_ops, name)) / sizeof *row;
    for (size_t i = 0; i < n; i++)
        if (!row[i])
            return error_set(ERR_SYSTEM, "%s: operation number %zu of the backend's table is missing", MODULE, i);
    return 0;
}

static int cuda_open(struct backend *be)
{
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL))
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": no NVIDIA driver on this machine");
    void *module = dlopen(MODULE, RTLD_NOW);
    if (!module)
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": %s", dlerror());
    int (*open_module)(struct backend *) = (int (*)(struct backend *))dlsym(module, "backend_module_open");
    if (!open_module)
        return error_set(ERR_SYSTEM, "%s: exports no backend_module_open", MODULE);
    TRY(open_module(be));
    return check_table(be->ops);
}

int backend_open(struct backend *be, const char *device, int threads)
{
    if (!strcmp(device, "cuda"))
        return cuda_open(be);
    if (!strcmp(device, "auto") && cuda_open(be) == 0)
        return 0;
    error_clear();
    return cpu_open(be, NULL, threads);
}
