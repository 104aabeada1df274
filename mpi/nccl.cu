/* Sums over ranks on the device, by NCCL: linked into the CUDA module, which is built without this file where NCCL is not there
 * (the rows of the table are NULL then; see ops.h).
 *
 * What is hard about it: a rank that dies or hangs must not leave the others waiting for ever. So the group is non-blocking, its
 * state and the stream of the sums are polled under a timeout, and a group that failed is aborted. Source: NCCL user guide,
 * "Fault tolerance" and "Asynchronous errors".
 *
 * The sums are exact: int64 additions wrap and have no order. So NCCL may choose rings, trees or the switch as it likes.
 */
#include "cuda/ops.h"

#include <nccl.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CHANNELS_MOST = 8, /* buffers of at most 9.6 MB a channel and neighbour; a sum is rare and short beside a mini-batch */
    CLOSE_TIMEOUT_SEC = 10 /* for the neighbours to end too */
};
static const struct timespec pause_between = {0, 20000}; /* a sum takes a millisecond or more */
static const double longest_gap_sec = 1; /* a process that was stopped has not waited */

struct cuda_reduce {
    ncclComm_t comm;
    cudaStream_t stream; /* the sums, in order */
    cudaEvent_t ready;   /* on the stream of the operations: what is to be summed is there */
    double timeout_sec;  /* 0: none */
};

static double now_sec(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ncclInProgress until NCCL has done what it was asked for; of a sum that means that it is on its stream. */
static ncclResult_t group_state(const struct cuda_reduce *r)
{
    ncclResult_t state = ncclInProgress, asked = ncclCommGetAsyncError(r->comm, &state);
    return asked == ncclSuccess ? state : asked;
}

/* ncclInProgress until the sum is there. */
static ncclResult_t sum_state(const struct cuda_reduce *r)
{
    ncclResult_t state = group_state(r);
    if (state != ncclSuccess)
        return state;
    cudaError_t status = cudaStreamQuery(r->stream);
    if (status == cudaErrorNotReady) {
        cudaGetLastError(); /* or the next launch would be blamed for it */
        return ncclInProgress;
    }
    return status == cudaSuccess ? group_state(r) : ncclUnhandledCudaError;
}

/* Asks for the state until it is another than ncclInProgress, or time is up. */
static ncclResult_t wait_for(const struct cuda_reduce *r, ncclResult_t (*state_of)(const struct cuda_reduce *), double timeout_sec)
{
    double last = now_sec(), waited = 0;
    for (;;) {
        ncclResult_t state = state_of(r);
        if (state != ncclInProgress || (timeout_sec > 0 && waited > timeout_sec))
            return state;
        nanosleep(&pause_between, NULL);
        double now = now_sec(), passed = now - last;
        waited += passed < longest_gap_sec ? passed : longest_gap_sec;
        last = now;
    }
}

/* Puts a state other than ncclSuccess into the error slot, on one line. */
static int failed(const struct cuda_reduce *r, const char *what, ncclResult_t state)
{
    if (state == ncclInProgress)
        return error_set(ERR_SYSTEM, "%s: nothing for %g s (run.hang_timeout): a rank has left or hangs", what, r->timeout_sec);
    cudaError_t status = cudaGetLastError();
    const char *device = status == cudaSuccess ? "" : cudaGetErrorString(status);
    const char *detail = ncclGetLastError(r->comm);
    int n = detail ? (int)strcspn(detail, "\n") : 0;
    return error_set(ERR_SYSTEM, "%s: NCCL: %s%s%s%s%.*s", what, ncclGetErrorString(state), *device ? ": " : "", device,
                     n ? ": " : "", n, n ? detail : "");
}

/* Frees all but what NCCL holds. */
static void free_reduce(struct backend *be)
{
    struct cuda_reduce *r = cuda_state(be)->reduce;
    if (r->ready)
        cudaEventDestroy(r->ready);
    if (r->stream)
        cudaStreamDestroy(r->stream);
    free(r);
    cuda_state(be)->reduce = NULL;
}

/* Ends what hangs: kernels on the device, threads of NCCL. The message is in the slot already. */
static void abort_group(struct backend *be)
{
    ncclCommAbort(cuda_state(be)->reduce->comm);
    free_reduce(be);
}

int cuda_reduce_id(struct backend *be, void *id)
{
    static_assert(sizeof(ncclUniqueId) == REDUCE_ID_BYTES, "the id's size in backend.h");
    (void)be;
    ncclUniqueId unique;
    ncclResult_t state = ncclGetUniqueId(&unique);
    if (state != ncclSuccess)
        return error_set(ERR_SYSTEM, "a group for sums over ranks: NCCL: %s", ncclGetErrorString(state));
    memcpy(id, &unique, sizeof unique);
    return 0;
}

int cuda_reduce_open(struct backend *be, const void *id, int rank, int size, double timeout_sec)
{
    static const char what[] = "joining the group that sums over ranks";
    struct cuda_reduce *r = (struct cuda_reduce *)calloc(1, sizeof *r);
    CHECK(r && !cuda_state(be)->reduce, "a group is open, or out of memory");
    cuda_state(be)->reduce = r;
    r->timeout_sec = timeout_sec;
    cudaError_t status = cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking);
    if (status == cudaSuccess)
        status = cudaEventCreateWithFlags(&r->ready, cudaEventDisableTiming);
    if (status != cudaSuccess) {
        free_reduce(be);
        return error_set(ERR_SYSTEM, "%s: CUDA: %s", what, cudaGetErrorString(status));
    }
    ncclUniqueId unique;
    memcpy(&unique, id, sizeof unique);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = CHANNELS_MOST;
    ncclResult_t state = ncclCommInitRankConfig(&r->comm, size, unique, rank, &config);
    if (state == ncclSuccess || state == ncclInProgress)
        state = wait_for(r, group_state, timeout_sec);
    if (state == ncclSuccess)
        return 0;
    failed(r, what, state);
    abort_group(be);
    return -1;
}

