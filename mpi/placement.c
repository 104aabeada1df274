/* Threads per rank, from the affinity masks of the node's ranks: who may use the same CPU shares it. */
#include "placement.h"

#include "comm_internal.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "text.h"

enum { MASK_WORDS = 128 }; /* 8192 CPUs, what Linux can be built for */

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
