/* Placement: how many threads a rank runs, from the CPUs that it may use and the ranks it shares them with; and which devices
 * the ranks have taken.
 */
#ifndef RLHF_MPI_PLACEMENT_H
#define RLHF_MPI_PLACEMENT_H

#include <stdbool.h>

struct comm;
struct text;

/* Returns the number of threads of this rank, at least 1.
 *
 *   automatic = CPUs this rank may use / ranks of the node that may use any of these, rounded down
 *
 * With unbound ranks that is the node's CPUs over its ranks; with ranks bound to sockets or cores, their share.
 *
 * requested     as it is, if positive; 0 = automatic
 * description   appended, for the log: "4 threads a rank (automatic: 16 CPUs for 4 ranks)"; may be NULL
 *
 * Ranks: collective among the ranks of a node. The number may differ between ranks; results do not depend on it.
 */
int placement_threads(struct comm *c, int requested, struct text *description);

enum { PLACE_DEVICE_BYTES = 16 };

/* Where a rank runs its model. */
struct place {
    int leader;       /* the lowest rank of its node */
    bool has_device;  /* one apart from the host */
    char host[64];
    char backend[16]; /* "cuda" */
    unsigned char device[PLACE_DEVICE_BYTES]; /* the device's own: an index may mean another one on the next rank */
};

/* The places of all ranks, by rank: the same on every rank. device NULL: none apart from the host. The caller frees.
 * Ranks: collective.
 */
struct place *placement_gather(struct comm *c, const char *backend, const unsigned char *device);

/* Do the n ranks run on one kind of backend, each on a device of its own, or may_share? Errors: ERR_INPUT, naming ranks, host
 * and what to set.
 */
int placement_check(const struct place *all, int n, bool may_share);

int placement_sharing(const struct place *all, int n, int rank); /* ranks on the rank's device, itself counted; 1 without one */

/* Appends the devices of the ranks of a node: "node07: rank 8 GPU-5f3a1c20, 9 GPU-b81c77e4". */
void placement_describe(struct text *out, const struct place *all, int n, int leader);

#endif
