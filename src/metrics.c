/* Metrics of a step and their line. */
#include "metrics.h"

#include "error.h"

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

void metrics_set_times(struct metrics *m, struct timing *t, int64_t tokens)
{
    const double sec = timing_step_end(t, tokens);
    for (int p = 0; p < PHASES; p++)
        if (t->step_sec[p] > 0) {
            char name[METRIC_NAME_MAX];
            snprintf(name, sizeof name, "time/%s", phase_name((enum phase)p));
            metrics_set(m, name, t->step_sec[p]);
        }
    metrics_set(m, "time/total", sec);
    metrics_set(m, "perf/tokens_per_sec", (double)tokens / sec);
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

int metrics_write_line(struct step_file *f, const struct metrics *m)
{
    text_clear(&f->lines);
    metrics_format(&f->lines, m);
    text_add_string(&f->lines, "\n");
    return step_file_write(f, &f->lines);
}

int metrics_write_event(struct event_file *f, const struct metrics *m)
{
    struct event_scalar scalar[METRICS_MAX];
    for (int i = 0; i < m->n; i++)
        scalar[i] = (struct event_scalar){m->metric[i].name, (float)m->metric[i].value};
    return event_write(f, (int64_t)metrics_get(m, "step"), scalar, m->n);
}
