/* Lines into columns. */
#include "curves.h"

#include "error.h"
#include "file.h"
#include "jsonl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void make_room(struct curves *c)
{
    if (c->n_rows < c->room)
        return;
    c->room = c->room ? 2 * c->room : 64;
    for (int i = 0; i < c->n; i++) {
        c->curve[i].value = realloc(c->curve[i].value, (size_t)c->room * sizeof(double));
        CHECK(c->curve[i].value, "out of memory");
    }
}

/* A curve that begins in this row: NaN before. */
static struct curve *add_curve(struct curves *c, const char *name)
{
    c->curve = realloc(c->curve, (size_t)(c->n + 1) * sizeof *c->curve);
    CHECK(c->curve, "out of memory");
    struct curve *new = &c->curve[c->n++];
    *new = (struct curve){strdup(name), malloc((size_t)c->room * sizeof(double))};
    CHECK(new->name && new->value, "out of memory");
    for (int64_t row = 0; row <= c->n_rows; row++)
        new->value[row] = NAN;
    return new;
}

static int add_row(struct curves *c, const struct jsonl *lines, json_t *object)
{
    const char *name;
    json_t *value;
    if (!json_is_integer(json_object_get(object, "step")))
        return error_set(ERR_FILE, "%s:%lld: no integer \"step\"", lines->path, (long long)lines->line);
    make_room(c);
    for (int i = 0; i < c->n; i++)
        c->curve[i].value[c->n_rows] = NAN;
    json_object_foreach(object, name, value) {
        struct curve *curve = (struct curve *)curves_find(c, name);
        if (!json_is_number(value) && !json_is_null(value))
            return error_set(ERR_FILE, "%s:%lld: %s where numbers were expected", lines->path, (long long)lines->line,
                             jsonl_kind(value));
        if (!curve && c->n == CURVES_MAX)
            return error_set(ERR_FILE, "%s:%lld: more than %d names", lines->path, (long long)lines->line, CURVES_MAX);
        if (!curve)
            curve = add_curve(c, name);
        if (json_is_number(value))
            curve->value[c->n_rows] = json_number_value(value);
        else
            c->n_null++;
    }
    c->n_rows++;
    return 0;
}

int curves_read(struct curves *c, const char *path)
{
    struct text all = {0};
    struct jsonl lines;
    json_t *object;
    *c = (struct curves){0};
    TRY(file_read(&all, path));
    size_t n = all.n;
    while (n > 0 && all.bytes[n - 1] != '\n')
        n--;
    jsonl_open(&lines, path, text_string(&all), n);
    int more;
    while ((more = jsonl_next(&lines, &object)) > 0) {
        int rc = add_row(c, &lines, object);
        json_decref(object);
        if (rc) {
            more = -1;
            break;
        }
    }
    text_free(&all);
    return more;
}

void curves_free(struct curves *c)
{
    for (int i = 0; i < c->n; i++) {
        free(c->curve[i].name);
        free(c->curve[i].value);
    }
    free(c->curve);
    *c = (struct curves){0};
}

const struct curve *curves_find(const struct curves *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->curve[i].name, name))
            return &c->curve[i];
    return NULL;
}

double curve_mean(const struct curve *curve, int64_t first, int64_t n)
{
    double sum = 0;
    int64_t there = 0;
    for (int64_t row = first; curve && row < first + n; row++)
        if (isfinite(curve->value[row])) {
            sum += curve->value[row];
            there++;
        }
    return there ? sum / (double)there : NAN;
}
