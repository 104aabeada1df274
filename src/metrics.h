/* The numbers of a step by name, and metrics.jsonl: one JSON object a step.
 *
 * Names are DESIGN section 8's ("objective/kl"). A number is written with the fewest digits that
 * read back as the same double, so that equal files mean equal bits; one that is not finite is
 * written as null.
 */
#ifndef RLHF_SRC_METRICS_H
#define RLHF_SRC_METRICS_H

#include "text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { METRICS_MAX = 96, METRIC_NAME_MAX = 48 };

struct metric {
    char name[METRIC_NAME_MAX];
    double value;
};

/* In order of first setting. The zeroed struct is empty. */
struct metrics {
    struct metric metric[METRICS_MAX];
    int n;
};

/* Sets or replaces. Names are letters, digits and "/_.-": anything else, or too many, is a broken
 * invariant. */
void metrics_set(struct metrics *m, const char *name, double value);
double metrics_get(const struct metrics *m, const char *name); /* NaN where there is none */
void metrics_clear(struct metrics *m);

/* Appends {"name": number, ..} without a newline. */
void metrics_format(struct text *out, const struct metrics *m);

struct metrics_file {
    FILE *file; /* NULL on ranks that do not write */
    char *path;
};

/* Opens path for appending and drops what is not part of the run up to last_step (0: a fresh run,
 * nothing is kept): lines of a later "step", and a last line that was cut short. Ranks: local;
 * where writes is false nothing is touched. Errors: ERR_FILE, ERR_SYSTEM; a line that is no object
 * with an integer "step" is named. */
int metrics_open(struct metrics_file *f, const char *path, int64_t last_step, bool writes);
int metrics_write_line(struct metrics_file *f, const struct metrics *m); /* flushed */
void metrics_close(struct metrics_file *f);

#endif
