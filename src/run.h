/* A run: its folder, and when it ends early. */
#ifndef RLHF_SRC_RUN_H
#define RLHF_SRC_RUN_H

#include "comm.h"
#include "engine.h"
#include "settings.h"
#include "timing.h"

struct run {
    const struct settings *settings;
    struct comm *comm;
    struct timing timing;
    int lock; /* descriptor, rank 0 */
};

/* Makes run.output_dir and locks it. Errors: another process holds it; it holds a run and resume is not asked for. */
int run_open(struct run *r, const struct settings *s, struct comm *comm, bool resume);
void run_close(struct run *r);

/* Asked at the top of each step: has a signal (USR1, TERM) or the wall-time limit come? The same answer on all ranks. */
bool run_should_stop(struct run *r);

/* output_dir/name; the caller frees. */
char *run_path(const struct run *r, const char *name);

/* output_dir/settings.cfg: the input as it was resolved, which a report reads and which runs again as it is. The
 * timing.json of an earlier end is removed: the run is not finished. Collective. */
int run_write_settings(struct run *r);

/* The table of phases on the log, and timing.json (timing_file.h). Collective. */
int run_report(struct run *r, struct engine *e);

#endif
