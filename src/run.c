/* Folder, lock, signals, wall time, closing table. */
#include "run.h"

#include "error.h"
#include "file.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static volatile sig_atomic_t signalled; /* written by the handler alone */

static void note_signal(int number)
{
    signalled = number;
}

char *run_path(const struct run *r, const char *name)
{
    return file_join(r->settings->run.output_dir, name);
}

static int lock_folder(struct run *r, bool resume)
{
    const char *folder = r->settings->run.output_dir;
    char *metrics = run_path(r, "metrics.jsonl"), *lock = run_path(r, ".lock");
    int rc = file_make_folders(folder);
    if (!rc && !resume && file_exists(metrics))
        rc = error_set(ERR_INPUT, "%s holds a run: continue it with --resume, or choose another run.output_dir", folder);
    if (!rc && (r->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        rc = error_set(ERR_FILE, "%s: cannot create: %s", lock, strerror(errno));
    if (!rc && flock(r->lock, LOCK_EX | LOCK_NB) != 0)
        rc = error_set(ERR_FILE, "%s: another run is writing into it", folder);
    free(metrics);
    free(lock);
    return rc;
}

int run_open(struct run *r, const struct settings *s, struct comm *comm, bool resume)
{
    *r = (struct run){.settings = s, .comm = comm, .lock = -1};
    timing_init(&r->timing);
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return comm_agree(comm, comm_rank(comm) == 0 ? lock_folder(r, resume) : 0);
}

void run_close(struct run *r)
{
    if (r->lock >= 0)
        close(r->lock);
    r->lock = -1;
}

bool run_should_stop(struct run *r)
{
    int64_t limit = r->settings->run.max_walltime;
    int stop = signalled != 0 || (limit > 0 && timing_total(&r->timing) >= (double)limit);
    return comm_max_flag(r->comm, stop) != 0;
}

int run_report(struct run *r)
{
    enum { N = PHASES };
    double min[N], mean[N], max[N], total = timing_total(&r->timing), all = 0;
    timing_step(&r->timing);
    comm_timing_min_mean_max(r->comm, min, mean, max, r->timing.sec, N);
    for (int p = 0; p < N; p++)
        all += mean[p];
    json_t *phases = json_object();
    log_line("%-12s %9s %9s %9s %7s %12s", "phase", "min s", "avg s", "max s", "share", "tokens/rank");
    for (int p = 0; p < N; p++) {
        if (max[p] < 1e-4)
            continue;
        log_line("%-12s %9.3f %9.3f %9.3f %6.1f%% %12lld", phase_name((enum phase)p), min[p], mean[p], max[p],
                 all > 0 ? 100 * mean[p] / all : 0, (long long)r->timing.tokens[p]);
        json_object_set_new(phases, phase_name((enum phase)p),
                            json_pack("{s:f,s:f,s:f,s:I}", "min", min[p], "mean", mean[p], "max", max[p], "tokens",
                                      (json_int_t)r->timing.tokens[p]));
    }
    log_line("%-12s %9s %9.3f", "total", "", total);
    int rc = 0;
    if (comm_rank(r->comm) == 0) {
        json_t *root = json_pack("{s:i,s:i,s:f,s:o}", "ranks", comm_size(r->comm), "nodes", comm_nodes(r->comm), "total_sec",
                                 total, "phases", phases);
        char *text = json_dumps(root, JSON_INDENT(2)), *path = run_path(r, "timing.json");
        CHECK(text, "out of memory");
        rc = file_write_atomic(path, text, strlen(text));
        free(text);
        free(path);
        json_decref(root);
    } else {
        json_decref(phases);
    }
    return comm_agree(r->comm, rc);
}
