/* timing.json through Jansson. */
#include "timing_file.h"

#include "document.h"
#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *pack_spread(const struct spread *s)
{
    return json_pack("{s:f,s:f,s:f}", "min", s->min, "mean", s->mean, "max", s->max);
}

static json_t *pack_phases(const struct timing_file *f)
{
    json_t *phases = json_object();
    for (int p = 0; p < PHASES; p++) {
        if (f->phase[p].max <= 0)
            continue;
        json_t *phase = pack_spread(&f->phase[p]);
        json_object_set_new(phase, "tokens", json_integer(f->tokens[p]));
        json_object_set_new(phase, "bytes", json_integer(f->bytes[p]));
        json_object_set_new(phases, phase_name((enum phase)p), phase);
    }
    return phases;
}

static json_t *pack_steps(const struct timing_file *f)
{
    json_t *phases = json_object();
    for (int p = 0; p < PHASES; p++)
        if (f->step_phase[p].max > 0)
            json_object_set_new(phases, phase_name((enum phase)p), pack_spread(&f->step_phase[p]));
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:o}", "n", (json_int_t)f->n_steps, "first_sec", f->first_sec, "sec_per_step",
                     f->sec_per_step, "tokens_per_step", f->tokens_per_step, "tokens_per_sec", timing_file_tokens_per_sec(f),
                     "phases", phases);
}

int timing_file_write(const struct timing_file *f, const char *path)
{
    json_t *root = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:{s:s,s:I,s:I},s:I,s:o,s:o,s:o}", "version", f->version, "revision",
                             f->revision, "task", f->task, "device", f->device, "ranks", f->ranks, "threads", f->threads,
                             "nodes", f->nodes, "model", "path", f->model, "parameters", (json_int_t)f->parameters, "trainable",
                             (json_int_t)f->trainable, "batch_size", (json_int_t)f->batch_size, "total_sec",
                             pack_spread(&f->total), "phases", pack_phases(f), "steps", pack_steps(f));
    if (!root)
        return error_set(ERR_FILE, "%s: cannot be written: the name of the model or device is not UTF-8", path);
    int rc = document_write(path, root);
    json_decref(root);
    return rc;
}

static bool possible(double x)
{
    return isfinite(x) && x >= 0;
}

static int unpack_spread(struct spread *s, json_t *object, const char *path, const char *what)
{
    json_error_t why;
    if (json_unpack_ex(object, &why, 0, "{s:F,s:F,s:F}", "min", &s->min, "mean", &s->mean, "max", &s->max) != 0)
        return error_set(ERR_FILE, "%s: %s: %s", path, what, why.text);
    if (!possible(s->min) || s->mean < s->min * (1 - 1e-9) || s->max < s->mean * (1 - 1e-9) || !possible(s->max))
        return error_set(ERR_FILE, "%s: %s: not 0 <= min <= mean <= max", path, what);
    return 0;
}

/* Phases by name; tokens and bytes are NULL where the phases have none. */
static int unpack_phases(struct spread spread[PHASES], int64_t *tokens, int64_t *bytes, json_t *phases, const char *path)
{
    const char *name;
    json_t *phase;
    if (!json_is_object(phases))
        return error_set(ERR_FILE, "%s: phases: not an object", path);
    json_object_foreach(phases, name, phase) {
        int p = 0;
        while (p < PHASES && strcmp(name, phase_name((enum phase)p)) != 0)
            p++;
        if (p == PHASES)
            return error_set(ERR_FILE, "%s: phases: one that this program does not know", path);
        TRY(unpack_spread(&spread[p], phase, path, name));
        json_error_t why;
        json_int_t count[2] = {0};
        if (tokens && json_unpack_ex(phase, &why, 0, "{s:I,s:I}", "tokens", &count[0], "bytes", &count[1]) != 0)
            return error_set(ERR_FILE, "%s: %s: %s", path, name, why.text);
        if (tokens) {
            tokens[p] = count[0];
            bytes[p] = count[1];
        }
    }
    return 0;
}

static char *copy(const char *string)
{
    char *own = strdup(string);
    CHECK(own, "out of memory");
    return own;
}

static int unpack(struct timing_file *f, json_t *root, const char *path)
{
    const char *version, *revision, *task, *device, *model;
    json_int_t parameters, trainable, batch_size, n;
    json_t *total, *phases, *step_phases;
    json_error_t why;
    if (json_unpack_ex(root, &why, 0, "{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:{s:s,s:I,s:I},s:I,s:o,s:o,s:{s:I,s:F,s:F,s:F,s:o}}",
                       "version", &version, "revision", &revision, "task", &task, "device", &device, "ranks", &f->ranks,
                       "threads", &f->threads, "nodes", &f->nodes, "model", "path", &model, "parameters", &parameters,
                       "trainable", &trainable, "batch_size", &batch_size, "total_sec", &total, "phases", &phases, "steps", "n",
                       &n, "first_sec", &f->first_sec, "sec_per_step", &f->sec_per_step, "tokens_per_step",
                       &f->tokens_per_step, "phases", &step_phases) != 0)
        return error_set(ERR_FILE, "%s: not a timing.json of this program: %s", path, why.text);
    f->version = copy(version), f->revision = copy(revision), f->task = copy(task);
    f->device = copy(device), f->model = copy(model);
    f->parameters = parameters, f->trainable = trainable, f->batch_size = batch_size, f->n_steps = n;
    if (f->ranks < 1 || f->threads < 1 || f->nodes < 1 || n < 0 || (n > 0 && !(f->sec_per_step > 0)) ||
        !possible(f->sec_per_step) || !possible(f->first_sec) || !possible(f->tokens_per_step))
        return error_set(ERR_FILE, "%s: ranks, threads, nodes, or the times of steps are out of range", path);
    TRY(unpack_spread(&f->total, total, path, "total_sec"));
    TRY(unpack_phases(f->phase, f->tokens, f->bytes, phases, path));
    return unpack_phases(f->step_phase, NULL, NULL, step_phases, path);
}

int timing_file_read(struct timing_file *f, const char *path)
{
    *f = (struct timing_file){0};
    json_t *root = document_read(path);
    if (!root)
        return -1;
    int rc = unpack(f, root, path);
    json_decref(root);
    return rc;
}

void timing_file_free(struct timing_file *f)
{
    free(f->version);
    free(f->revision);
    free(f->task);
    free(f->device);
    free(f->model);
    *f = (struct timing_file){0};
}

double timing_file_tokens_per_sec(const struct timing_file *f)
{
    return f->sec_per_step > 0 ? f->tokens_per_step / f->sec_per_step : 0;
}

double timing_file_imbalance(const struct timing_file *f)
{
    double max = 0, mean = 0;
    for (int p = 0; p < PHASES; p++)
        if (!phase_waits((enum phase)p)) {
            max += f->step_phase[p].max;
            mean += f->step_phase[p].mean;
        }
    return mean > 0 ? max / mean : 1;
}