void cuda_reduce_start(struct backend *be, struct grads *g)
{
    const struct cuda_reduce *r = cuda_state(be)->reduce;
    if (cuda_failed(be))
        return;
    cuda_check_status(be, "reduce_start", cudaEventRecord(r->ready, cuda_state(be)->stream));
    cuda_check_status(be, "reduce_start", cudaStreamWaitEvent(r->stream, r->ready, 0));
    ncclResult_t state = ncclAllReduce(g->sum, g->sum, (size_t)g->n, ncclInt64, ncclSum, r->comm, r->stream);
    if (state != ncclSuccess && state != ncclInProgress)
        cuda_fail(be, "reduce_start", ncclGetErrorString(state));
}

int cuda_reduce_finish(struct backend *be)
{
    struct cuda_reduce *r = cuda_state(be)->reduce;
    int rc = 0;
    if (cuda_failed(be)) {
        rc = error_set(ERR_SYSTEM, "CUDA: %s", cuda_state(be)->error);
    } else {
        ncclResult_t state = wait_for(r, sum_state, r->timeout_sec);
        rc = state == ncclSuccess ? 0 : failed(r, "the sum of the gradients", state);
    }
    if (rc)
        abort_group(be);
    return rc;
}

void cuda_reduce_close(struct backend *be)
{
    struct cuda_reduce *r = cuda_state(be)->reduce;
    ncclResult_t state = ncclCommFinalize(r->comm);
    if (state == ncclSuccess || state == ncclInProgress)
        state = wait_for(r, group_state, CLOSE_TIMEOUT_SEC);
    if (state == ncclSuccess)
        ncclCommDestroy(r->comm);
    else
        ncclCommAbort(r->comm);
    free_reduce(be);
}
