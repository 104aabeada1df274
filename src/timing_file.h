/* timing.json: where the time of a run went. Written when a run ends, read by the reports.
 *
 *   {"version", "revision", "task", "device": text, "ranks", "threads" (a rank), "nodes",
 *    "model": {"path", "parameters", "trainable"}, "batch_size" (samples a step, all ranks),
 *    "total_sec": {"min", "mean", "max"},                         over ranks, as everywhere below
 *    "phases": {"generate": {"min", "mean", "max": seconds of the run, "tokens": of all ranks, "bytes": moved}, ..},
 *    "steps": {"n", "first_sec", "sec_per_step", "tokens_per_step", "tokens_per_sec",
 *              "phases": {"generate": {"min", "mean", "max": seconds a step}, ..}}}
 *
 * The means of "phases" add up to the mean of "total_sec", those of "steps" to "sec_per_step". What "steps" says of a
 * step leaves out the first, unless it is the only one. A phase that never ran is not listed.
 */
#ifndef RLHF_SRC_TIMING_FILE_H
#define RLHF_SRC_TIMING_FILE_H

#include "timing.h"

/* Seconds over ranks. */
struct spread {
    double min, mean, max;
};

struct timing_file {
    char *version, *revision, *task, *device, *model; /* owned */
    int ranks, threads, nodes;
    int64_t parameters, trainable, batch_size;
    struct spread total, phase[PHASES];
    int64_t tokens[PHASES], bytes[PHASES];
    int64_t n_steps; /* 0: the numbers of steps below are 0 too */
    double first_sec, sec_per_step, tokens_per_step;
    struct spread step_phase[PHASES];
};

int timing_file_write(const struct timing_file *f, const char *path);

/* Errors: ERR_FILE, one line: not there, not JSON, a member missing or of another type, an unknown phase, a number that
 * cannot be. Free f in either case. */
int timing_file_read(struct timing_file *f, const char *path);
void timing_file_free(struct timing_file *f);

double timing_file_tokens_per_sec(const struct timing_file *f); /* 0 without steps */

/* Sum of max over sum of mean of the phases in which a rank works for itself, of a step: 1 means that no rank waits. */
double timing_file_imbalance(const struct timing_file *f);

#endif
