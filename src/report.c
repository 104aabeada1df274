/* One run's report, section by section. What is not there is left out. */
#include "report.h"

#include "error.h"
#include "file.h"
#include "jsonl.h"
#include "log.h"
#include "past_run.h"
#include "report_advice.h"
#include "report_table.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_SHOWN = 8 };

/* -- what was run ------------------------------------------------------------------------------------ */

static void row(struct report_table *t, const char *name, const char *value)
{
    report_table_text(t, "%s", name);
    report_table_text(t, "%s", value);
}

static void settings_rows(struct report_table *t, const struct past_run *r)
{
    const struct settings *s = &r->settings;
    report_table_text(t, "data");
    report_table_text(t, "%s", s->data.path);
    report_table_text(t, "seed");
    report_table_text(t, "%lld", (long long)s->run.seed);
    report_table_text(t, "weights");
    report_table_text(t, "%s", s->model.quantization == QUANTIZATION_NONE           ? "as in the file"
                               : s->model.matmul == MATMUL_CHOICE_LLM_INT8 ? "int8, llm.int8"
                                                                           : "int8, dequant");
    if (s->task != TASK_PPO)
        return;
    report_table_text(t, "adapters");
    report_table_text(t, "r %lld, alpha %lld, dropout %g", (long long)s->lora.r, (long long)s->lora.lora_alpha,
                      s->lora.lora_dropout);
    report_table_text(t, "batch");
    report_table_text(t, "%lld samples a step, mini-batches of %lld, %lld epochs", (long long)s->ppo.batch_size,
                      (long long)s->ppo.mini_batch_size, (long long)s->ppo.ppo_epochs);
    for (int i = 0; i < s->n_rewards; i++) {
        report_table_text(t, "reward");
        report_table_text(t, "%s (%s), weight %g", s->reward[i].name, settings_reward_names[s->reward[i].type],
                          s->reward[i].weight);
    }
}

static void timing_rows(struct report_table *t, const struct timing_file *f)
{
    report_table_text(t, "model");
    report_table_text(t, "%s: %lld parameters, %lld of them trainable", f->model, (long long)f->parameters, (long long)f->trainable);
    report_table_text(t, "ranks");
    report_table_text(t, "%d; threads of a rank: %d; nodes: %d", f->ranks, f->threads, f->nodes);
    row(t, "device", f->device);
    report_table_text(t, "program");
    report_table_text(t, "%s (%s)", f->version, f->revision);
    report_table_text(t, "time");
    report_table_text(t, "%.1f s in all", f->total.mean);
    if (f->n_steps == 0)
        return;
    report_table_text(t, "speed");
    report_table_text(t, "%.3f s a step%s, %.0f tokens/s", f->sec_per_step,
                      f->n_steps > 1 ? " (without the first)" : " (the only one)", timing_file_tokens_per_sec(f));
}

static void about(struct text *out, const struct past_run *r)
{
    struct report_table t = {0};
    report_table_column(&t, "run");
    report_table_column(&t, r->folder);
    if (r->finished)
        row(&t, "task", r->timing.task);
    else if (r->has_settings)
        row(&t, "task", settings_task_names[r->settings.task]);
    row(&t, "state", r->finished ? "finished" : "not finished: still running, stopped early or killed");
    if (r->finished)
        timing_rows(&t, &r->timing);
    else if (r->has_settings)
        row(&t, "model", r->settings.model.path);
    if (r->has_settings)
        settings_rows(&t, r);
    if (r->curves.n_rows) {
        report_table_text(&t, "steps");
        report_table_text(&t, "%.0f", curves_find(&r->curves, "step")->value[r->curves.n_rows - 1]);
    }
    report_table_markdown(out, &t, 0, 0, t.n_columns);
    report_table_free(&t);
}

/* -- curves ------------------------------------------------------------------------------------------ */

