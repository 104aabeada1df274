/* Runs sorted and grouped by ranks and threads, a row of one wide table each; the report shows parts of it. */
#include "scaling.h"

#include "error.h"
#include "file.h"
#include "log.h"
#include "past_run.h"
#include "report_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- are these runs of the same input? ---------------------------------------------------------------- */

/* All settings that decide what a step computes, as text. */
static void comparable(struct text *out, const struct past_run *r)
{
    struct settings s = r->settings; /* borrows the strings */
    s.ppo.micro_batch_size = s.pretrain.micro_batch_size = s.generate.slots = 0;
    settings_write(out, &s);
    char *run = strstr(out->bytes, "\nrun:\n"); /* the last group: folder, steps, threads, seed */
    CHECK(run, "settings without run");
    *run = 0;
    out->n = (size_t)(run - out->bytes);
}

/* The first line in which a and b differ; group: the one it stands in. */
static int differ(const struct past_run *a, const struct past_run *b, const char *left, const char *right)
{
    char group[64] = "";
    while (*left && *right) {
        int n = (int)strcspn(left, "\n"), k = (int)strcspn(right, "\n");
        if (n != k || strncmp(left, right, (size_t)n) != 0) {
            int indent = (int)strspn(left, " "), other = (int)strspn(right, " ");
            return error_set(ERR_FILE, "%s and %s are not runs of the same input: %s%s%.*s here, %.*s there", a->folder,
                             b->folder, indent ? group : "", indent ? "." : "", n - indent - 1, left + indent, k - other - 1,
                             right + other);
        }
        if (n && left[n - 1] == ':')
            snprintf(group, sizeof group, "%.*s", n - 1, left);
        left += n + (left[n] == '\n');
        right += k + (right[k] == '\n');
    }
    return *left || *right ? error_set(ERR_FILE, "%s and %s are not runs of the same input", a->folder, b->folder) : 0;
}

static int check_same(const struct past_run *a, const struct past_run *b)
{
    const struct timing_file *x = &a->timing, *y = &b->timing;
    if (strcmp(x->task, y->task) != 0 || x->parameters != y->parameters || x->trainable != y->trainable)
        return error_set(ERR_FILE, "%s and %s are not runs of the same input: task %s with %lld parameters, %lld trainable, "
                         "here, %s with %lld and %lld there", a->folder, b->folder, x->task, (long long)x->parameters,
                         (long long)x->trainable, y->task, (long long)y->parameters, (long long)y->trainable);
    if (x->batch_size != y->batch_size)
        return error_set(ERR_FILE, "%s and %s are not runs of the same input: batch_size = %lld here, %lld there", a->folder,
                         b->folder, (long long)x->batch_size, (long long)y->batch_size);
    if (!a->has_settings || !b->has_settings)
        return 0;
    struct text left = {0}, right = {0};
    comparable(&left, a);
    comparable(&right, b);
    int rc = differ(a, b, text_string(&left), text_string(&right));
    text_free(&left);
    text_free(&right);
    return rc;
}

static int open_runs(struct past_run *run, const char *const *folder, int n)
{
    for (int i = 0; i < n; i++) {
        TRY(past_run_open(&run[i], folder[i]));
        if (!run[i].finished)
            return error_set(ERR_FILE, "%s: no timing.json: a scaling report needs runs that have finished", folder[i]);
        if (!run[i].timing.n_steps)
            return error_set(ERR_FILE, "%s: timing.json has the time of no step", folder[i]);
        if (i)
            TRY(check_same(&run[0], &run[i]));
    }
    return 0;
}

/* -- the table ---------------------------------------------------------------------------------------- */

static int compare_runs(const void *a, const void *b)
{
    const struct timing_file *x = &((const struct past_run *)a)->timing, *y = &((const struct past_run *)b)->timing;
    return x->ranks != y->ranks ? x->ranks - y->ranks : x->threads - y->threads;
}

/* Means over the n runs of a row. */
struct point {
    const struct timing_file *first;
    int n;
    double sec, min_sec, max_sec, tokens_per_sec, imbalance, phase_sec[PHASES], max_over_mean[PHASES];
};

static struct point average(const struct past_run *run, int n)
{
    struct point x = {.first = &run->timing, .n = n, .min_sec = run->timing.sec_per_step};
    for (int i = 0; i < n; i++) {
        const struct timing_file *f = &run[i].timing;
        x.sec += f->sec_per_step / n;
        x.min_sec = f->sec_per_step < x.min_sec ? f->sec_per_step : x.min_sec;
        x.max_sec = f->sec_per_step > x.max_sec ? f->sec_per_step : x.max_sec;
        x.tokens_per_sec += timing_file_tokens_per_sec(f) / n;
        x.imbalance += timing_file_imbalance(f) / n;
        for (int p = 0; p < PHASES; p++) {
            const struct spread *s = &f->step_phase[p];
            x.phase_sec[p] += s->mean / n;
            x.max_over_mean[p] += (s->mean > 0 ? s->max / s->mean : 1) / n;
        }
    }
    return x;
}

