/* Placement: how many threads a rank runs, from the CPUs that it may use and the ranks it shares them with. */
#ifndef RLHF_MPI_PLACEMENT_H
#define RLHF_MPI_PLACEMENT_H

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

#endif
