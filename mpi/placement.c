/* Threads per rank, from the affinity masks of the node's ranks: who may use the same CPU shares it. Devices are told apart by
 * what they say of themselves: launchers show each rank its own device 0.
 */
#include "placement.h"

#include "comm_internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "text.h"

enum {
    MASK_WORDS = 128,   /* 8192 CPUs, what Linux can be built for */
    RANKS_NAMED_MAX = 8 /* in the message of a shared device */
};

static void own_mask(unsigned long mask[MASK_WORDS])
{
    memset(mask, 0, MASK_WORDS * sizeof *mask);
    if (sched_getaffinity(0, MASK_WORDS * sizeof *mask, (cpu_set_t *)mask) == 0)
        return;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < n && i < MASK_WORDS * 64; i++)
        mask[i / 64] |= 1ul << (i % 64);
}

int placement_threads(struct comm *c, int requested, struct text *description)
{
    unsigned long mine[MASK_WORDS];
    own_mask(mine);
    unsigned long *all = malloc((size_t)c->node_size * sizeof mine);
    CHECK(all, "out of memory");
    MPI_Allgather(mine, MASK_WORDS, MPI_UNSIGNED_LONG, all, MASK_WORDS, MPI_UNSIGNED_LONG, c->node);
    int n_cpus = 0, n_sharing = 0;
    for (int i = 0; i < MASK_WORDS; i++)
        n_cpus += __builtin_popcountl(mine[i]);
    for (int r = 0; r < c->node_size; r++) {
        unsigned long common = 0;
        for (int i = 0; i < MASK_WORDS; i++)
            common |= mine[i] & all[r * MASK_WORDS + i];
        n_sharing += common != 0;
    }
    free(all);
    if (n_sharing < 1)
        n_sharing = 1;
    int automatic = n_cpus / n_sharing > 1 ? n_cpus / n_sharing : 1;
    int threads = requested > 0 ? requested : automatic;
    if (!description)
        return threads;
    text_format(description, "%d thread%s a rank (%s: %d CPU%s for %d rank%s%s)", threads,
                threads == 1 ? "" : "s", requested > 0 ? "as set" : "automatic", n_cpus,
                n_cpus == 1 ? "" : "s", n_sharing, n_sharing == 1 ? "" : "s",
                (int64_t)threads * n_sharing > n_cpus ? ", oversubscribed" : "");
    return threads;
}

struct place *placement_gather(struct comm *c, const char *backend, const unsigned char *device)
{
    struct place mine = {.leader = c->rank, .has_device = device != NULL}, *all = malloc((size_t)c->size * sizeof *all);
    CHECK(all, "out of memory");
    MPI_Bcast(&mine.leader, 1, MPI_INT, 0, c->node);
    if (gethostname(mine.host, sizeof mine.host - 1) != 0)
        snprintf(mine.host, sizeof mine.host, "unknown host");
    snprintf(mine.backend, sizeof mine.backend, "%s", backend);
    if (device)
        memcpy(mine.device, device, sizeof mine.device);
    comm_wait_begin(c);
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, c->world);
    comm_wait_end(c);
    return all;
}

static bool same_device(const struct place *a, const struct place *b)
{
    return a->has_device && b->has_device && !memcmp(a->device, b->device, sizeof a->device);
}

/* As nvidia-smi -L begins it. */
static void add_device(struct text *out, const struct place *p)
{
    text_format(out, "GPU-%02x%02x%02x%02x", p->device[0], p->device[1], p->device[2], p->device[3]);
}

int placement_sharing(const struct place *all, int n, int rank)
{
    int sharing = !all[rank].has_device;
    for (int r = 0; r < n; r++)
        sharing += same_device(&all[r], &all[rank]);
    return sharing;
}

static int say_shared(const struct place *all, int n, int rank)
{
    struct text ranks = {0}, device = {0};
    int named = 0, sharing = placement_sharing(all, n, rank);
    for (int r = 0; r < n && named < RANKS_NAMED_MAX; r++)
        if (same_device(&all[r], &all[rank]))
            text_format(&ranks, "%s%d", named++ ? ", " : "", r);
    if (sharing > named)
        text_format(&ranks, " and %d more", sharing - named);
    add_device(&device, &all[rank]);
    error_set(ERR_INPUT,
              "ranks %s on %s take the same device, %s: start no more ranks on a node than it has devices, or set "
              "run.share_device = true: the host then sums for them",
              text_string(&ranks), all[rank].host, text_string(&device));
    text_free(&ranks);
    text_free(&device);
    return -1;
}

int placement_check(const struct place *all, int n, bool may_share)
{
    for (int r = 1; r < n; r++)
        if (strcmp(all[r].backend, all[0].backend) != 0)
            return error_set(ERR_INPUT, "rank %d on %s runs on %s, rank 0 on %s on %s: set run.device to one that all have", r,
                             all[r].host, all[r].backend, all[0].host, all[0].backend);
    for (int r = 0; r < n && !may_share; r++)
        if (placement_sharing(all, n, r) > 1)
            return say_shared(all, n, r);
    return 0;
}

void placement_describe(struct text *out, const struct place *all, int n, int leader)
{
    text_format(out, "%s:", all[leader].host);
    for (int r = leader; r < n; r++) {
        if (all[r].leader != leader || !all[r].has_device)
            continue;
        text_format(out, "%s %d ", r == leader ? " rank" : ",", r);
        add_device(out, &all[r]);
    }
}
