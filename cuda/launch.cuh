/* How kernels are started, and the words of CUDA that tests/shim says otherwise: it has a launch.cuh of its own, found first, with
 * which the same sources run on a CPU. Kernels are launched by LAUNCH alone (never <<< >>>), dynamic shared memory is named
 * by DYN_SHARED alone. A kernel's name with commas in template arguments goes into parentheses.
 */
#ifndef RLHF_CUDA_LAUNCH_CUH
#define RLHF_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>

enum { SHARED_DEFAULT = 48 << 10, SHARED_MOST = 99 << 10 }; /* bytes a block: without asking; on every target */

/* kernel<<<grid, block, shared, stream>>>(...). Errors stay in cudaGetLastError, which cuda_check (cuda.h) reads. */
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    do {                                                                                           \
        if ((shared) > SHARED_DEFAULT)                                                             \
            cudaFuncSetAttribute((const void *)kernel,                                             \
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared));      \
        kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__);                              \
    } while (0)

/* type *name: the block's dynamic shared memory, aligned to 128 bytes. Once in a kernel. */
#define DYN_SHARED(type, name)                                                                     \
    extern __shared__ __align__(128) unsigned char dynamic_shared[];                               \
    type *name = (type *)dynamic_shared

#endif
