/* Readers of files from outside, each as a function of bytes that must neither crash nor hang, whatever the bytes are.
 *
 * A reader that refuses its input leaves one line of printable text as the message (input.cfg: one line a problem) and an
 * exit code of 1 or 2; a target checks that, and what else must hold of input that was taken.
 */
#ifndef RLHF_TESTS_FUZZ_TARGETS_H
#define RLHF_TESTS_FUZZ_TARGETS_H

#include <stddef.h>

enum { FUZZ_SEEDS = 16 };

struct fuzz_target {
    const char *name;
    const char *file;              /* the bytes are written to folder/file, and passed on */
    const char *beside[4];         /* files of $srcdir copied into the folder first */
    const char *seeds[FUZZ_SEEDS]; /* files of $srcdir to start from */
    void (*run)(const char *folder, const char *path, const char *bytes, size_t n);
};

extern const struct fuzz_target fuzz_targets[];
extern const int fuzz_n_targets;

const struct fuzz_target *fuzz_target_find(const char *name); /* NULL: none */

/* Copies what lies beside the target's file into folder. */
void fuzz_target_prepare(const struct fuzz_target *t, const char *folder);

/* One input. */
void fuzz_target_run(const struct fuzz_target *t, const char *folder, const char *bytes, size_t n);

/* A file of the source tree; the caller frees it. */
char *fuzz_source(const char *name);

#endif
