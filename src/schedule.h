/* Learning rates over the steps of a run, by name. Names and formulas are those of Hugging Face's
 * lr_scheduler_type. */
#ifndef RLHF_SRC_SCHEDULE_H
#define RLHF_SRC_SCHEDULE_H

#include <stdint.h>

/* The rate is base * factor. w = min(1, step / warmup) (1 for warmup = 0), p = (step - warmup) /
 * (total - warmup):
 *   constant               1 (takes no warm-up)
 *   constant_with_warmup   w
 *   linear                 w before warmup, then max(0, 1 - p)
 *   cosine                 w before warmup, then (1 + cos(pi p)) / 2, 0 from total on
 */
struct schedule {
    const char *name;
    double (*factor)(int64_t step, int64_t warmup, int64_t total);
};

const struct schedule *schedule_table(int *n);

/* The row of that name. Errors: ERR_INPUT with the list of names; returns NULL. */
const struct schedule *schedule_find(const char *name);

/* The rate of a step, counted from 0; with warm-up the first one is 0, as in Hugging Face. Same
 * bits on every rank. */
double schedule_rate(const struct schedule *row, double base, int64_t step, int64_t warmup,
                     int64_t total);

#endif
