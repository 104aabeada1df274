/* mpi/nccl.cu under src/gradient.c, and which device a rank takes, on the CUDA module that the loader finds (tests/shim). Usage:
 * reduce_test MODE */
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "expect.h"
#include "gradient.h"
#include "placement.h"
#include "records.h"
#include "watchdog.h"

enum { TIMEOUT_SEC = 60, FAULT_TIMEOUT_SEC = 1 };

/* A model of nothing but accumulators on the device. */
struct rig {
    struct comm *comm;
    struct backend be;
    struct model model;
    struct gradient gradient;
    struct arena arena;
    int64_t *host; /* [n] what the device gave back */
};

static int rig_start(struct rig *r, struct comm *c, int64_t n, bool share_device, double timeout_sec)
{
    struct backend_choice choice = {.device = "cuda", .threads = 1, .node_rank = comm_node_rank(c)};
    *r = (struct rig){.comm = c};
    TRY(comm_agree(c, backend_open(&r->be, &choice)));
    struct place *places = placement_gather(c, r->be.ops->name, r->be.ops->device_id(&r->be));
    int rc = placement_check(places, comm_size(c), share_device);
    free(places);
    TRY(rc);
    r->model.be = &r->be;
    r->host = malloc((size_t)n * sizeof *r->host);
    CHECK(r->host, "out of memory");
    trainable_add(&r->model.trainable, 1, n, "x");
    gradient_init(&r->gradient, &r->model, c, share_device);
    const size_t scratch = r->be.ops->workspace_bytes(&r->be, 8, 8, 8, 8, 8, 8);
    void *workspace = NULL;
    for (int pass = 0; pass < 2; pass++) {
        trainable_layout(&r->model.trainable, &r->arena);
        gradient_layout(&r->gradient, &r->arena);
        workspace = arena_take(&r->arena, MEM_WORKSPACE, scratch);
        if (pass == 0)
            TRY(arena_place(&r->arena, &r->be, NULL));
    }
    r->be.ops->workspace_set(&r->be, workspace, scratch);
    return gradient_open(&r->gradient, timeout_sec);
}

static void rig_close(struct rig *r)
{
    trainable_free(&r->model.trainable);
    free(r->host);
    if (r->be.ops)
        r->be.ops->close(&r->be);
}

static int rig_open(struct rig *r, struct comm *c, int64_t n, bool share_device, double timeout_sec)
{
    int rc = rig_start(r, c, n, share_device, timeout_sec);
    if (rc != 0)
        rig_close(r);
    return rc;
}

/* Of rank r at place i in sum number k: all 64 bits, so that sums wrap. */
static uint64_t value_of(int rank, int64_t i, int k)
{
    uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15 + (uint64_t)rank * 0xbf58476d1ce4e5b9 + (uint64_t)k * 0x94d049bb133111eb;
    return (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
}

/* As in a step: the host gathers while the device sums, then an operation follows. */
static void sum_once(struct rig *r, int k)
{
    const struct backend_ops *ops = r->be.ops;
    const struct trainable *t = &r->model.trainable;
    struct record_list mine = {0}, all = {0};
    for (int64_t i = 0; i < t->n; i++)
        r->host[i] = (int64_t)value_of(comm_rank(r->comm), i, k);
    ops->copy_in(&r->be, t->grads.sum, r->host, (size_t)t->n * sizeof *r->host);
    records_add(&mine, comm_rank(r->comm), &k, sizeof k);
    gradient_sum_start(&r->gradient);
    comm_gather_records(r->comm, &all, &mine);
    gradient_sum_finish(&r->gradient);
    ops->grads_norm(&r->be, &t->grads);
    EXPECT(all.n == comm_size(r->comm));
    records_free(&mine);
    records_free(&all);
    ops->copy_out(&r->be, r->host, t->grads.sum, (size_t)t->n * sizeof *r->host);
    EXPECT(ops->sync(&r->be) == 0);
}

static void expect_sums(const struct rig *r, int k)
{
    for (int64_t i = 0; i < r->model.trainable.n; i++) {
        uint64_t want = 0;
        for (int rank = 0; rank < comm_size(r->comm); rank++)
            want += value_of(rank, i, k);
        EXPECT((uint64_t)r->host[i] == want);
    }
}

static int test_sums(struct comm *c, bool share_device)
{
    static const int64_t lengths[] = {1, 7, 4097, 1000003};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        struct rig r;
        TRY(rig_open(&r, c, lengths[l], share_device, TIMEOUT_SEC));
        EXPECT(r.gradient.on_device == (comm_size(c) > 1 && !share_device));
        EXPECT((r.gradient.staging != NULL) == (comm_size(c) > 1 && share_device));
        for (int k = 1; k <= 3; k++) {
            sum_once(&r, k);
            expect_sums(&r, k);
        }
        rig_close(&r);
    }
    return 0;
}

/* The first tensor of any rank: rank r breaks the limit in tensor size - r. */
static int test_overflow(struct comm *c)
{
    struct rig r;
    TRY(rig_open(&r, c, 3, true, TIMEOUT_SEC));
    for (int i = 0; i < comm_size(c); i++)
        trainable_add(&r.model.trainable, 1, 2, "tensor %d", i + 1);
    EXPECT(!gradient_overflow(&r.gradient));
    const int64_t overflow = 1 + 3 + 2 * (comm_size(c) - 1 - comm_rank(c)) + 1;
    r.be.ops->copy_in(&r.be, r.model.trainable.grads.overflow, &overflow, sizeof overflow);
    EXPECT(!strcmp(gradient_overflow(&r.gradient), "tensor 1"));
    rig_close(&r);
    return 0;
}

/* Sums until a fault of RLHF_SHIM_NCCL ends it, under a watchdog with the same patience. */
static int fault(struct comm *c)
{
    struct progress progress = {0};
    struct watchdog *w;
    struct rig r;
    EXPECT(watchdog_open(&w, c, &progress, FAULT_TIMEOUT_SEC) == 0);
    progress_phase(&progress, "reduce");
    TRY(rig_open(&r, c, 5000, false, FAULT_TIMEOUT_SEC));
    for (int k = 1; k <= 3; k++) {
        progress_tick(&progress);
        sum_once(&r, k);
        expect_sums(&r, k);
    }
    EXPECT(!"a fault");
    return 0;
}

static int run_mode(struct comm *c, const char *mode)
{
    if (!strcmp(mode, "fault"))
        return fault(c);
    if (!strcmp(mode, "shared"))
        return test_sums(c, true);
    TRY(test_sums(c, false));
    return test_overflow(c);
}

/* As the program does: all return, rank 0 says why. */
int main(int argc, char **argv)
{
    struct comm *c;
    int rc = comm_open(&c, &argc, &argv);
    if (rc == 0)
        rc = run_mode(c, argc > 1 ? argv[1] : "sums");
    if (rc != 0 && comm_rank(c) == 0)
        fprintf(stderr, "rlhf-hpc: %s\n", error_message());
    comm_close(c);
    return rc != 0 ? error_exit_code() : 0;
}
