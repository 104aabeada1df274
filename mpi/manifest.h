/* MANIFEST.json: the files of a checkpoint with their sizes and hashes. All local. */
#ifndef RLHF_MPI_MANIFEST_H
#define RLHF_MPI_MANIFEST_H

#include <stdint.h>

/* Flushes every file and folder below folder to disk, and writes folder/MANIFEST.json, which lists them. */
int manifest_write(const char *folder, int64_t step);

/* Is every listed file there, with its size and hash, and is state.h5 one of them? Trusts nothing in the manifest.
 * step          what the manifest must say; -1: any
 * Errors: ERR_FILE, naming the file and what is wrong with it.
 */
int manifest_check(const char *folder, int64_t step);

#endif
