/* Life of the CUDA backend: one device, one stream, memory by purpose, copies.
 *
 * Copies into the device go through a ring of page-locked memory: the caller may reuse his memory at once, and the stream
 * need not be waited for. The ring has two halves; one is filled while the copies out of the other are still on their way.
 */
#include "cuda/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t ring_half = (size_t)8 << 20;
static const size_t copy_align = 64;

/* What a context takes on recent drivers (about 430 MiB where there are 142 multiprocessors), with the kernels that are loaded and the
 * recorded programs (10 KB a kernel: 7 MB for a decode step of 44 layers, and one of each number of rows), and the most that NCCL's
 * channels take (mpi/nccl.cu). Estimates: the plan says so. */
static const size_t context_bytes = (size_t)640 << 20;
static const size_t channels_bytes = (size_t)296 << 20;

struct cuda_memory {
    void *p;
    bool host;
    struct cuda_memory *next;
};

struct cuda_staging {
    unsigned char *half[2];
    cudaEvent_t copied[2]; /* all copies out of that half */
    int current;
    size_t used; /* of the current half */
};

void cuda_fail(struct backend *be, const char *operation, const char *message)
{
    struct cuda_state *s = cuda_state(be);
    if (!s->error[0])
        snprintf(s->error, sizeof s->error, "%s: %s", operation, message);
}

void cuda_check_status(struct backend *be, const char *operation, cudaError_t status)
{
    if (status != cudaSuccess)
        cuda_fail(be, operation, cudaGetErrorString(status));
}

void *cuda_scratch(struct backend *be, size_t bytes)
{
    const struct cuda_state *s = cuda_state(be);
    CHECK(bytes <= s->workspace_bytes, "%zu bytes of scratch, %zu planned", bytes, s->workspace_bytes);
    return s->workspace;
}

static int failed(cudaError_t status, const char *what)
{
    return status == cudaSuccess ? 0 : error_set(ERR_SYSTEM, "CUDA: %s: %s", what, cudaGetErrorString(status));
}

static int staging_open(struct cuda_staging *g)
{
    for (int i = 0; i < 2; i++) {
        TRY(failed(cudaMallocHost((void **)&g->half[i], ring_half), "page-locked memory"));
        TRY(failed(cudaEventCreateWithFlags(&g->copied[i], cudaEventDisableTiming), "an event"));
    }
    return 0;
}

static void staging_close(struct cuda_staging *g)
{
    for (int i = 0; i < 2; i++) {
        if (g->copied[i])
            cudaEventDestroy(g->copied[i]);
        cudaFreeHost(g->half[i]);
    }
    free(g);
}

static int open_device(struct cuda_state *s, int node_rank)
{
    int count = 0, device;
    struct cudaDeviceProp p;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0)
        return error_set(ERR_SYSTEM, "run.device = \"cuda\": no device is visible (%s)",
                         status == cudaSuccess ? "CUDA_VISIBLE_DEVICES?" : cudaGetErrorString(status));
    device = node_rank % count;
    TRY(failed(cudaSetDevice(device), "the device"));
    TRY(failed(cudaGetDeviceProperties(&p, device), "the device"));
    if (p.major < 8)
        return error_set(ERR_SYSTEM, "%s has compute capability %d.%d; this backend needs 8.0 or above", p.name, p.major,
                         p.minor);
    static_assert(sizeof p.uuid == DEVICE_ID_BYTES, "a UUID");
    memcpy(s->id, &p.uuid, sizeof s->id);
    snprintf(s->description, sizeof s->description, "%s (compute %d.%d, %.1f GiB)", p.name, p.major, p.minor,
             (double)p.totalGlobalMem / 1073741824.0);
    TRY(failed(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), "a stream"));
    s->staging = (struct cuda_staging *)calloc(1, sizeof *s->staging);
    CHECK(s->staging, "out of memory");
    TRY(staging_open(s->staging));
    if (cublasLtCreate(&s->blas) != CUBLAS_STATUS_SUCCESS)
        return error_set(ERR_SYSTEM, "CUDA: cuBLASLt does not start");
    return 0;
}

int cuda_open(struct backend *be, const struct backend_choice *choice)
{
    struct cuda_state *s = (struct cuda_state *)calloc(1, sizeof *s);
    CHECK(s, "out of memory");
    be->state = s;
    int count = 0;
    s->plan_only = choice->plan_only && (cudaGetDeviceCount(&count) != cudaSuccess || count == 0);
    if (s->plan_only) {
        cudaGetLastError();
        snprintf(s->description, sizeof s->description, "CUDA, planned without a device");
        return 0;
    }
    int rc = open_device(s, choice->node_rank);
    if (rc != 0)
        cuda_close(be);
    return rc;
}

void cuda_close(struct backend *be)
{
    struct cuda_state *s = cuda_state(be);
    if (!s)
        return;
    if (s->stream)
        cudaStreamSynchronize(s->stream);
    if (s->reduce)
        cuda_reduce_close(be);
    cuda_programs_close(be);
    for (struct cuda_memory *m = s->memory, *next; m; m = next) {
        next = m->next;
        if (m->host)
            cudaFreeHost(m->p);
        else
            cudaFree(m->p);
        free(m);
    }
    if (s->staging)
        staging_close(s->staging);
    if (s->blas)
        cublasLtDestroy(s->blas);
    if (s->stream)
        cudaStreamDestroy(s->stream);
    free(s);
    be->state = NULL;
}

