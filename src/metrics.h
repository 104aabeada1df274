/* The numbers of a step by name, and metrics.jsonl: one JSON object a step.
 *
 * Names are DESIGN section 8's ("objective/kl"). A number is written with the fewest digits that
 * read back as the same double, so that equal files mean equal bits; one that is not finite is
 * written as null.
 */
#ifndef RLHF_SRC_METRICS_H
#define RLHF_SRC_METRICS_H

#include "event.h"
#include "step_file.h"
#include "text.h"
#include "timing.h"

enum { METRICS_MAX = 96, METRIC_NAME_MAX = 48 };
enum { METRICS_LINE_MAX = METRICS_MAX * (METRIC_NAME_MAX + 32) }; /* bytes; a number has up to 25, 6 are around it */

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

/* Ends a step's account in t: "time/<phase>" of the phases that took any, "time/total", and "perf/tokens_per_sec" of the step's
 * tokens, of all ranks. */
void metrics_set_times(struct metrics *m, struct timing *t, int64_t tokens);

/* Appends {"name": number, ..} without a newline. */
void metrics_format(struct text *out, const struct metrics *m);

int metrics_write_line(struct step_file *f, const struct metrics *m); /* flushed */

/* The same numbers as scalars of a TensorBoard file, at their "step". */
int metrics_write_event(struct event_file *f, const struct metrics *m);

#endif
