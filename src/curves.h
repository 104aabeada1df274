/* metrics.jsonl read back: one curve a metric. */
#ifndef RLHF_SRC_CURVES_H
#define RLHF_SRC_CURVES_H

#include <stdint.h>

enum { CURVES_MAX = 1024 };

struct curve {
    char *name;
    double *value; /* [n_rows]; NaN where the line has none, or null */
};

struct curves {
    struct curve *curve; /* [n], in the order in which the file names them */
    int n;
    int64_t n_rows, room;
    int64_t n_null; /* values that were not finite */
};

/* A last line that was cut short (no newline) is left out: the run may have been killed. Errors: ERR_FILE, with the line:
 * not an object, no integer "step", a value that is no number, more than CURVES_MAX names. Free in either case. */
int curves_read(struct curves *c, const char *path);
void curves_free(struct curves *c);

const struct curve *curves_find(const struct curves *c, const char *name); /* NULL: there is none */

/* Mean of the values there are among n rows from first on; NaN where there are none, or curve is NULL. */
double curve_mean(const struct curve *curve, int64_t first, int64_t n);

#endif
