/* EXPECT for programs of several ranks: a failure ends all ranks, naming rank, place and condition. */
#ifndef RLHF_TESTS_MPI_EXPECT_H
#define RLHF_TESTS_MPI_EXPECT_H

#include <stdio.h>

#include "comm.h"
#include "error.h"

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: expected %s; error slot: %s\n", __FILE__, __LINE__,            \
                    #condition, error_message());                                                  \
            comm_abort(NULL);                                                                      \
        }                                                                                          \
    } while (0)

#endif
