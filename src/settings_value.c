/* Reading one value by the type of its row. A default is text in the table and takes the same way as an override, so
 * that a default out of range is found by the first run of any test.
 */
#include "settings_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "nearest.h"
#include "settings_scan.h"

const char *value_leaf(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

static const char *kind_of(const config_setting_t *v)
{
    switch (config_setting_type(v)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return "an integer";
    case CONFIG_TYPE_FLOAT:
        return "a float";
    case CONFIG_TYPE_STRING:
        return "a string";
    case CONFIG_TYPE_BOOL:
        return "true or false";
    case CONFIG_TYPE_GROUP:
        return "a group { .. }";
    case CONFIG_TYPE_ARRAY:
        return "an array [ .. ]";
    default:
        return "a list ( .. )";
    }
}

static const char *string_of(const struct source *v)
{
    if (v->bare)
        return v->bare;
    return config_setting_type(v->setting) == CONFIG_TYPE_STRING
               ? config_setting_get_string(v->setting)
               : NULL;
}

static bool is_int(const config_setting_t *v)
{
    int type = v ? config_setting_type(v) : CONFIG_TYPE_NONE;
    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static bool is_sequence(const config_setting_t *v)
{
    int type = v ? config_setting_type(v) : CONFIG_TYPE_NONE;
    return type == CONFIG_TYPE_ARRAY || type == CONFIG_TYPE_LIST;
}

void value_bounds(char *out, size_t n, const struct setting_row *row)
{
    bool low = isfinite(row->min), high = isfinite(row->max) && row->max < 1e6;
    const char *relation = row->above ? "above" : "at least";
    if (low && high && row->above)
        snprintf(out, n, "above %.12g, at most %.12g", row->min, row->max);
    else if (low && high)
        snprintf(out, n, "%.12g to %.12g", row->min, row->max);
    else if (low)
        snprintf(out, n, "%s %.12g", relation, row->min);
    else
        snprintf(out, n, "any number");
}

static bool is_within(const struct setting_row *row, double x)
{
    return isfinite(x) && x <= row->max && (row->above ? x > row->min : x >= row->min);
}

static bool wrong_type(char why[WHY_MAX], const char *expected, const struct source *v)
{
    snprintf(why, WHY_MAX, "must be %s, not %s", expected,
             v->bare ? "a string" : kind_of(v->setting));
    return false;
}

static bool out_of_range(char why[WHY_MAX], const struct setting_row *row, double x)
{
    char bounds[96];
    value_bounds(bounds, sizeof bounds, row);
    if (isfinite(x) && x > row->max && row->max >= 1e6)
        snprintf(why, WHY_MAX, "%.12g is out of range: at most %.12g", x, row->max);
    else
        snprintf(why, WHY_MAX, "%.12g is out of range: %s", x, bounds);
    return false;
}

void value_names(struct text *out, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        text_format(out, "%s\"%s\"", i ? ", " : "", names[i]);
}

static bool read_float(double *out, const struct setting_row *row, const struct source *v,
                       const char *expected, char why[WHY_MAX])
{
    double x;
    if (is_int(v->setting))
        x = (double)config_setting_get_int64(v->setting);
    else if (v->setting && config_setting_type(v->setting) == CONFIG_TYPE_FLOAT)
        x = config_setting_get_float(v->setting);
    else
        return wrong_type(why, expected, v);
    if (!is_within(row, x))
        return out_of_range(why, row, x);
    *out = x;
    return true;
}

static bool read_int(int64_t *out, const struct setting_row *row, const struct source *v,
                     const char *expected, char why[WHY_MAX])
{
    if (!is_int(v->setting))
        return wrong_type(why, expected, v);
    int64_t x = config_setting_get_int64(v->setting);
    if (!is_within(row, (double)x))
        return out_of_range(why, row, (double)x);
    *out = x;
    return true;
}

static bool read_enum(int *out, const struct setting_row *row, const struct source *v,
                      char why[WHY_MAX])
{
    const char *name = string_of(v);
    struct nearest best = {.distance = 1000};
    for (int i = 0; name && row->names[i]; i++) {
        if (strcmp(row->names[i], name) == 0) {
            *out = i;
            return true;
        }
        nearest_try(&best, row->names[i], nearest_distance(name, row->names[i]));
    }
    struct text list = {0};
    value_names(&list, row->names);
    if (!name)
        snprintf(why, WHY_MAX, "must be one of %s, not %s", text_string(&list),
                 kind_of(v->setting));
    else if (nearest_is_near(best.distance, (int)strlen(name)))
        snprintf(why, WHY_MAX, "unknown name \"%.100s\"; did you mean \"%s\"? (one of %s)", name,
                 best.name, text_string(&list));
    else
        snprintf(why, WHY_MAX, "unknown name \"%.100s\": must be one of %s", name,
                 text_string(&list));
    text_free(&list);
    return false;
}

void value_put_string(char **field, const char *value)
{
    free(*field);
    *field = strdup(value);
    CHECK(*field, "out of memory");
}

static bool read_string(char **out, const struct setting_row *row, const struct source *v,
                        char why[WHY_MAX])
{
    const char *value = string_of(v);
    char number[32];
    if (!value && row->number_too && is_int(v->setting)) {
        snprintf(number, sizeof number, "%lld", config_setting_get_int64(v->setting));
        value = number;
    }
    if (!value)
        return wrong_type(why, row->number_too ? "a string or an integer" : "a string", v);
    if (row->filled && !*value) {
        snprintf(why, WHY_MAX, "must not be empty");
        return false;
    }
    value_put_string(out, value);
    return true;
}

static void strings_free(struct settings_strings *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->item[i]);
    free(s->item);
    *s = (struct settings_strings){0};
}

static bool read_strings(struct settings_strings *out, const struct source *v, char why[WHY_MAX])
{
    const char *single = string_of(v);
    int n = single ? 1 : is_sequence(v->setting) ? config_setting_length(v->setting) : -1;
    if (n < 0)
        return wrong_type(why, "a list of strings", v);
    strings_free(out);
    out->item = calloc((size_t)n + 1, sizeof *out->item);
    CHECK(out->item, "out of memory");
    for (int i = 0; i < n; i++) {
        const char *item = single ? single : config_setting_get_string_elem(v->setting, i);
        if (!item || !*item) {
            snprintf(why, WHY_MAX, item ? "element %d is empty" : "element %d is not a string", i);
            return false;
        }
        value_put_string(&out->item[out->n++], item);
    }
    return true;
}

static bool read_range(struct settings_range *out, const struct setting_row *row,
                       const struct source *v, char why[WHY_MAX])
{
    const char *expected = "an integer or [min, max] (drawn from min .. max - 1)";
    if (!is_sequence(v->setting)) {
        int64_t n = 0;
        if (!read_int(&n, row, v, expected, why))
            return false;
        *out = (struct settings_range){n, n ? n + 1 : 0};
        return true;
    }
    if (config_setting_length(v->setting) != 2 || !is_int(config_setting_get_elem(v->setting, 0)) ||
        !is_int(config_setting_get_elem(v->setting, 1))) {
        snprintf(why, WHY_MAX, "must be %s", expected);
        return false;
    }
    int64_t low = config_setting_get_int64_elem(v->setting, 0),
            high = config_setting_get_int64_elem(v->setting, 1);
    if (low < 1 || !is_within(row, (double)low) || !is_within(row, (double)high)) {
        snprintf(why, WHY_MAX, "[%lld, %lld] is out of range: both ends at least 1, at most %.12g",
                 (long long)low, (long long)high, row->max);
        return false;
    }
    if (high <= low) {
        snprintf(why, WHY_MAX, "[%lld, %lld] is empty: max itself is not drawn", (long long)low,
                 (long long)high);
        return false;
    }
    *out = (struct settings_range){low, high};
    return true;
}

/* "[D-]HH:MM:SS"; any hours, minutes and seconds below 60. */
static bool read_clock(int64_t *seconds, const char *clock)
{
    int field[4] = {0}, at = 0, days = 0;
    if (sscanf(clock, "%5d-%2d:%2d:%2d%n", &field[0], &field[1], &field[2], &field[3], &at) == 4)
        days = field[0];
    else if (at = 0, sscanf(clock, "%5d:%2d:%2d%n", &field[1], &field[2], &field[3], &at) != 3)
        return false;
    if (clock[strspn(clock, "0123456789:-")] || clock[at] || strstr(clock, ":-") || *clock == '-' ||
        days < 0 || field[1] < 0 || field[2] < 0 || field[2] > 59 || field[3] < 0 || field[3] > 59)
        return false;
    *seconds = ((days * INT64_C(24) + field[1]) * 60 + field[2]) * 60 + field[3];
    return true;
}

static bool read_duration(int64_t *out, const struct setting_row *row, const struct source *v,
                          char why[WHY_MAX])
{
    const char *expected = "seconds (an integer) or \"[D-]HH:MM:SS\"";
    const char *clock = string_of(v);
    if (!clock)
        return read_int(out, row, v, expected, why);
    if (read_clock(out, clock))
        return true;
    snprintf(why, WHY_MAX, "must be %s, not \"%.60s\"", expected, clock);
    return false;
}

bool value_read(void *field, const struct setting_row *row, const struct source *v,
                char why[WHY_MAX])
{
    switch (row->type) {
    case SETTING_INT:
        return read_int(field, row, v, "an integer", why);
    case SETTING_FLOAT:
        return read_float(field, row, v, "a number", why);
    case SETTING_BOOL:
        if (!v->setting || config_setting_type(v->setting) != CONFIG_TYPE_BOOL)
            return wrong_type(why, "true or false", v);
        *(bool *)field = config_setting_get_bool(v->setting);
        return true;
    case SETTING_STRING:
        return read_string(field, row, v, why);
    case SETTING_ENUM:
        return read_enum(field, row, v, why);
    case SETTING_STRINGS:
        return read_strings(field, v, why);
    case SETTING_RANGE:
        return read_range(field, row, v, why);
    case SETTING_DURATION:
        return read_duration(field, row, v, why);
    case SETTING_OPTIONAL:
        break;
    }
    struct settings_optional *o = field;
    const char *word = string_of(v);
    *o = (struct settings_optional){0};
    if (word && strcmp(word, "none") == 0)
        return true;
    o->set = read_float(&o->value, row, v, "a number or \"none\"", why);
    return o->set;
}

bool value_parse(struct source *out, config_t *tree, const struct setting_row *row,
                 const char *value, char why[WHY_MAX])
{
    config_init(tree);
    bool quoted = *value == '"', bracket = *value && strchr("[({", *value);
    bool text_wanted = row->type == SETTING_STRING || row->type == SETTING_ENUM;
    if (text_wanted && !quoted && !bracket) {
        out->bare = value;
        return true;
    }
    struct text line = {0}, scanned = {0};
    text_format(&line, "v = %s\n;", value); /* the newline ends a comment in value */
    int at;
    const char *what = NULL;
    bool parsed = settings_scan(&scanned, line.bytes, line.n, &at, &what) == 0 &&
                  config_read_string(tree, text_string(&scanned)) &&
                  config_setting_length(config_root_setting(tree)) == 1;
    text_free(&line);
    text_free(&scanned);
    if (parsed)
        out->setting = config_setting_get_elem(config_root_setting(tree), 0);
    else if (quoted || (bracket && !text_wanted))
        snprintf(why, WHY_MAX, "%s", what ? what : "syntax error in the value");
    else
        out->bare = value;
    return out->setting || out->bare;
}

void value_free(void *field, enum setting_type type)
{
    if (type == SETTING_STRING)
        free(*(char **)field);
    else if (type == SETTING_STRINGS)
        strings_free(field);
}

const char *value_standard(const struct setting_row *row, enum task_id task,
                           char out[PATH_MAX_BYTES])
{
    const char *name = settings_task_names[task];
    size_t n = strlen(name);
    for (const char *at = row->by_task; at && *at; at += strcspn(at, " "), at += strspn(at, " "))
        if (strncmp(at, name, n) == 0 && at[n] == '=') {
            snprintf(out, PATH_MAX_BYTES, "%.*s", (int)strcspn(at + n + 1, " "), at + n + 1);
            return out;
        }
    return row->standard;
}

void value_put_standard(void *field, const struct setting_row *row, enum task_id task)
{
    char buffer[PATH_MAX_BYTES], why[WHY_MAX];
    const char *standard = value_standard(row, task, buffer);
    if (row->type == SETTING_STRING)
        value_put_string(field, standard ? standard : "");
    else if (standard) {
        config_t tree;
        struct source v = {0};
        bool ok = value_parse(&v, &tree, row, standard, why) && value_read(field, row, &v, why);
        config_destroy(&tree);
        CHECK(ok, "default of %s: %s", row->path, why);
    }
}