static void add_columns(struct report_table *t, const bool used[PHASES])
{
    static const char *const columns[] = {"ranks", "threads", "nodes", "runs", "sec_per_step", "sec_min", "sec_max",
                                          "tokens_per_sec", "speedup", "efficiency", "imbalance", "device"};
    static const char *const prefix[] = {"share_", "max_over_mean_"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        report_table_column(t, columns[i]);
    for (int k = 0; k < 2; k++)
        for (int p = 0; p < PHASES; p++) {
            char name[64];
            snprintf(name, sizeof name, "%s%s", prefix[k], phase_name((enum phase)p));
            if (used[p])
                report_table_column(t, name);
        }
}

static void add_row(struct report_table *t, const struct point *x, const struct point *base, const bool used[PHASES])
{
    double speedup = base->sec / x->sec, ranks = x->first->ranks;
    const double number[] = {ranks, x->first->threads, x->first->nodes, x->n, x->sec, x->min_sec, x->max_sec, x->tokens_per_sec,
                             speedup, speedup * base->first->ranks / ranks, x->imbalance};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        report_table_number(t, number[i]);
    report_table_text(t, "%s", x->first->device);
    for (int p = 0; p < PHASES; p++)
        if (used[p])
            report_table_number(t, 100 * x->phase_sec[p] / x->sec);
    for (int p = 0; p < PHASES; p++)
        if (used[p])
            report_table_number(t, x->max_over_mean[p]);
}

/* run: sorted. Returns the number of phases that take part in steps. */
static int fill_table(struct report_table *t, const struct past_run *run, int n)
{
    bool used[PHASES] = {false};
    int n_used = 0;
    struct point base = {0};
    for (int p = 0; p < PHASES; p++) {
        for (int i = 0; i < n; i++)
            used[p] |= run[i].timing.step_phase[p].max > 0;
        n_used += used[p];
    }
    add_columns(t, used);
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && compare_runs(&run[i], &run[k]) == 0; k++)
            ;
        struct point x = average(run + i, k - i);
        if (i == 0)
            base = x;
        add_row(t, &x, &base, used);
    }
    return n_used;
}

/* -- the report --------------------------------------------------------------------------------------- */

static void write_markdown(struct text *out, const struct report_table *t, int n_phases, const struct past_run *run, int n)
{
    const struct timing_file *f = &run->timing;
    int wide = t->n_columns - 2 * n_phases;
    bool single = false, threads = false;
    for (int i = 0; i < n; i++) {
        single |= run[i].timing.n_steps == 1;
        threads |= run[i].timing.threads != f->threads;
    }
    text_format(out, "# Scaling report\n\nTask %s, model %s (%lld parameters, %lld trainable), %lld samples a step, rlhf-hpc %s "
                "(%s).\n\n", f->task, f->model, (long long)f->parameters, (long long)f->trainable, (long long)f->batch_size,
                f->version, f->revision);
    text_add_string(out, "Seconds of a step without the first (mean, smallest and largest of the runs of a row); speed-up over "
                         "the first row; efficiency by rank; imbalance: slowest rank over mean, in the phases in which a rank works "
                         "for itself.\n\n");
    report_table_markdown(out, t, 0, 0, wide);
    if (threads)
        text_add_string(out, "Rows differ in threads a rank: efficiency compares ranks, not cores.\n\n");
    if (single)
        text_add_string(out, "At least one run had a single step: its time is that of the first.\n\n");
    text_add_string(out, "## Shares of a step, in %\n\n");
    report_table_markdown(out, t, 2, wide, n_phases);
    text_add_string(out, "## Slowest rank over mean, by phase\n\n");
    report_table_markdown(out, t, 2, wide + n_phases, n_phases);
    text_add_string(out, "## Runs\n\n");
    for (int i = 0; i < n; i++)
        text_format(out, "- %d x %d: %s, %lld steps\n", run[i].timing.ranks, run[i].timing.threads, run[i].folder,
                    (long long)run[i].timing.n_steps);
}

/* The folder that holds folder, or NULL; the caller frees. */
static char *find_parent(const char *folder)
{
    char *path = realpath(folder, NULL), *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        slash[slash == path] = 0;
    return path;
}

static int write_files(const char *folder, const struct text *markdown, const struct text *csv)
{
    char *parent = find_parent(folder);
    if (!parent)
        return error_set(ERR_FILE, "%s: no such folder", folder);
    char *md_path = file_join(parent, "scaling.md"), *csv_path = file_join(parent, "scaling.csv");
    int rc = file_write_atomic(md_path, markdown->bytes, markdown->n);
    if (!rc)
        rc = file_write_atomic(csv_path, csv->bytes, csv->n);
    if (!rc)
        log_line("wrote scaling.md, scaling.csv in %s", parent);
    free(md_path);
    free(csv_path);
    free(parent);
    return rc;
}

int scaling_write(const char *const *folder, int n)
{
    struct past_run *run = calloc((size_t)n, sizeof *run);
    CHECK(run, "out of memory");
    struct report_table t = {0};
    struct text markdown = {0}, csv = {0};
    int rc = open_runs(run, folder, n);
    if (!rc) {
        qsort(run, (size_t)n, sizeof *run, compare_runs);
        int n_phases = fill_table(&t, run, n);
        write_markdown(&markdown, &t, n_phases, run, n);
        report_table_csv(&csv, &t);
        rc = write_files(folder[0], &markdown, &csv);
    }
    for (int i = 0; i < n; i++)
        past_run_close(&run[i]);
    free(run);
    text_free(&markdown);
    text_free(&csv);
    report_table_free(&t);
    return rc;
}
