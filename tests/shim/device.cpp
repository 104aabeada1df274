/* Errors, devices, and what is checked of a launch. */
#include "device_memory.h"
#include "error_code.h"
#include "launch.h"

#include <fcntl.h>
#include <map>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <unistd.h>

namespace shim {

enum { SHARED_WITHOUT_ASKING = 48 << 10, SHARED_LIMIT = 99 << 10 };

static cudaError_t last, lasting;
static int device;
static std::map<const void *, int> shared_granted;

/* --- errors --- */

cudaError_t failed(cudaError_t error)
{
    last = error;
    return error;
}

cudaError_t pending_error()
{
    return lasting;
}

void fail_for_good(cudaError_t error)
{
    if (!lasting)
        lasting = error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not initiated in this stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

/* --- launches --- */

struct launches {
    std::map<const char *, uint64_t> count; /* by the address of the name, as LAUNCH gives it */
    ~launches();
};
static struct launches launches;

/* "(norm<64, 2>)": norm */
static std::string bare_name(const char *kernel)
{
    std::string name = kernel;
    name.erase(0, name.find_first_not_of("( "));
    return name.substr(0, name.find_first_of("<) "));
}

void launch_log(const char *kernel)
{
    launches.count[kernel]++;
}

/* Written in one piece: several processes append to one file. */
launches::~launches()
{
    const char *path = getenv("RLHF_SHIM_LOG");
    if (!path || count.empty())
        return;
    std::map<std::string, uint64_t> sum;
    for (const auto &kernel : count)
        sum[bare_name(kernel.first)] += kernel.second;
    std::string text;
    for (const auto &kernel : sum)
        text += kernel.first + " " + std::to_string(kernel.second) + "\n";
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (fd < 0 || write(fd, text.data(), text.size()) != (ssize_t)text.size())
        perror(path);
    if (fd >= 0)
        close(fd);
}

/* RLHF_SHIM_FAIL names a kernel whose launch fails, as one that touched foreign memory would. */
static bool told_to_fail(const char *kernel)
{
    static const char *const name = getenv("RLHF_SHIM_FAIL");
    return name && bare_name(kernel) == name;
}

/* A kernel is loaded when it is first launched, which drivers before CUDA 12.4 refuse while a stream records. */
static bool load(const void *function)
{
    static std::set<const void *> loaded;
    if (loaded.count(function))
        return true;
    if (capture_forbids())
        return false;
    loaded.insert(function);
    return true;
}

bool launch_allowed(const char *kernel, const void *function, dim3 grid, dim3 block, size_t shared)
{
    if (lasting)
        return false;
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.z > 64 || !grid.x || !grid.y || !grid.z ||
        grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
        failed(cudaErrorInvalidConfiguration);
        return false;
    }
    const auto granted = shared_granted.find(function);
    if (shared > (granted == shared_granted.end() ? (size_t)SHARED_WITHOUT_ASKING
                                                  : (size_t)granted->second)) {
        failed(cudaErrorInvalidValue);
        return false;
    }
    if (told_to_fail(kernel)) {
        fail_for_good(cudaErrorIllegalAddress);
        return false;
    }
    return load(function);
}

void check_argument(const char *kernel, int number, const void *p)
{
    if (p && !memory_on_device(p))
        broken("kernel %s: argument %d, %p, is not memory of the device", kernel, number, p);
}

/* --- devices --- */

static long setting(const char *name, long without)
{
    const char *text = getenv(name);
    return text && *text ? atol(text) : without;
}

/* FNV-1a, twice: any text makes an identity. */
static void make_uuid(char uuid[16], const char *text)
{
    uint64_t h = 0xcbf29ce484222325;
    for (int half = 0; half < 2; half++) {
        for (const char *c = text; *c; c++)
            h = (h ^ (unsigned char)*c) * 0x100000001b3;
        memcpy(uuid + 8 * half, &h, 8);
    }
}

} // namespace shim

using namespace shim;

cudaError_t cudaPeekAtLastError()
{
    return lasting ? lasting : last;
}

cudaError_t cudaGetLastError()
{
    const cudaError_t error = cudaPeekAtLastError();
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &e : errors)
        if (e.error == error)
            return e.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &e : errors)
        if (e.error == error)
            return e.name;
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = (int)setting("RLHF_SHIM_DEVICES", 1);
    return *count > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int number)
{
    if (number < 0 || number >= setting("RLHF_SHIM_DEVICES", 1))
        return failed(cudaErrorInvalidDevice);
    device = number;
    return pending_error();
}

cudaError_t cudaGetDevice(int *number)
{
    *number = device;
    return pending_error();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int number)
{
    if (number < 0 || number >= setting("RLHF_SHIM_DEVICES", 1))
        return failed(cudaErrorInvalidDevice);
    *properties = {};
    strcpy(properties->name, "shim");
    char text[256];
    const char *given = getenv("RLHF_SHIM_UUID");
    const char *rank = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    snprintf(text, sizeof text, "%.200s/%d", given ? given : rank ? rank : "0", number);
    make_uuid(properties->uuid.bytes, text);
    properties->totalGlobalMem = memory_total();
    properties->sharedMemPerBlock = SHARED_WITHOUT_ASKING;
    properties->sharedMemPerBlockOptin = SHARED_LIMIT;
    properties->major = 8;
    properties->minor = 6;
    properties->multiProcessorCount = 1;
    properties->warpSize = LANES;
    properties->maxThreadsPerBlock = THREADS_MOST;
    properties->l2CacheSize = 4 << 20;
    properties->pciDeviceID = number;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    return cudaRuntimeGetVersion(version);
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value > SHARED_LIMIT)
        return failed(cudaErrorInvalidValue);
    shared_granted[function] = value;
    return pending_error();
}
