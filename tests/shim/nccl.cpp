/* NCCL on MPI_COMM_WORLD, which the program itself leaves to libraries: a group is all ranks. Non-blocking as the library can be: a
 * call returns at once, the work begins when the state is asked for next, and the stream is not ready until it is done.
 *
 * RLHF_SHIM_NCCL="FAULT:RANK:N" has that rank fail at its sum number N (from 1; 0: when it joins):
 *   die     it leaves without a word
 *   hang    it never takes part
 *   async   its state becomes an error
 */
#include <nccl.h>

#include "device_memory.h"
#include "stream.h"

#define OMPI_SKIP_MPICXX 1 /* the C interface alone */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct ncclComm {
    int rank, size, n_sums;
    uint64_t id[2], agreed[2]; /* of the group and its complement; their largest over ranks */
    ncclResult_t state;
    shim::work begin;     /* what the next question begins; empty: nothing */
    MPI_Request request;  /* of what has begun */
    cudaStream_t waiting; /* for the sum; NULL: none */
};

static char last_error[128];

/* Does this rank fail in that way now? */
static bool told_to(const struct ncclComm *c, const char *fault)
{
    const char *text = getenv("RLHF_SHIM_NCCL");
    char name[16];
    int rank, n;
    return text && sscanf(text, "%15[^:]:%d:%d", name, &rank, &n) == 3 && !strcmp(name, fault) &&
           rank == c->rank && n == c->n_sums;
}

static ncclResult_t refused(ncclResult_t result, const char *why)
{
    snprintf(last_error, sizeof last_error, "shim: %s", why);
    return result;
}

/* In place of what a rank would do when it joins or sums. True: it does something else. */
static bool fault(struct ncclComm *c)
{
    if (told_to(c, "die"))
        _exit(1);
    if (told_to(c, "async"))
        c->state = refused(ncclRemoteError, "told to fail");
    return told_to(c, "async") || told_to(c, "hang");
}

static bool finished(struct ncclComm *c)
{
    int done = 0;
    if (c->request == MPI_REQUEST_NULL)
        return false;
    MPI_Test(&c->request, &done, MPI_STATUS_IGNORE);
    return done;
}

static void join(struct ncclComm *c)
{
    if (!fault(c))
        MPI_Iallreduce(c->id, c->agreed, 2, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD, &c->request);
}

static void settle_join(struct ncclComm *c)
{
    if (c->state != ncclInProgress || !finished(c))
        return;
    c->state = ncclSuccess;
    if (memcmp(c->id, c->agreed, sizeof c->id) != 0)
        c->state = refused(ncclInvalidUsage, "the ranks have different ids");
}

static void sum(struct ncclComm *c, void *values, size_t n)
{
    c->n_sums++;
    if (!fault(c))
        MPI_Iallreduce(MPI_IN_PLACE, values, (int)n, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD,
                       &c->request);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "%lld.%09ld.%d", (long long)now.tv_sec, now.tv_nsec,
             (int)getpid());
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int world_rank, world_size;
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    *comm = NULL;
    if (config->blocking || size != world_size || rank != world_rank)
        return refused(ncclInvalidUsage, "groups are non-blocking and of all ranks");
    struct ncclComm *c = *comm = new ncclComm{};
    c->rank = rank;
    c->size = size;
    for (char byte : id.internal)
        c->id[0] = (c->id[0] ^ (unsigned char)byte) * 0x100000001b3;
    c->id[1] = ~c->id[0];
    c->state = ncclInProgress;
    c->request = MPI_REQUEST_NULL;
    c->begin = [c] { join(c); };
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    if (c->begin) {
        shim::work begin = std::move(c->begin);
        c->begin = nullptr;
        begin();
    }
    if (!c->waiting)
        settle_join(c);
    *state = c->state;
    return ncclSuccess;
}

/* The work is with the stream only once the state is not ncclInProgress any more: who asks the stream before has asked too early. */
ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t c, cudaStream_t stream)
{
    if (from != to || type != ncclInt64 || op != ncclSum || n > INT32_MAX ||
        !shim::memory_on_device(to))
        return refused(ncclInvalidArgument, "sums are of int64, in place, on the device");
    if (c->state != ncclSuccess || c->waiting)
        return refused(ncclInvalidUsage, "the group is not ready");
    c->state = ncclInProgress;
    c->waiting = stream;
    c->begin = [c, to, n] {
        shim::stream_drain(c->waiting);
        c->state = ncclSuccess;
        sum(c, to, n);
        shim::stream_hold(c->waiting, [c] {
            bool done = finished(c);
            if (done)
                c->waiting = NULL;
            return done;
        });
    };
    return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    return c->state;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    delete c;
    return ncclSuccess;
}

/* MPI knows no way back from a collective that has begun: the request is left to the end of the process, and the group with it. */
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    if (c && c->waiting)
        shim::stream_hold(c->waiting, nullptr);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {
        "no error",
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "internal error - please report this issue to the NCCL developers",
        "invalid argument (run with NCCL_DEBUG=WARN for details)",
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "remote process exited or there was a network error",
        "NCCL operation in progress"};
    return text[result];
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_error;
}
