/* Folder, lock, signals, wall time, closing table. */
#include "run.h"

#include "error.h"
#include "file.h"
#include "log.h"
#include "timing_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The third mutable global, after the error slot and the log's level: a signal handler has no parameters. Written by it
 * alone, read in run_should_stop. */
static volatile sig_atomic_t signalled;

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
    r->made_folder = !file_exists(folder);
    int rc = file_make_folders(folder);
    if (!rc && !resume && file_exists(metrics))
        rc = error_set(ERR_INPUT, "%s holds a run: continue it with --resume, or choose another run.output_dir", folder);
    if (!rc && (r->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        rc = error_set(ERR_FILE, "%s: cannot create: %s", lock, strerror(errno));
    struct stat info;
    if (!rc && (flock(r->lock, LOCK_EX | LOCK_NB) != 0 || fstat(r->lock, &info) != 0 || info.st_nlink == 0)) {
        rc = error_set(ERR_FILE, "%s: another run is writing into it", folder);
        close(r->lock);
        r->lock = -1; /* not ours to remove */
    }
    free(metrics);
    free(lock);
    return rc;
}

int run_open(struct run *r, const struct settings *s, struct comm *comm, bool resume)
{
    *r = (struct run){.settings = s, .comm = comm, .lock = -1};
    timing_init(&r->timing);
    r->timing.progress = &r->progress;
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return comm_agree(comm, comm_rank(comm) == 0 ? lock_folder(r, resume) : 0);
}

/* The lock file goes first: whoever has opened it meanwhile finds it without a name, and takes this run for a running one. */
void run_close(struct run *r)
{
    watchdog_close(r->watchdog);
    r->watchdog = NULL;
    if (r->lock < 0)
        return;
    char *lock = run_path(r, ".lock");
    unlink(lock);
    free(lock);
    if (r->made_folder)
        rmdir(r->settings->run.output_dir); /* fails where the run has written anything */
    close(r->lock);
    r->lock = -1;
}

int run_watch(struct run *r)
{
    return comm_agree(r->comm, watchdog_open(&r->watchdog, r->comm, &r->progress, (double)r->settings->run.hang_timeout));
}

/* In the order in which they win when ranks see different ones. */
enum stop { STOP_NOT, STOP_WALLTIME, STOP_JOB_END, STOP_SIGNAL };

static const char *const stop_names[] = {[STOP_WALLTIME] = "run.max_walltime",
                                         [STOP_JOB_END] = "the end of the Slurm job",
                                         [STOP_SIGNAL] = "a signal"};

/* Seconds until the end of the Slurm job; infinite without one. */
static double job_left_sec(void)
{
    const char *end = getenv("SLURM_JOB_END_TIME");
    char *rest = NULL;
    long long at = end ? strtoll(end, &rest, 10) : 0;
    if (!end || rest == end || *rest)
        return INFINITY;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)at - ((double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
}

/* The step that has ended, if there was one, and its checkpoints. */
static void learn_step(struct run *r)
{
    double now = timing_now(), checkpoint = r->timing.sec[PHASE_CHECKPOINT] - r->checkpoint_before;
    double step = r->step_start > 0 ? now - r->step_start - checkpoint : 0;
    r->step_sec = fmax(r->step_sec, step);
    r->checkpoint_sec = fmax(r->checkpoint_sec, checkpoint);
    r->step_start = now;
    r->checkpoint_before = r->timing.sec[PHASE_CHECKPOINT];
}

const char *run_should_stop(struct run *r, int64_t step)
{
    learn_step(r);
    atomic_store(&r->progress.step, (long long)step + 1);
    /* before the first checkpoint: as long as a step */
    double need = 1 + 1.25 * (r->step_sec + (r->checkpoint_sec > 0 ? r->checkpoint_sec : r->step_sec));
    int64_t limit = r->settings->run.max_walltime;
    enum stop stop = STOP_NOT;
    if (limit > 0 && (double)limit - timing_total(&r->timing) < need)
        stop = STOP_WALLTIME;
    if (job_left_sec() < need)
        stop = STOP_JOB_END;
    if (signalled)
        stop = STOP_SIGNAL;
    return stop_names[comm_max_flag(r->comm, (int)stop)];
}

int run_stopped(int64_t step, const char *why)
{
    return error_set(ERR_STOP, "stopped early after step %lld, because of %s; the state is saved: continue with --resume",
                     (long long)step, why);
}

/* min, mean, max over ranks of n timings. Collective. */
static void spread_over_ranks(struct run *r, struct spread *out, const double *sec, int n)
{
    double low[PHASES + 1], mean[PHASES + 1], high[PHASES + 1];
    comm_timing_min_mean_max(r->comm, low, mean, high, sec, n);
    for (int i = 0; i < n; i++)
        out[i] = (struct spread){low[i], mean[i], high[i]};
}

/* Times over ranks. The strings stay the caller's. Collective. */
static void collect_times(struct run *r, struct timing_file *f)
{
    struct timing *t = &r->timing;
    double sec[PHASES + 1], step_sec[PHASES];
    struct spread spread[PHASES + 1];
    timing_settle(t);
    sec[PHASES] = 0;
    for (int p = 0; p < PHASES; p++) {
        sec[p] = t->sec[p];
        sec[PHASES] += t->sec[p];
        step_sec[p] = t->timed.n ? t->timed.sec[p] / (double)t->timed.n : 0;
        f->step_phase[p] = f->phase[p] = (struct spread){0};
        f->tokens[p] = t->tokens[p];
        f->bytes[p] = t->bytes[p];
    }
    spread_over_ranks(r, spread, sec, PHASES + 1);
    memcpy(f->phase, spread, sizeof f->phase);
    f->total = spread[PHASES];
    spread_over_ranks(r, f->step_phase, step_sec, PHASES);
    comm_sum_i64_start(r->comm, f->tokens, PHASES);
    comm_sum_i64_finish(r->comm);
    f->n_steps = t->n_steps;
    f->first_sec = t->first_sec;
    for (int p = 0; p < PHASES; p++)
        f->sec_per_step += f->step_phase[p].mean;
    f->tokens_per_step = t->timed.n ? (double)t->timed.tokens / (double)t->timed.n : 0;
}

static void log_phases(const struct timing_file *f)
{
    log_line("%-12s %9s %9s %9s %7s %12s %10s", "phase", "min s", "avg s", "max s", "share", "tokens", "MiB");
    for (int p = 0; p < PHASES; p++)
        if (f->phase[p].max > 0)
            log_line("%-12s %9.3f %9.3f %9.3f %6.1f%% %12lld %10.2f", phase_name((enum phase)p), f->phase[p].min,
                     f->phase[p].mean, f->phase[p].max, 100 * f->phase[p].mean / f->total.mean, (long long)f->tokens[p],
                     (double)f->bytes[p] / (1 << 20));
    log_line("%-12s %9.3f %9.3f %9.3f %6.1f%%", "total", f->total.min, f->total.mean, f->total.max, 100.0);
    if (f->n_steps)
        log_line("%lld steps, %.3f s a step%s, %.0f tokens/s", (long long)f->n_steps, f->sec_per_step,
                 f->n_steps > 1 ? " without the first" : "", timing_file_tokens_per_sec(f));
}

/* Samples of a step, over all ranks. */
static int64_t batch_size(const struct settings *s)
{
    switch (s->task) {
    case TASK_PRETRAIN: return s->pretrain.batch_size;
    case TASK_SFT: return s->sft.batch_size;
    case TASK_REWARD: return s->reward_model.batch_size;
    default: return s->ppo.batch_size;
    }
}

int run_report(struct run *r, struct engine *e)
{
    const struct settings *s = r->settings;
    struct timing_file f = {.version = PACKAGE_VERSION,
                            .revision = GIT_REVISION,
                            .task = (char *)settings_task_names[s->task],
                            .device = (char *)e->be.ops->describe(&e->be),
                            .model = s->model.path,
                            .ranks = comm_size(r->comm),
                            .threads = e->threads,
                            .nodes = comm_nodes(r->comm),
                            .parameters = engine_parameters(e),
                            .trainable = e->model.trainable.n,
                            .batch_size = batch_size(s)};
    collect_times(r, &f);
    log_phases(&f);
    char *path = run_path(r, "timing.json");
    int rc = comm_rank(r->comm) == 0 ? timing_file_write(&f, path) : 0;
    free(path);
    return comm_agree(r->comm, rc);
}

int run_write_settings(struct run *r)
{
    if (comm_rank(r->comm) != 0)
        return comm_agree(r->comm, 0);
    struct text text = {0};
    char *path = run_path(r, "settings.cfg");
    settings_write(&text, r->settings);
    char *earlier = run_path(r, "timing.json");
    int rc = file_write_atomic(path, text.bytes, text.n);
    if (!rc)
        rc = file_remove_tree(earlier);
    text_free(&text);
    free(earlier);
    free(path);
    return comm_agree(r->comm, rc);
}
