/* The folder of a run, read back for a report: timing.json, metrics.jsonl, settings.cfg. */
#ifndef RLHF_SRC_PAST_RUN_H
#define RLHF_SRC_PAST_RUN_H

#include "curves.h"
#include "settings.h"
#include "timing_file.h"

struct past_run {
    const char *folder; /* borrowed */
    bool finished;      /* there is a timing.json; without it timing is empty */
    struct timing_file timing;
    struct curves curves; /* n_rows 0: no metrics.jsonl */
    bool has_settings;    /* there is a settings.cfg */
    struct settings settings;
    struct text settings_text;
};

/* Errors: ERR_FILE, one line: no such folder, neither timing.json nor metrics.jsonl in it, one of the files malformed.
 * Close in either case. */
int past_run_open(struct past_run *r, const char *folder);
void past_run_close(struct past_run *r);

#endif
