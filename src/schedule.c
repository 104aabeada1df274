/* Learning-rate schedules. */
#include "schedule.h"

#include "error.h"
#include "fmath.h"
#include "text.h"

#include <stddef.h>
#include <string.h>

static const double PI = 0x1.921fb54442d18p+1;

static double factor_constant(int64_t step, int64_t warmup, int64_t total)
{
    (void)step;
    (void)warmup;
    (void)total;
    return 1.0;
}

static double factor_warmup(int64_t step, int64_t warmup, int64_t total)
{
    (void)total;
    return step < warmup ? (double)step / (double)warmup : 1.0;
}

/* Share of the way from the end of the warm-up to the end of the run, at most 1. */
static double progress(int64_t step, int64_t warmup, int64_t total)
{
    const int64_t way = total > warmup ? total - warmup : 1;
    return step - warmup < way ? (double)(step - warmup) / (double)way : 1.0;
}

static double factor_linear(int64_t step, int64_t warmup, int64_t total)
{
    return step < warmup ? (double)step / (double)warmup : 1.0 - progress(step, warmup, total);
}

static double factor_cosine(int64_t step, int64_t warmup, int64_t total)
{
    if (step < warmup)
        return (double)step / (double)warmup;
    const double p = progress(step, warmup, total);
    return p < 1.0 ? 0.5 * (1.0 + math_cos(PI * p)) : 0.0;
}

static const struct schedule SCHEDULES[] = {
    {"constant", factor_constant},
    {"constant_with_warmup", factor_warmup},
    {"linear", factor_linear},
    {"cosine", factor_cosine},
};

const struct schedule *schedule_table(int *n)
{
    *n = sizeof SCHEDULES / sizeof *SCHEDULES;
    return SCHEDULES;
}

const struct schedule *schedule_find(const char *name)
{
    int n;
    const struct schedule *row = schedule_table(&n);
    struct text names = {0};
    for (int i = 0; i < n; i++) {
        if (!strcmp(row[i].name, name)) {
            text_free(&names);
            return &row[i];
        }
        text_format(&names, "%s\"%s\"", i ? ", " : "", row[i].name);
    }
    error_set(ERR_INPUT, "\"%s\" is no learning-rate schedule; there are %s", name,
              text_string(&names));
    text_free(&names);
    return NULL;
}

double schedule_rate(const struct schedule *row, double base, int64_t step, int64_t warmup,
                     int64_t total)
{
    return base * row->factor(step, warmup, total);
}