/* Every metric at the start, at some steps and at the end, and its mean over the first and the last tenth. */
static void curves_section(struct text *out, const struct curves *c)
{
    struct report_table t = {0};
    int64_t shown[5], n_shown = 0, tenth = (c->n_rows + 9) / 10;
    const struct curve *step = curves_find(c, "step");
    report_table_column(&t, "metric");
    for (int i = 0; i < 5; i++) {
        int64_t at = i * (c->n_rows - 1) / 4;
        if (n_shown && shown[n_shown - 1] == at)
            continue;
        char name[40];
        snprintf(name, sizeof name, "step %.0f", step->value[at]);
        report_table_column(&t, name);
        shown[n_shown++] = at;
    }
    report_table_column(&t, "first 10 %");
    report_table_column(&t, "last 10 %");
    for (int i = 0; i < c->n; i++) {
        const struct curve *curve = &c->curve[i];
        if (!strcmp(curve->name, "step") || !strcmp(curve->name, "episode") || !strncmp(curve->name, "time/", 5))
            continue;
        report_table_text(&t, "%s", curve->name);
        for (int k = 0; k < n_shown; k++)
            report_table_number(&t, curve->value[shown[k]]);
        report_table_number(&t, curve_mean(curve, 0, tenth));
        report_table_number(&t, curve_mean(curve, c->n_rows - tenth, tenth));
    }
    text_add_string(out, "## Curves\n\n");
    report_table_markdown(out, &t, 0, 0, t.n_columns);
    report_table_free(&t);
}

static void curves_csv(struct text *out, const struct curves *c)
{
    struct report_table t = {0};
    for (int i = 0; i < c->n; i++)
        report_table_column(&t, c->curve[i].name);
    for (int64_t line = 0; line < c->n_rows; line++)
        for (int i = 0; i < c->n; i++)
            report_table_number(&t, c->curve[i].value[line]);
    report_table_csv(out, &t);
    report_table_free(&t);
}

/* -- time -------------------------------------------------------------------------------------------- */

static void phase_row(struct report_table *t, const char *name, const struct spread *s, double total, double tokens,
                      double bytes)
{
    report_table_text(t, "%s", name);
    report_table_number(t, s->min);
    report_table_number(t, s->mean);
    report_table_number(t, s->max);
    report_table_number(t, total > 0 ? 100 * s->mean / total : NAN);
    report_table_number(t, s->mean > 0 ? s->max / s->mean : NAN);
    report_table_number(t, tokens > 0 ? tokens : NAN);
    report_table_number(t, tokens > 0 && s->max > 0 ? tokens / s->max : NAN);
    report_table_number(t, bytes > 0 ? bytes : NAN);
}

static void phases_section(struct text *out, struct text *csv, const struct timing_file *f)
{
    static const char *const columns[] = {"phase", "min_sec", "mean_sec", "max_sec", "share_percent", "max_over_mean",
                                          "tokens", "tokens_per_sec", "bytes"};
    struct report_table t = {0};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        report_table_column(&t, columns[i]);
    for (int p = 0; p < PHASES; p++)
        if (f->phase[p].max > 0)
            phase_row(&t, phase_name((enum phase)p), &f->phase[p], f->total.mean, (double)f->tokens[p], (double)f->bytes[p]);
    phase_row(&t, "total", &f->total, f->total.mean, 0, 0);
    text_add_string(out, "## Time by phase\n\nSeconds over ranks, tokens of all ranks; \"other\" is what no phase claims, so "
                         "that the means add up to the total.\n\n");
    report_table_markdown(out, &t, 0, 0, t.n_columns);
    report_table_csv(csv, &t);
    report_table_free(&t);
}

/* -- checkpoints and samples ------------------------------------------------------------------------- */

static int compare_steps(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Steps of the folders checkpoint-<step> that have a MANIFEST.json, in order; the caller frees. */
static int64_t *find_checkpoints(const char *folder, int *n)
{
    int64_t *step = NULL;
    DIR *d = opendir(folder);
    *n = 0;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        char *end, manifest[320];
        if (strncmp(entry->d_name, "checkpoint-", 11) != 0)
            continue;
        long long number = strtoll(entry->d_name + 11, &end, 10);
        snprintf(manifest, sizeof manifest, "%s/MANIFEST.json", entry->d_name);
        char *path = file_join(folder, manifest);
        if (end != entry->d_name + 11 && !*end && file_exists(path)) {
            step = realloc(step, (size_t)(*n + 1) * sizeof *step);
            CHECK(step, "out of memory");
            step[(*n)++] = number;
        }
        free(path);
    }
    if (d)
        closedir(d);
    if (*n)
        qsort(step, (size_t)*n, sizeof *step, compare_steps);
    return step;
}

