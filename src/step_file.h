/* JSON Lines that a run writes step by step: metrics.jsonl, samples.jsonl. Every line is an object with its "step"; a resumed run
 * cuts the file back to where it continues, so that it ends with the file of a run that was never stopped.
 */
#ifndef RLHF_SRC_STEP_FILE_H
#define RLHF_SRC_STEP_FILE_H

#include "text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The zeroed struct writes nothing. */
struct step_file {
    FILE *file; /* NULL on ranks that do not write */
    char *path;
    struct text lines; /* of the caller, who formats them here: kept from step to step */
};

/* Opens path for appending and drops what is not part of the run up to last_step (0: a fresh run, nothing is kept): lines of
 * a later "step", and a last line that was cut short. Ranks: local; where writes is false nothing is touched. Errors:
 * ERR_FILE, ERR_SYSTEM; a line that is no object with an integer "step" is named. */
int step_file_open(struct step_file *f, const char *path, int64_t last_step, bool writes);

/* Appends whole lines and flushes them. Errors: of the file system. */
int step_file_write(struct step_file *f, const struct text *lines);
void step_file_close(struct step_file *f);

#endif
