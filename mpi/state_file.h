/* state.h5: named arrays in one HDF5 file. The part of a checkpoint that needs HDF5. */
#ifndef RLHF_MPI_STATE_FILE_H
#define RLHF_MPI_STATE_FILE_H

#include "checkpoint.h"

/* Makes the file with all datasets, and the contents of those that are not sliced. Ranks: local, called on rank 0. */
int state_file_create(struct comm *c, const char *path, const struct checkpoint_item *items, int n);

/* Every rank writes its share of the sliced items, and flushes the file from its node. Ranks: collective. */
int state_file_fill(struct comm *c, const char *path, const struct checkpoint_item *items, int n);

/* Every rank reads the next rank's share back and compares it with its own memory. Ranks: collective. */
int state_file_verify(struct comm *c, const char *path, const struct checkpoint_item *items, int n);

/* Every rank reads its share, then all get all. Ranks: collective. */
int state_file_read(struct comm *c, const char *path, const struct checkpoint_item *items, int n);

/* An item of bytes of any length; out is replaced. Ranks: local. */
int state_file_read_bytes(const char *path, const char *name, struct text *out);

void state_file_describe_library(struct text *out); /* appends HDF5's version; local */

#endif
