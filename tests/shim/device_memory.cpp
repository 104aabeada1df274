/* Allocations and copies. Fresh memory holds 0xff bytes: NaN as a float, -1 as an integer. Each allocation is one of the host's, so that
 * AddressSanitizer sees overruns. A copy's ends must lie within allocations of their kind. */
#include "device_memory.h"

#include "error_code.h"
#include "fault.h"
#include "stream.h"

#include <map>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace shim {

enum kind { DEVICE, PINNED };

struct allocation {
    size_t bytes;
    enum kind kind;
};

static std::map<uintptr_t, struct allocation> allocations; /* by address */
static size_t used;                                        /* of the device */

enum { ALIGNMENT = 256, POISON = 0xff };

/* The allocation that holds p, or ends there; NULL: none. */
static const struct allocation *find(const void *p, size_t *left)
{
    auto after = allocations.upper_bound((uintptr_t)p);
    if (after == allocations.begin())
        return NULL;
    --after;
    const size_t offset = (uintptr_t)p - after->first;
    if (offset > after->second.bytes)
        return NULL;
    *left = after->second.bytes - offset;
    return &after->second;
}

bool memory_on_device(const void *p)
{
    size_t left;
    return find(p, &left) != NULL;
}

size_t memory_total()
{
    const char *text = getenv("RLHF_SHIM_MEMORY");
    return text && *text ? strtoull(text, NULL, 10) : (size_t)16 << 30;
}

static bool guarded()
{
    static const char *const text = getenv("RLHF_SHIM_GUARD");
    return text && *text && *text != '0';
}

static int opened;

static void protect(int access)
{
    for (const auto &a : allocations)
        if (a.second.kind == DEVICE && mprotect((void *)a.first, a.second.bytes, access) != 0)
            abort();
}

void memory_open()
{
    if (opened++ == 0 && guarded())
        protect(PROT_READ | PROT_WRITE);
}

void memory_close()
{
    if (--opened == 0 && guarded())
        protect(PROT_NONE);
}

/* Whole pages where they are to be guarded. */
static void *obtain(size_t bytes, enum kind kind)
{
    void *p = NULL;
    if (kind == DEVICE && guarded()) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    return posix_memalign(&p, ALIGNMENT, bytes) == 0 ? p : NULL;
}

static void give_back(void *p, size_t bytes, enum kind kind)
{
    if (kind == DEVICE && guarded())
        munmap(p, bytes);
    else
        free(p);
}

static cudaError_t allocate(void **p, size_t bytes, enum kind kind)
{
    fault_watch();
    *p = NULL;
    if (cudaError_t error = capture_forbids())
        return error;
    if (bytes == 0)
        return pending_error();
    if (kind == DEVICE && bytes > memory_total() - used)
        return failed(cudaErrorMemoryAllocation);
    *p = obtain(bytes, kind);
    if (!*p)
        return failed(cudaErrorMemoryAllocation);
    memset(*p, POISON, bytes);
    memory_open();
    allocations[(uintptr_t)*p] = {bytes, kind};
    memory_close();
    if (kind == DEVICE)
        used += bytes;
    return pending_error();
}

/* Waits for all work, as cudaFree does. */
static cudaError_t release(void *p, enum kind kind)
{
    if (cudaError_t error = capture_forbids())
        return error;
    if (!p)
        return pending_error();
    const auto a = allocations.find((uintptr_t)p);
    if (a == allocations.end() || a->second.kind != kind)
        return failed(cudaErrorInvalidValue);
    device_drain();
    if (kind == DEVICE)
        used -= a->second.bytes;
    give_back(p, a->second.bytes, kind);
    allocations.erase(a);
    return pending_error();
}

/* How an end of a copy was said to be against what it is. */
static cudaError_t check_end(const void *p, size_t bytes, bool on_device, bool capturing)
{
    size_t left = 0;
    const struct allocation *a = find(p, &left);
    if (a && bytes > left)
        return cudaErrorInvalidValue;
    if (on_device ? !a : a && a->kind == DEVICE)
        return cudaErrorInvalidValue;
    return capturing && !a ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

static cudaError_t check_copy(const void *to, const void *from, size_t to_bytes, size_t from_bytes,
                              cudaMemcpyKind kind, bool capturing)
{
    size_t left;
    const struct allocation *a = find(to, &left), *b = find(from, &left);
    const bool to_device = kind == cudaMemcpyDefault
                               ? a && a->kind == DEVICE
                               : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDefault ? b && b->kind == DEVICE
                                                       : kind == cudaMemcpyDeviceToHost ||
                                                             kind == cudaMemcpyDeviceToDevice;
    if (cudaError_t error = check_end(to, to_bytes, to_device, capturing))
        return error;
    return check_end(from, from_bytes, from_device, capturing);
}

/* Pageable memory is read before the call returns, and written too. */
static bool pageable(const void *p)
{
    size_t left;
    return !find(p, &left);
}

static cudaError_t copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                             size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    if (pending_error())
        return pending_error();
    if (width == 0 || height == 0)
        return cudaSuccess;
    const bool capturing = stream_captures(stream);
    if (cudaError_t error = check_copy(to, from, (height - 1) * to_pitch + width,
                                       (height - 1) * from_pitch + width, kind, capturing)) {
        if (error == cudaErrorStreamCaptureUnsupported)
            capture_forbids();
        return failed(error);
    }
    enqueue(stream, [=] {
        for (size_t i = 0; i < height; i++)
            memmove((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    });
    if (!capturing && (pageable(to) || pageable(from)))
        stream_drain(stream);
    return pending_error();
}

/* Calls without a stream go by the default one, which waits for the others. */
static cudaError_t begin_blocking()
{
    if (cudaError_t error = capture_forbids())
        return error;
    device_drain();
    return pending_error();
}

} // namespace shim

using namespace shim;

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    return allocate(p, bytes, DEVICE);
}

cudaError_t cudaFree(void *p)
{
    return release(p, DEVICE);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    return allocate(p, bytes, PINNED);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return allocate(p, bytes, PINNED);
}

cudaError_t cudaFreeHost(void *p)
{
    return release(p, PINNED);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *total = memory_total();
    *free = *total - used;
    return pending_error();
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (cudaError_t error = begin_blocking())
        return error;
    const cudaError_t error = copy_rows(to, bytes, from, bytes, bytes, 1, kind, NULL);
    stream_drain(NULL);
    return error;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy_rows(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    if (width > to_pitch || width > from_pitch)
        return failed(cudaErrorInvalidValue);
    return copy_rows(to, to_pitch, from, from_pitch, width, height, kind, stream);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    if (cudaError_t error = begin_blocking())
        return error;
    const cudaError_t error = cudaMemsetAsync(p, value, bytes, NULL);
    stream_drain(NULL);
    return error;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    if (pending_error() || bytes == 0)
        return pending_error();
    if (cudaError_t error = check_end(p, bytes, true, false))
        return failed(error);
    enqueue(stream, [=] { memset(p, value, bytes); });
    return cudaSuccess;
}
