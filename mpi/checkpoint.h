/* Checkpoints: named arrays and a folder of extra files, complete and verified or absent.
 *
 *   folder/checkpoint-<step>/state.h5       the arrays, one HDF5 dataset each (names with '/' make groups)
 *                            adapter/ ..    what write_extra wrote
 *                            MANIFEST.json  {"version": 1, "step": S, "files": [{"name", "size", "xxh64"}, ..]}
 *
 * Writing goes to folder/.tmp-checkpoint-<step>: rank 0 lays out state.h5, all ranks fill their slabs of it, everything
 * is flushed, read back and compared with memory, and only then gets its name. A run that is killed leaves at most the
 * temporary folder, which nobody reads and checkpoint_prune removes. state.h5 has the same bytes on any number of ranks.
 *
 * All functions: collective; errors are agreed, with the same message on every rank.
 */
#ifndef RLHF_MPI_CHECKPOINT_H
#define RLHF_MPI_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;
struct text;

enum checkpoint_type { CHECKPOINT_BYTES, CHECKPOINT_F32, CHECKPOINT_F64, CHECKPOINT_I64 };

size_t checkpoint_type_bytes(enum checkpoint_type t); /* of one element */

/* One array: the same on every rank, before writing and after reading. */
struct checkpoint_item {
    const char *name;
    enum checkpoint_type type;
    int64_t n; /* elements; may be 0 */
    void *data;
    bool sliced; /* large: every rank writes and reads an equal share; else rank 0 does it */
};

/* Writes folder/checkpoint-<step>, making folder if needed. A checkpoint of that step that is there already stays in
 * place until the new one takes it.
 *
 * items         names are unique and not empty
 * write_extra   called on rank 0 with the temporary folder, to write more files into it; 0 or -1; may be NULL
 *
 * Errors: arrays that differ between ranks, I/O, what was read back differs, write_extra's. Nothing visible is left.
 */
int checkpoint_write(struct comm *c, const char *folder, int64_t step,
                     const struct checkpoint_item *items, int n,
                     int (*write_extra)(void *context, const char *folder), void *context);

/* The checkpoint of the highest step whose files all have the size and hash of its MANIFEST. Invalid ones are skipped
 * with a warning that says what is wrong.
 *
 * step          -1 where there is none, which is no error
 * path          replaced: folder/checkpoint-<step>, or empty
 */
int checkpoint_find_newest(struct comm *c, const char *folder, int64_t *step, struct text *path);

/* Fills the items' data from a checkpoint written on any number of ranks, after checking its MANIFEST.
 * path          the checkpoint's folder
 * Errors: damaged files; an item that is not there, or has another type or length. Data may then be half read.
 */
int checkpoint_read(struct comm *c, const char *path, const struct checkpoint_item *items, int n);

/* Reads an item of CHECKPOINT_BYTES whose length is not known; out is replaced. */
int checkpoint_read_bytes(struct comm *c, const char *path, const char *name, struct text *out);

/* Removes the oldest checkpoints until keep are left, but never the newest valid one, and what killed runs left under
 * temporary names. keep 0: only the latter.
 */
int checkpoint_prune(struct comm *c, const char *folder, int keep);

/* Appends "1.10.8": the HDF5 library this process runs with. Local. */
void checkpoint_describe_library(struct text *out);

#endif