static void checkpoints_section(struct text *out, const char *folder)
{
    int n;
    int64_t *step = find_checkpoints(folder, &n);
    if (n)
        text_add_string(out, "## Checkpoints\n\nAfter step");
    for (int i = 0; i < n; i++)
        text_format(out, "%s %lld", i ? "," : "", (long long)step[i]);
    if (n)
        text_add_string(out, ".\n\n");
    free(step);
}

/* Any text as a block that Markdown leaves alone: four spaces before each line. */
static void add_block(struct text *out, const char *string)
{
    text_add_string(out, "\n    ");
    for (; *string; string++) {
        text_add(out, (unsigned char)*string < 0x20 ? " " : string, 1);
        if (*string == '\n')
            text_add_string(out, "\n    ");
    }
    text_add_string(out, "\n\n");
}

static void sample_text(struct text *out, const char *title, const json_t *sample, const char *field, const char *score)
{
    const json_t *string = json_object_get(sample, field), *number = json_object_get(sample, score);
    if (!json_is_string(string))
        return;
    text_add_string(out, title);
    if (json_is_number(number))
        text_format(out, " (score %.4g)", json_number_value(number));
    text_add_string(out, ":\n");
    add_block(out, json_string_value(string));
}

/* The samples of the last step that has any. */
static int samples_section(struct text *out, const char *folder)
{
    char *path = file_join(folder, "samples.jsonl");
    struct text all = {0}, shown = {0};
    struct jsonl lines;
    json_t *sample;
    json_int_t last = -1;
    int n = 0, more = 0;
    if (file_exists(path) && file_read(&all, path) == 0) {
        jsonl_open(&lines, path, text_string(&all), all.n);
        while ((more = jsonl_next(&lines, &sample)) > 0) {
            json_int_t step = json_integer_value(json_object_get(sample, "step"));
            if (step != last) {
                text_clear(&shown);
                n = 0;
            }
            last = step;
            if (n++ < SAMPLES_SHOWN) {
                text_format(&shown, "**%d.** ", n);
                sample_text(&shown, "Prompt", sample, "prompt", "");
                sample_text(&shown, "Reference", sample, "reference_response", "reference_score");
                sample_text(&shown, "Policy", sample, "response", "score");
            }
            json_decref(sample);
        }
    }
    if (shown.n)
        text_format(out, "## Samples of step %lld\n\n%s", (long long)last, text_string(&shown));
    text_free(&shown);
    text_free(&all);
    free(path);
    return more;
}

/* -- the report -------------------------------------------------------------------------------------- */

static int write_file(const char *folder, const char *name, const struct text *content)
{
    if (!content->n)
        return 0;
    char *path = file_join(folder, name);
    int rc = file_write_atomic(path, content->bytes, content->n);
    free(path);
    return rc;
}

static int write_sections(const struct past_run *r, struct text *out, struct text *csv, struct text *phases)
{
    struct text advice = {0};
    text_format(out, "# Training report\n\n");
    about(out, r);
    if (report_advice(&advice, r))
        text_format(out, "## Advice\n\n%s\n", text_string(&advice));
    text_free(&advice);
    if (r->curves.n_rows) {
        curves_section(out, &r->curves);
        curves_csv(csv, &r->curves);
    }
    if (r->finished)
        phases_section(out, phases, &r->timing);
    checkpoints_section(out, r->folder);
    TRY(samples_section(out, r->folder));
    if (r->has_settings) {
        text_add_string(out, "## Settings\n");
        add_block(out, text_string(&r->settings_text));
    }
    return 0;
}

int report_write(const char *folder)
{
    struct past_run r;
    struct text out = {0}, csv = {0}, phases = {0};
    int rc = past_run_open(&r, folder);
    if (!rc)
        rc = write_sections(&r, &out, &csv, &phases);
    if (!rc)
        rc = write_file(folder, "report.md", &out);
    if (!rc)
        rc = write_file(folder, "report.csv", &csv);
    if (!rc)
        rc = write_file(folder, "phases.csv", &phases);
    if (!rc)
        log_line("wrote report.md%s%s in %s", csv.n ? ", report.csv" : "", phases.n ? ", phases.csv" : "", folder);
    text_free(&out);
    text_free(&csv);
    text_free(&phases);
    past_run_close(&r);
    return rc;
}
