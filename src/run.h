/* A run: its folder, and when it ends early. */
#ifndef RLHF_SRC_RUN_H
#define RLHF_SRC_RUN_H

#include "comm.h"
#include "engine.h"
#include "progress.h"
#include "settings.h"
#include "timing.h"
#include "watchdog.h"

struct run {
    const struct settings *settings;
    struct comm *comm;
    struct timing timing;
    struct progress progress;
    struct watchdog *watchdog;
    int lock;         /* descriptor, rank 0 */
    bool made_folder; /* by run_open, rank 0 */
    /* What the next step and the checkpoint behind it may take: the longest so far. */
    double step_sec, checkpoint_sec;
    double step_start, checkpoint_before; /* at the start of the current step: now, and PHASE_CHECKPOINT's seconds */
};

/* Makes run.output_dir and locks it. Errors: another process holds it; it holds a run and resume is not asked for.
 * run_close takes a folder away that run_open has made and nothing was written into. */
int run_open(struct run *r, const struct settings *s, struct comm *comm, bool resume);
void run_close(struct run *r);

/* From here on a rank that makes no progress for run.hang_timeout ends the run. Called when what can take long without a
 * sign of progress, reading the model, is over. Ranks: local. */
int run_watch(struct run *r);

/* Begins a step: called at the top of each with its number, from 0. Returns why the run must stop before it, NULL to go
 * on; the same on all ranks.
 *
 * It stops after a signal (USR1, TERM), and when this step and a checkpoint might not end before run.max_walltime or the
 * end of the Slurm job (SLURM_JOB_END_TIME): 1.25 times the longest step and checkpoint so far, and a second. */
const char *run_should_stop(struct run *r, int64_t step);

/* The error of a run that stopped early with its state saved: ERR_STOP. */
int run_stopped(int64_t step, const char *why);

/* output_dir/name; the caller frees. */
char *run_path(const struct run *r, const char *name);

/* output_dir/settings.cfg: the input as it was resolved, which a report reads and which runs again as it is. The
 * timing.json of an earlier end is removed: the run is not finished. Collective. */
int run_write_settings(struct run *r);

/* The table of phases on the log, and timing.json (timing_file.h). Collective. */
int run_report(struct run *r, struct engine *e);

#endif