const char *cuda_describe(struct backend *be)
{
    return cuda_state(be)->description;
}

const unsigned char *cuda_device_id(struct backend *be)
{
    return cuda_state(be)->plan_only ? NULL : cuda_state(be)->id;
}

/* Memory of the state's list; NULL when there is none left. */
static void *keep(struct cuda_state *s, void *p, bool host)
{
    struct cuda_memory *m = (struct cuda_memory *)malloc(sizeof *m);
    CHECK(m, "out of memory");
    *m = (struct cuda_memory){p, host, s->memory};
    s->memory = m;
    return p;
}

void *cuda_region_alloc(struct backend *be, const char *purpose, size_t bytes)
{
    struct cuda_state *s = cuda_state(be);
    void *p = NULL;
    if (!bytes)
        return NULL;
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
        cudaGetLastError(); /* the caller says what was wanted */
        return NULL;
    }
    cuda_check_status(be, purpose, cudaMemsetAsync(p, 0, bytes, s->stream));
    return keep(s, p, false);
}

void *cuda_host_alloc(struct backend *be, const char *purpose, size_t bytes)
{
    (void)purpose;
    void *p = NULL;
    if (!bytes)
        return NULL;
    if (cudaMallocHost(&p, bytes) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    memset(p, 0, bytes);
    return keep(cuda_state(be), p, true);
}

size_t cuda_memory_free(struct backend *be)
{
    size_t free_bytes = 0, total = 0;
    if (cuda_state(be)->plan_only)
        return SIZE_MAX; /* no device to ask */
    cuda_check_status(be, "memory_free", cudaMemGetInfo(&free_bytes, &total));
    return free_bytes + context_bytes; /* the context is there already, and overhead_bytes counts it */
}

size_t cuda_overhead_bytes(struct backend *be, int ranks)
{
    (void)be;
    return context_bytes + (ranks > 1 ? channels_bytes : 0);
}

int cuda_sync(struct backend *be)
{
    struct cuda_state *s = cuda_state(be);
    if (!s->error[0])
        cuda_check_status(be, "the device", cudaStreamSynchronize(s->stream));
    return s->error[0] ? error_set(ERR_SYSTEM, "CUDA: %s", s->error) : 0;
}

void cuda_workspace_set(struct backend *be, void *workspace, size_t bytes)
{
    cuda_state(be)->workspace = workspace;
    cuda_state(be)->workspace_bytes = bytes;
}

size_t cuda_workspace_bytes(struct backend *be, int max_tokens, int max_in, int max_out, int max_seq, int head_dim, int vocab)
{
    const size_t need[] = {cuda_linear_workspace(be, max_tokens, max_in, max_out),
                           cuda_attention_workspace(be, max_tokens, max_in > max_out ? max_in : max_out, max_seq, head_dim),
                           cuda_head_workspace(be, max_tokens, max_in, vocab), cuda_update_workspace()};
    size_t most = 0;
    for (size_t n : need)
        most = n > most ? n : most;
    return most;
}

/* Room for n bytes in the ring; waits for the copies out of a half before it is filled again. */
static unsigned char *staging_take(struct backend *be, size_t n)
{
    struct cuda_staging *g = cuda_state(be)->staging;
    if (g->used + n > ring_half) {
        cuda_check_status(be, "copy_in", cudaEventRecord(g->copied[g->current], cuda_state(be)->stream));
        g->current ^= 1;
        g->used = 0;
        cuda_check_status(be, "copy_in", cudaEventSynchronize(g->copied[g->current]));
    }
    unsigned char *p = g->half[g->current] + g->used;
    g->used += (n + copy_align - 1) / copy_align * copy_align;
    return p;
}

void cuda_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    for (size_t at = 0; at < bytes && !cuda_failed(be); at += ring_half) {
        const size_t n = bytes - at < ring_half ? bytes - at : ring_half;
        unsigned char *p = staging_take(be, n);
        memcpy(p, (const char *)host + at, n);
        cuda_check_status(be, "copy_in",
                          cudaMemcpyAsync((char *)device + at, p, n, cudaMemcpyHostToDevice, cuda_state(be)->stream));
    }
}

void cuda_copy_in(struct backend *be, void *device, const void *host, size_t bytes)
{
    cuda_upload(be, device, host, bytes);
}

void cuda_copy_out(struct backend *be, void *host, const void *device, size_t bytes)
{
    cudaStream_t stream = cuda_state(be)->stream;
    if (cuda_failed(be) || !bytes)
        return;
    cuda_check_status(be, "copy_out", cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
    cuda_check_status(be, "copy_out", cudaStreamSynchronize(stream));
}

void cuda_zero(struct backend *be, void *device, size_t bytes)
{
    if (!cuda_failed(be) && bytes)
        cuda_check_status(be, "zero", cudaMemsetAsync(device, 0, bytes, cuda_state(be)->stream));
}
