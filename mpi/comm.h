/* The ranks of a run: who am I, do we agree, move bytes, sum integers.
 *
 * Hides MPI: no other header of it is seen above mpi/. There is no floating-point reduction here, so that nobody can
 * make a result depend on the number of ranks. MPI's own errors and broken invariants end all ranks through comm_abort;
 * hence most functions return nothing.
 *
 * "Collective": every rank calls, in the same order. Nothing here may be called from two threads at once, except
 * comm_abort, which any thread may call.
 */
#ifndef RLHF_MPI_COMM_H
#define RLHF_MPI_COMM_H

#include <stddef.h>
#include <stdint.h>

struct text;
struct record_list;
struct comm;

/* Starts MPI, under mpirun or srun, or alone as the one rank of a run of one. Installs comm_abort as the end of CHECK
 * and of MPI's errors, and compares the build (version and revision) of all ranks. Once in a process.
 *
 * out           owned by the caller, ended by comm_close also when ranks of different builds meet, so that one of them
 *               can say so; NULL where MPI does not start
 * Ranks: collective. Errors: MPI does not start; ranks of different builds.
 */
int comm_open(struct comm **out, int *argc, char ***argv);

/* Appends "Open MPI v4.1.4": the library this process runs with. Works without comm_open. */
void comm_describe_library(struct text *out);

/* Ends MPI and frees what comm_node_shared gave. NULL does nothing. Ranks: collective. */
void comm_close(struct comm *c);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
int comm_node_rank(const struct comm *c); /* among the ranks of this node; 0 is the node's leader */
int comm_node_size(const struct comm *c);
int comm_nodes(const struct comm *c); /* number of nodes */

/* Writes "rlhf-hpc: line" on stderr and ends all ranks with exit code 1. Of the ranks of a node that call it at about
 * the same time, one writes. Works before comm_open and after comm_close too. Any thread.
 */
void comm_abort(const char *line) __attribute__((noreturn));

/* Is this rank inside of a collective call, waiting for others? Local, from any thread. */
enum comm_waiting {
    COMM_WORKS,
    COMM_WAITS,         /* as all ranks of its node do */
    COMM_WAITS_FOR_WORK /* for a rank of its node that works, perhaps */
};
enum comm_waiting comm_waiting(const struct comm *c);

/* Around a wait for other ranks that is not made in here (a sum on the device). Local. */
void comm_wait_begin(struct comm *c);
void comm_wait_end(struct comm *c);

/* The end of a phase that may have failed on some ranks only.
 *
 * rc            0 or negative: this rank's result
 *
 * Returns the smallest rc of all ranks, on all ranks. When it is not 0, the message and kind of the lowest failing rank
 * are in every rank's slot, with "rank N: " in front unless all ranks failed with that very message.
 * Ranks: collective.
 */
int comm_agree(struct comm *c, int rc);

/* Fails on all ranks, naming those that differ from rank 0, if the hash is not the same everywhere.
 * what          "adapters after step 3": begins the message
 * Ranks: collective. Errors: ERR_RUN.
 */
int comm_hash_equal(struct comm *c, uint64_t hash, const char *what);

/* The same for n bytes of input (input.cfg, a data file); the kind is ERR_INPUT. */
int comm_same_input(struct comm *c, const void *bytes, size_t n, const char *what);

void comm_barrier(struct comm *c); /* collective */

/* n and root are the same on every rank; any size. Ranks: collective. */
void comm_broadcast(struct comm *c, void *bytes, size_t n, int root);

/* Rank 0's text replaces that of the others. Ranks: collective. */
void comm_broadcast_text(struct comm *c, struct text *t);

/* Every rank's records to all ranks, in the order of their keys: the same on any number of ranks.
 *
 * all           replaced; its room is kept from call to call, so a loop stops allocating
 * local         may be empty; keys in any order. Two equal keys anywhere are a broken invariant.
 *
 * Ranks: collective.
 */
void comm_gather_records(struct comm *c, struct record_list *all, const struct record_list *local);

/* Sums over ranks, in place. Between start and finish the values are MPI's. Several sums may be started; finish waits
 * for all of them. Wraps on overflow without notice: the caller bounds its contributions (DESIGN 5).
 *
 * values        [n], the same n on every rank
 * Ranks: collective.
 */
void comm_sum_i64_start(struct comm *c, int64_t *values, int64_t n);
void comm_sum_i64_finish(struct comm *c);

int comm_max_flag(struct comm *c, int flag); /* the largest of all ranks; collective */

/* Over ranks, for each of n timings. For timing only: nothing that trains may come from it.
 * min, mean, max [n], written, the same on every rank. Ranks: collective.
 */
void comm_timing_min_mean_max(struct comm *c, double *min, double *mean, double *max,
                              const double *values, int n);

/* One block of zeroed memory for all ranks of a node, up to comm_close. The node's leader writes it, then all call
 * comm_node_barrier, then all read; for the others it is mapped read-only. It needs no name and no room in /dev/shm,
 * and is gone with the processes, however they end.
 *
 * p             page-aligned, owned by c; NULL for 0 bytes
 * Ranks: collective, the same bytes on the ranks of a node. Errors: no memory.
 */
int comm_node_shared(struct comm *c, void **p, size_t bytes);
void comm_node_barrier(struct comm *c); /* collective among the ranks of a node */

#endif
