/* Metrics of a step and their file. */
#include "metrics.h"

#include "error.h"
#include "file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct metric *find(const struct metrics *m, const char *name)
{
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->metric[i].name, name))
            return (struct metric *)&m->metric[i];
    return NULL;
}

void metrics_set(struct metrics *m, const char *name, double value)
{
    struct metric *row = find(m, name);
    if (!row) {
        static const char NAME_BYTES[] =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.-";
        const size_t n = strlen(name);
        CHECK(n && n < METRIC_NAME_MAX && strspn(name, NAME_BYTES) == n, "bad metric name \"%s\"",
              name);
        CHECK(m->n < METRICS_MAX, "more than %d metrics", METRICS_MAX);
        row = &m->metric[m->n++];
        memcpy(row->name, name, n + 1);
    }
    row->value = value;
}

double metrics_get(const struct metrics *m, const char *name)
{
    const struct metric *row = find(m, name);
    return row ? row->value : NAN;
}

void metrics_clear(struct metrics *m)
{
    m->n = 0;
}

static void format_number(struct text *out, double value)
{
    if (!isfinite(value)) {
        text_add_string(out, "null");
        return;
    }
    char digits[32];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_add_string(out, digits);
}

void metrics_format(struct text *out, const struct metrics *m)
{
    text_add_string(out, "{");
    for (int i = 0; i < m->n; i++) {
        text_format(out, "%s\"%s\": ", i ? ", " : "", m->metric[i].name);
        format_number(out, m->metric[i].value);
    }
    text_add_string(out, "}");
}

/* The "step" of one line. */
static int step_of(int64_t *step, const char *line, size_t n, const char *path, int64_t number)
{
    json_error_t why;
    json_t *object = json_loadb(line, n, 0, &why);
    const json_t *value = json_object_get(object, "step");
    const bool good = json_is_integer(value);
    if (good)
        *step = json_integer_value(value);
    json_decref(object);
    return good ? 0
                : error_set(ERR_FILE, "%s:%lld: not an object with an integer \"step\"%s%s", path,
                            (long long)number, object ? "" : ": ", object ? "" : why.text);
}

/* The lines of the run so far, out of those in the file. */
static int keep_until(struct text *kept, const struct text *all, const char *path,
                      int64_t last_step)
{
    size_t at = 0;
    for (int64_t number = 1; at < all->n; number++) {
        const char *line = all->bytes + at, *end = memchr(line, '\n', all->n - at);
        if (!end)
            break; /* cut short by a crash */
        const size_t n = (size_t)(end - line) + 1;
        int64_t step = 0;
        TRY(step_of(&step, line, n - 1, path, number));
        if (step <= last_step)
            text_add(kept, line, n);
        at += n;
    }
    return 0;
}

int metrics_open(struct metrics_file *f, const char *path, int64_t last_step, bool writes)
{
    struct text all = {0}, kept = {0};
    int rc = 0;
    *f = (struct metrics_file){0};
    if (!writes)
        return 0;
    if (file_exists(path) && last_step > 0) {
        rc = file_read(&all, path);
        if (rc == 0)
            rc = keep_until(&kept, &all, path, last_step);
    }
    if (rc == 0)
        rc = file_write_atomic(path, text_string(&kept), kept.n);
    text_free(&all);
    text_free(&kept);
    TRY(rc);
    f->file = fopen(path, "a");
    if (!f->file)
        return error_set(ERR_FILE, "%s: %s", path, strerror(errno));
    f->path = strdup(path);
    CHECK(f->path, "out of memory");
    return 0;
}

int metrics_write_line(struct metrics_file *f, const struct metrics *m)
{
    if (!f->file)
        return 0;
    struct text line = {0};
    metrics_format(&line, m);
    text_add_string(&line, "\n");
    const bool good = fwrite(line.bytes, 1, line.n, f->file) == line.n && fflush(f->file) == 0;
    text_free(&line);
    return good ? 0 : error_set(ERR_FILE, "%s: %s", f->path, strerror(errno));
}

void metrics_close(struct metrics_file *f)
{
    if (f->file)
        fclose(f->file);
    free(f->path);
    *f = (struct metrics_file){0};
}
