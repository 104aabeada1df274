/* The table of rewards and their weighted sum. */
#include "reward.h"

#include "error.h"
#include "reward_adapter.h"
#include "reward_classifier.h"
#include "reward_lexicon.h"
#include "reward_program.h"
#include "text.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct part {
    const struct reward_type *type;
    void *state;
    char *name;
    double weight;
};

struct reward {
    struct part *part; /* [n] */
    int n;
};

static const struct reward_type TYPES[] = {
    {.name = "lexicon", .open = reward_lexicon_open, .score = reward_lexicon_score, .close = reward_lexicon_close},
    {.name = "program",
     .open = reward_program_open,
     .load = reward_program_load,
     .score = reward_program_score,
     .close = reward_program_close},
    {.name = "classifier",
     .open = reward_classifier_open,
     .layout = reward_classifier_layout,
     .load = reward_classifier_load,
     .score = reward_classifier_score,
     .close = reward_classifier_close},
    {.name = "adapter",
     .open = reward_adapter_open,
     .need = reward_adapter_need,
     .layout = reward_adapter_layout,
     .load = reward_adapter_load,
     .score = reward_adapter_score,
     .close = reward_adapter_close},
};

const struct reward_type *reward_table(int *n)
{
    *n = sizeof TYPES / sizeof *TYPES;
    return TYPES;
}

static const struct reward_type *find(const char *name)
{
    int n;
    const struct reward_type *row = reward_table(&n);
    struct text names = {0};
    for (int i = 0; i < n; i++) {
        if (name && !strcmp(row[i].name, name)) {
            text_free(&names);
            return &row[i];
        }
        text_format(&names, "%s\"%s\"", names.n ? ", " : "", row[i].name);
    }
    error_set(ERR_INPUT, "\"%s\" is no reward type; there are %s", name ? name : "",
              text_string(&names));
    text_free(&names);
    return NULL;
}

static int open_part(struct reward *r, const struct reward_spec *spec)
{
    const struct reward_type *type = find(spec->type);
    if (!type)
        return -1;
    const char *name = spec->name && *spec->name ? spec->name : spec->type;
    if (!isfinite(spec->weight))
        return error_set(ERR_INPUT, "reward \"%s\": its weight is not a finite number", name);
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->part[i].name, name))
            return error_set(ERR_INPUT, "two rewards are named \"%s\"; give each its own name",
                             name);
    struct part *part = &r->part[r->n++];
    *part = (struct part){.type = type, .name = strdup(name), .weight = spec->weight};
    CHECK(part->name, "out of memory");
    return type->open(&part->state, spec) == 0 ? 0 : error_context("reward \"%s\"", name);
}

int reward_open(struct reward **out, const struct reward_spec *specs, int n)
{
    *out = NULL;
    if (n <= 0)
        return error_set(ERR_INPUT, "no reward is configured; reward must name at least one");
    struct reward *r = calloc(1, sizeof *r);
    CHECK(r, "out of memory");
    r->part = calloc((size_t)n, sizeof *r->part);
    CHECK(r->part, "out of memory");
    for (int i = 0; i < n; i++) {
        if (open_part(r, &specs[i]) != 0) {
            reward_close(r);
            return -1;
        }
    }
    *out = r;
    return 0;
}

int reward_need(struct reward *r, struct engine_need *need)
{
    for (int i = 0; i < r->n; i++)
        if (r->part[i].type->need && r->part[i].type->need(r->part[i].state, need) != 0)
            return error_context("reward \"%s\"", r->part[i].name);
    return 0;
}

void reward_layout(struct reward *r, struct arena *a)
{
    for (int i = 0; i < r->n; i++)
        if (r->part[i].type->layout)
            r->part[i].type->layout(r->part[i].state, a);
}

int reward_load(struct reward *r)
{
    for (int i = 0; i < r->n; i++)
        if (r->part[i].type->load && r->part[i].type->load(r->part[i].state) != 0)
            return error_context("reward \"%s\"", r->part[i].name);
    return 0;
}

static int check_finite(const struct part *part, const struct reward_text *texts, int64_t n,
                        const double *score)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(score[i]))
            return error_set(ERR_RUN, "reward \"%s\": the score of sample %lld is not finite",
                             part->name, (long long)texts[i].index);
    return 0;
}

int reward_score(struct reward *r, const struct reward_text *texts, int64_t n, double *score,
                 double *parts)
{
    if (n <= 0)
        return 0;
    int rc = 0;
    memset(score, 0, (size_t)n * sizeof *score);
    for (int p = 0; p < r->n && rc == 0; p++) {
        const struct part *part = &r->part[p];
        double *values = parts + (size_t)p * (size_t)n;
        rc = part->type->score(part->state, texts, n, values);
        if (rc != 0)
            error_context("reward \"%s\"", part->name);
        else
            rc = check_finite(part, texts, n, values);
        for (int64_t i = 0; rc == 0 && i < n; i++)
            score[i] += part->weight * values[i];
    }
    return rc;
}

void reward_close(struct reward *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n; i++) {
        r->part[i].type->close(r->part[i].state);
        free(r->part[i].name);
    }
    free(r->part);
    free(r);
}

int reward_n_parts(const struct reward *r)
{
    return r->n;
}

const char *reward_part_name(const struct reward *r, int i)
{
    return r->part[i].name;
}
