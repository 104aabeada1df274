/* A kernel's grid on the CPU: what runs in it sees (device words of cuda/launch.cuh, cuda/mma.cuh) and how it is run.
 *
 * Blocks run one after another. The threads of a block are fibers that run until they wait: at a barrier of the block, or where
 * the lanes of their warp meet. A thread that never waits costs a call.
 */
#ifndef RLHF_TESTS_SHIM_GRID_H
#define RLHF_TESTS_SHIM_GRID_H

#include <cuda_runtime.h>

#include <source_location>
#include <stdint.h>
#include <vector>

namespace shim {

struct fiber;

enum { LANES = 32, THREADS_MOST = 1024, WARPS_MOST = THREADS_MOST / LANES };

/* A place in a kernel's source. */
typedef std::source_location place;

/* A copy from global to shared memory under way; it is made when its thread waits for its group. */
struct copy {
    void *shared;
    const void *global; /* NULL: zeros */
    unsigned group;
};

/* A thread's copies, oldest first; those before `made` have been made. */
struct copies {
    std::vector<struct copy> list;
    size_t made;
    unsigned group; /* of the copies to come */
};

struct thread {
    uint3 index;
    int lane;
    bool exited;
    struct warp *warp;
    struct thread *next; /* of the warp's ring */
    struct fiber *fiber; /* NULL before it has begun */
    struct copies copies;
};

struct block {
    const char *kernel;
    dim3 grid, dim;
    uint3 index;
    unsigned char *shared; /* dynamic */
    size_t shared_bytes;
};

extern struct thread *current; /* the running thread; NULL in host code */
extern struct block block;

/* What a lane brings to a meeting of its warp; the last to arrive performs it for all. part[lane]: NULL for a lane that has exited. */
typedef void perform(void *const part[LANES]);

/* Returns when all lanes of the warp have come to the same place and the work is done. */
void meet(void *part, perform *work, place at);

/* __syncthreads. */
void barrier(place at);

/* Ends the process with a message that names the kernel, and where a thread runs the block and the thread. */
[[noreturn]] void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Shared memory, bytes at p, aligned to 16; else broken. */
void check_shared(const void *p, size_t bytes, const char *operation);

/* Runs body(closure) once a thread. */
void grid_run(const char *kernel, const void *function, dim3 grid, dim3 dim, size_t shared_bytes,
              void (*body)(const void *), const void *closure);

} // namespace shim

#endif
