/* Inside of struct comm, for the files of mpi/ and their tests alone. */
#ifndef RLHF_MPI_COMM_INTERNAL_H
#define RLHF_MPI_COMM_INTERNAL_H

#include "comm.h"

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>

struct shared_block {
    void *p;
    size_t bytes;
    struct shared_block *next;
};

/* One page that the ranks of a node share. */
struct node_page {
    atomic_int abort;     /* so that one rank of the node writes the line: comm.c's ABORT_.. */
    atomic_int n_waiting; /* ranks inside of a collective call */
};

enum { SUMS_IN_FLIGHT = 4 };

/* Values to be summed; what is before done has been handed to MPI. */
struct sum {
    int64_t *values, n, done;
};

struct comm {
    MPI_Comm world; /* a duplicate: libraries that use MPI_COMM_WORLD do not meet our messages */
    MPI_Comm node;  /* the ranks of this node */
    MPI_Errhandler errhandler;
    int rank, size, node_rank, node_size, n_nodes;
    size_t
        chunk_bytes; /* the most that one MPI or HDF5 call carries; a multiple of 8. Tests lower it. */
    uint64_t *words; /* [3][size], scratch of a collective */
    int *counts;     /* [2][size], the same */
    struct sum *sums; /* [n_sums] started, not finished */
    int n_sums, sums_room, next_sum;
    MPI_Request
        in_flight[SUMS_IN_FLIGHT]; /* a ring: piece i of all is in slot i % SUMS_IN_FLIGHT */
    int64_t n_issued;
    struct shared_block *shared;
    struct node_page *page; /* NULL only while comm_open makes it */
    atomic_bool waiting;
};

#endif
