/* Loading, checking and writing of settings, all driven by the table.
 *
 * Loading: text -> libconfig tree; walk the tree and note for every row where its value stands (an unknown key is a
 * problem here); overrides take the place of the file's values; then every row is read or takes its default, which is
 * parsed like an override; last come the checks that concern more than one key. Problems are collected on the way.
 */
#include "settings.h"

#include <libconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "nearest.h"
#include "settings_scan.h"
#include "settings_table.h"

enum { PROBLEMS_MAX = 200, WHY_MAX = 512, PATH_MAX_BYTES = 160, DOC_COLUMNS = 100 };

struct problem {
    int line; /* 0: an override or a missing key, listed last */
    struct text text;
};

/* Where the value of a row stands: nowhere, in the file (line > 0) or in an override. */
struct source {
    config_setting_t *setting;
    const char *override;  /* "KEY=VALUE" */
    const char *bare;      /* VALUE, where it is no libconfig value but stands for a string */
};

struct loader {
    struct settings *s;
    const char *path;
    struct problem problem[PROBLEMS_MAX];
    int n_problems;
    struct source source[SETTINGS_ROWS_MAX];
    struct source reward[SETTINGS_REWARDS_MAX][SETTINGS_REWARD_ROWS];
    bool task_known;
};

/* ---- problems ---- */

static void problem_add(struct loader *l, const struct source *at, int line, const char *key, const char *why)
{
    if (l->n_problems == PROBLEMS_MAX)
        return;
    struct problem *p = &l->problem[l->n_problems++];
    *p = (struct problem){0};
    if (at && at->override) {
        text_format(&p->text, "--set %s: %s", at->override, why);
        return;
    }
    if (at && at->setting)
        line = (int)config_setting_source_line(at->setting);
    p->line = line;
    text_add_string(&p->text, l->path);
    if (line)
        text_format(&p->text, ":%d", line);
    text_format(&p->text, ": %s%s%s", key, *key ? ": " : "", why);
}

static int problems_report(struct loader *l)
{
    struct text all = {0};
    for (int pass = 0; pass < 2; pass++) /* with lines, in their order, then the others */
        for (int last = 0;;) {
            int next = 0;
            for (int i = 0; i < l->n_problems; i++)
                if (l->problem[i].line > last && (!next || l->problem[i].line < next))
                    next = l->problem[i].line;
            if (pass == 0 && !next)
                break;
            for (int i = 0; i < l->n_problems; i++)
                if (l->problem[i].line == (pass ? 0 : next))
                    text_format(&all, "%s%s", all.n ? "\n" : "", text_string(&l->problem[i].text));
            if (pass)
                break;
            last = next;
        }
    int n = l->n_problems;
    for (int i = 0; i < n; i++)
        text_free(&l->problem[i].text);
    if (n)
        error_set(ERR_INPUT, "%s", text_string(&all));
    text_free(&all);
    return n ? -1 : 0;
}

/* ---- names ---- */

static const char *leaf_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

static int row_find(const char *path)
{
    for (int i = 0; i < settings_n_rows; i++)
        if (strcmp(settings_rows[i].path, path) == 0)
            return i;
    return -1;
}

static int reward_row_find(const char *key)
{
    for (int i = 0; i < SETTINGS_REWARD_ROWS; i++)
        if (strcmp(settings_reward_rows[i].path, key) == 0)
            return i;
    return -1;
}

static bool is_group(const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < settings_n_rows; i++)
        if (strncmp(settings_rows[i].path, name, n) == 0 && settings_rows[i].path[n] == '.')
            return true;
    return false;
}

struct nearest {
    char name[PATH_MAX_BYTES];
    int distance;
};

static void nearest_try(struct nearest *best, const char *name, int distance)
{
    if (distance >= best->distance)
        return;
    best->distance = distance;
    snprintf(best->name, sizeof best->name, "%s", name);
}

static void unknown_say(char why[WHY_MAX], const char *what, const struct nearest *best, const char *written)
{
    if (nearest_is_near(best->distance, (int)strlen(leaf_of(written))))
        snprintf(why, WHY_MAX, "unknown %s; did you mean %s?", what, best->name);
    else
        snprintf(why, WHY_MAX, "unknown %s", what);
}

/* A key of the file or of --set that no row knows: the nearest path; the same key in another group is near too. */
static void unknown_setting(char why[WHY_MAX], const char *path)
{
    struct nearest best = {.distance = 1000};
    for (int i = 0; i < settings_n_rows; i++) {
        const char *candidate = settings_rows[i].path;
        nearest_try(&best, candidate, nearest_distance(path, candidate));
    }
    for (int i = 0; i < settings_n_rows; i++)
        if (strcmp(leaf_of(path), leaf_of(settings_rows[i].path)) == 0)
            nearest_try(&best, settings_rows[i].path, 1);
    if (!strchr(path, '.')) {
        nearest_try(&best, "reward", nearest_distance(path, "reward"));
        for (int i = 0; i < settings_n_rows; i++) {
            char group[PATH_MAX_BYTES];
            snprintf(group, sizeof group, "%.*s", (int)strcspn(settings_rows[i].path, "."), settings_rows[i].path);
            nearest_try(&best, group, nearest_distance(path, group));
        }
    }
    unknown_say(why, "setting", &best, path);
}

static void unknown_reward_key(char why[WHY_MAX], const char *prefix, const char *key)
{
    struct nearest best = {.distance = 1000};
    for (int i = 0; i < SETTINGS_REWARD_ROWS; i++) {
        char path[PATH_MAX_BYTES];
        snprintf(path, sizeof path, "%s.%s", prefix, settings_reward_rows[i].path);
        nearest_try(&best, path, nearest_distance(key, settings_reward_rows[i].path));
    }
    unknown_say(why, "setting", &best, key);
}

/* ---- reading one value ---- */

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
    return config_setting_type(v->setting) == CONFIG_TYPE_STRING ? config_setting_get_string(v->setting) : NULL;
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

/* "in 0 .. 1", "above 0", "at least 1", "" for no bound. */
static void bounds_say(char *out, size_t n, const struct setting_row *row)
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
    snprintf(why, WHY_MAX, "must be %s, not %s", expected, v->bare ? "a string" : kind_of(v->setting));
    return false;
}

static bool out_of_range(char why[WHY_MAX], const struct setting_row *row, double x)
{
    char bounds[96];
    bounds_say(bounds, sizeof bounds, row);
    if (isfinite(x) && x > row->max && row->max >= 1e6)
        snprintf(why, WHY_MAX, "%.12g is out of range: at most %.12g", x, row->max);
    else
        snprintf(why, WHY_MAX, "%.12g is out of range: %s", x, bounds);
    return false;
}

static void names_say(struct text *out, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        text_format(out, "%s\"%s\"", i ? ", " : "", names[i]);
}

static bool read_float(double *out, const struct setting_row *row, const struct source *v, const char *expected,
                       char why[WHY_MAX])
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

static bool read_int(int64_t *out, const struct setting_row *row, const struct source *v, const char *expected,
                     char why[WHY_MAX])
{
    if (!is_int(v->setting))
        return wrong_type(why, expected, v);
    int64_t x = config_setting_get_int64(v->setting);
    if (!is_within(row, (double)x))
        return out_of_range(why, row, (double)x);
    *out = x;
    return true;
}

static bool read_enum(int *out, const struct setting_row *row, const struct source *v, char why[WHY_MAX])
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
    names_say(&list, row->names);
    if (!name)
        snprintf(why, WHY_MAX, "must be one of %s, not %s", text_string(&list), kind_of(v->setting));
    else if (nearest_is_near(best.distance, (int)strlen(name)))
        snprintf(why, WHY_MAX, "unknown name \"%.100s\"; did you mean \"%s\"? (one of %s)", name, best.name,
                 text_string(&list));
    else
        snprintf(why, WHY_MAX, "unknown name \"%.100s\": must be one of %s", name, text_string(&list));
    text_free(&list);
    return false;
}

static void string_put(char **field, const char *value)
{
    free(*field);
    *field = strdup(value);
    CHECK(*field, "out of memory");
}

static bool read_string(char **out, const struct setting_row *row, const struct source *v, char why[WHY_MAX])
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
    string_put(out, value);
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
        string_put(&out->item[out->n++], item);
    }
    return true;
}

static bool read_range(struct settings_range *out, const struct setting_row *row, const struct source *v,
                       char why[WHY_MAX])
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
    int64_t low = config_setting_get_int64_elem(v->setting, 0), high = config_setting_get_int64_elem(v->setting, 1);
    if (low < 1 || !is_within(row, (double)low) || !is_within(row, (double)high)) {
        snprintf(why, WHY_MAX, "[%lld, %lld] is out of range: both ends at least 1, at most %.12g", (long long)low,
                 (long long)high, row->max);
        return false;
    }
    if (high <= low) {
        snprintf(why, WHY_MAX, "[%lld, %lld] is empty: max itself is not drawn", (long long)low, (long long)high);
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
    if (clock[strspn(clock, "0123456789:-")] || clock[at] || strstr(clock, ":-") || *clock == '-' || days < 0 ||
        field[1] < 0 || field[2] < 0 || field[2] > 59 || field[3] < 0 || field[3] > 59)
        return false;
    *seconds = ((days * INT64_C(24) + field[1]) * 60 + field[2]) * 60 + field[3];
    return true;
}

static bool read_duration(int64_t *out, const struct setting_row *row, const struct source *v, char why[WHY_MAX])
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

/* Reads a value into the field of its row; false, and why, where it does not fit. */
static bool read_value(void *field, const struct setting_row *row, const struct source *v, char why[WHY_MAX])
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

/* Parses the VALUE of an override (or default) for a row, into a tree that the caller destroys. A text that is no
 * libconfig value stands for itself where it can be a string; false, and why, where it cannot. */
static bool parse_value(struct source *out, config_t *tree, const struct setting_row *row, const char *value,
                        char why[WHY_MAX])
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

/* ---- the loader ---- */

/* The default of a row for a task, as text; NULL where there is none. */
static const char *standard_of(const struct setting_row *row, enum task_id task, char out[PATH_MAX_BYTES])
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

static void put_standard(void *field, const struct setting_row *row, enum task_id task)
{
    char buffer[PATH_MAX_BYTES], why[WHY_MAX];
    const char *standard = standard_of(row, task, buffer);
    if (row->type == SETTING_STRING)
        string_put(field, standard ? standard : "");
    else if (standard) {
        config_t tree;
        struct source v = {0};
        bool ok = parse_value(&v, &tree, row, standard, why) && read_value(field, row, &v, why);
        config_destroy(&tree);
        CHECK(ok, "default of %s: %s", row->path, why);
    }
}

static void walk_reward(struct loader *l, config_setting_t *list)
{
    int type = config_setting_type(list), n = config_setting_length(list);
    struct source at = {.setting = list};
    if (type != CONFIG_TYPE_LIST && !(type == CONFIG_TYPE_ARRAY && n == 0)) {
        problem_add(l, &at, 0, "reward", "must be a list of groups: reward = ( { type = .. }, { .. } )");
        return;
    }
    if (n > SETTINGS_REWARDS_MAX) {
        problem_add(l, &at, 0, "reward", "more than 16 rewards");
        n = SETTINGS_REWARDS_MAX;
    }
    l->s->n_rewards = n;
    for (int i = 0; i < n; i++) {
        config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
        char prefix[32], path[PATH_MAX_BYTES], why[WHY_MAX];
        snprintf(prefix, sizeof prefix, "reward.%d", i);
        if (!config_setting_is_group(group)) {
            problem_add(l, &(struct source){.setting = group}, 0, prefix, "must be a group { type = ..; .. }");
            continue;
        }
        for (int j = 0; j < config_setting_length(group); j++) {
            config_setting_t *v = config_setting_get_elem(group, (unsigned)j);
            int row = reward_row_find(config_setting_name(v));
            if (row >= 0) {
                l->reward[i][row].setting = v;
                continue;
            }
            snprintf(path, sizeof path, "%s.%s", prefix, config_setting_name(v));
            unknown_reward_key(why, prefix, config_setting_name(v));
            problem_add(l, &(struct source){.setting = v}, 0, path, why);
        }
    }
}

static void walk_one(struct loader *l, config_setting_t *v, const char *path)
{
    char why[WHY_MAX];
    int row = row_find(path);
    if (row >= 0) {
        l->source[row].setting = v;
        return;
    }
    unknown_setting(why, path);
    problem_add(l, &(struct source){.setting = v}, 0, path, why);
}

static void walk_file(struct loader *l, config_setting_t *root)
{
    for (int i = 0; i < config_setting_length(root); i++) {
        config_setting_t *v = config_setting_get_elem(root, (unsigned)i);
        const char *name = config_setting_name(v);
        if (strcmp(name, "reward") == 0)
            walk_reward(l, v);
        else if (!is_group(name))
            walk_one(l, v, name);
        else if (!config_setting_is_group(v))
            problem_add(l, &(struct source){.setting = v}, 0, name, "must be a group { .. }");
        else
            for (int j = 0; j < config_setting_length(v); j++) {
                config_setting_t *member = config_setting_get_elem(v, (unsigned)j);
                char path[PATH_MAX_BYTES];
                snprintf(path, sizeof path, "%s.%s", name, config_setting_name(member));
                walk_one(l, member, path);
            }
    }
}

/* Finds the row that an override's key names, and where its source is noted; NULL, and why, for none. */
static const struct setting_row *override_row(struct loader *l, const char *key, struct source **at, char why[WHY_MAX])
{
    if (strncmp(key, "reward.", 7) == 0) {
        char *rest;
        unsigned long i = strtoul(key + 7, &rest, 10);
        if (rest == key + 7 || *rest != '.' || key[7] == '-' || key[7] == '+') {
            snprintf(why, WHY_MAX, "must be reward.N.KEY with N from 0, as in reward.0.weight");
            return NULL;
        }
        if (i >= SETTINGS_REWARDS_MAX || (int)i > l->s->n_rewards) {
            snprintf(why, WHY_MAX, "there are %d rewards, counted from 0", l->s->n_rewards);
            return NULL;
        }
        int row = reward_row_find(rest + 1);
        if (row < 0) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "reward.%lu", i);
            unknown_reward_key(why, prefix, rest + 1);
            return NULL;
        }
        if ((int)i == l->s->n_rewards)
            l->s->n_rewards++;
        *at = &l->reward[i][row];
        return &settings_reward_rows[row];
    }
    int row = row_find(key);
    if (row < 0) {
        if (strcmp(key, "reward") == 0 || is_group(key))
            snprintf(why, WHY_MAX, "set its keys one by one, as in %s",
                     is_group(key) ? "ppo.batch_size=64" : "reward.0.weight=2");
        else
            unknown_setting(why, key);
        return NULL;
    }
    *at = &l->source[row];
    return &settings_rows[row];
}

static void take_override(struct loader *l, config_t *tree, const char *override)
{
    char key[PATH_MAX_BYTES], why[WHY_MAX];
    const char *equals = strchr(override, '=');
    struct source here = {.override = override};
    config_init(tree);
    if (!equals || equals == override || equals - override >= (ptrdiff_t)sizeof key) {
        problem_add(l, &here, 0, "", "must be KEY=VALUE, as in ppo.batch_size=64");
        return;
    }
    snprintf(key, sizeof key, "%.*s", (int)(equals - override), override);
    struct source *at;
    const struct setting_row *row = override_row(l, key, &at, why);
    config_destroy(tree);
    if (!row) {
        config_init(tree);
        problem_add(l, &here, 0, "", why);
        return;
    }
    if (parse_value(&here, tree, row, equals + 1, why))
        *at = here;
    else
        problem_add(l, &here, 0, "", why);
}

static void *field_of(const void *in, const struct setting_row *row)
{
    return (char *)in + row->offset;
}

/* Reads one row of the file or an override; without either the default stays. */
static void read_row(struct loader *l, void *in, const struct setting_row *row, const struct source *v,
                     const char *prefix)
{
    char path[PATH_MAX_BYTES], why[WHY_MAX];
    snprintf(path, sizeof path, "%s%s", prefix, row->path);
    bool given = v->setting || v->bare;
    if (given && !read_value(field_of(in, row), row, v, why)) {
        problem_add(l, v, 0, path, why);
        return;
    }
    if (!l->task_known || !(row->required >> l->s->task & 1))
        return;
    bool empty = row->type == SETTING_STRING ? !**(char **)field_of(in, row) : !given;
    if (empty) {
        snprintf(why, sizeof why, "%s task %s needs it", given ? "is empty;" : "is missing;",
                 settings_task_names[l->s->task]);
        problem_add(l, v, 0, path, why);
    }
}

static void read_task(struct loader *l)
{
    int row = row_find("task");
    const struct source *v = &l->source[row];
    char why[WHY_MAX];
    l->s->task = TASK_PPO; /* for the defaults of an input without a task, which fails anyway */
    struct text names = {0};
    if (v->setting || v->bare) {
        int task = 0;
        l->task_known = read_enum(&task, &settings_rows[row], v, why);
        if (l->task_known)
            l->s->task = (enum task_id)task;
        else
            problem_add(l, v, 0, "task", why);
    } else {
        names_say(&names, settings_task_names);
        snprintf(why, sizeof why, "is missing; one of %s", text_string(&names));
        problem_add(l, v, 0, "task", why);
    }
    text_free(&names);
}

static void read_rewards(struct loader *l)
{
    for (int i = 0; i < l->s->n_rewards; i++) {
        struct settings_reward *r = &l->s->reward[i];
        char prefix[32];
        snprintf(prefix, sizeof prefix, "reward.%d.", i);
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            put_standard(field_of(r, &settings_reward_rows[j]), &settings_reward_rows[j], l->s->task);
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            read_row(l, r, &settings_reward_rows[j], &l->reward[i][j], prefix);
        if (!*r->name)
            string_put(&r->name, settings_reward_names[r->type]);
    }
}

/* ---- checks of more than one key ---- */

static void clash(struct loader *l, const char *path, const char *why)
{
    problem_add(l, &l->source[row_find(path)], 0, path, why);
}

static void check_rewards(struct loader *l)
{
    const struct settings *s = l->s;
    if (l->task_known && s->task == TASK_PPO && s->n_rewards == 0)
        problem_add(l, NULL, 0, "reward", "is missing; task ppo needs at least one: reward = ( { type = .. } )");
    for (int i = 0; i < s->n_rewards; i++) {
        const struct settings_reward *r = &s->reward[i];
        const struct source *type = &l->reward[i][reward_row_find("type")];
        char path[64], why[WHY_MAX];
        bool is_program = r->type == REWARD_TYPE_PROGRAM;
        const char *needed = is_program ? "command" : "path";
        if ((type->setting || type->bare) && !*(is_program ? r->command : r->path)) {
            snprintf(path, sizeof path, "reward.%d.%s", i, needed);
            snprintf(why, sizeof why, "is missing; a %s needs it", settings_reward_names[r->type]);
            problem_add(l, type->override ? NULL : type, 0, path, why);
        }
        for (int j = 0; j < i; j++)
            if (strcmp(s->reward[j].name, r->name) == 0) {
                snprintf(path, sizeof path, "reward.%d.name", i);
                snprintf(why, sizeof why, "\"%.100s\" is the name of reward.%d too: give each its own", r->name, j);
                const struct source *name = &l->reward[i][reward_row_find("name")];
                problem_add(l, name->setting || name->override ? name : type, 0, path, why);
                break;
            }
    }
}

static void check_together(struct loader *l)
{
    const struct settings *s = l->s;
    char why[WHY_MAX];
    long long batch = s->ppo.batch_size, mini = s->ppo.mini_batch_size;
    if (mini > batch || batch % mini) {
        snprintf(why, sizeof why, mini > batch ? "%lld exceeds ppo.batch_size = %lld" : "%lld does not divide ppo.batch_size = %lld",
                 mini, batch);
        clash(l, l->source[row_find("ppo.mini_batch_size")].setting ? "ppo.mini_batch_size" : "ppo.batch_size", why);
    }
    long long max_new = s->generate.max_new_tokens.max - 1;
    if (s->generate.min_new_tokens > max_new) {
        snprintf(why, sizeof why, "%lld exceeds the longest response of generate.max_new_tokens, %lld",
                 (long long)s->generate.min_new_tokens, max_new);
        clash(l, "generate.min_new_tokens", why);
    }
    if (s->ppo.early_stopping && !s->ppo.target_kl.set)
        clash(l, "ppo.early_stopping", "needs ppo.target_kl");
    if (s->ppo.use_score_norm && !s->ppo.use_score_scaling)
        clash(l, "ppo.use_score_norm", "needs ppo.use_score_scaling = true");
    if (s->run.eval_steps > 0 && !*s->data.eval_path)
        clash(l, "run.eval_steps", "needs data.eval_path");
    if (l->task_known && s->task == TASK_EVALUATE && !s->evaluate.texts && !s->evaluate.responses)
        clash(l, "evaluate.texts", "nothing to do: evaluate.responses is false too");
    check_rewards(l);
}

static bool parse_file(struct loader *l, config_t *tree, const char *text, size_t n)
{
    struct text scanned = {0};
    int line;
    const char *what;
    bool ok = settings_scan(&scanned, text, n, &line, &what) == 0;
    if (!ok) {
        problem_add(l, NULL, line, "", what);
    } else if (!config_read_string(tree, text_string(&scanned))) {
        char why[WHY_MAX];
        const char *error = config_error_text(tree) ? config_error_text(tree) : "cannot be parsed";
        bool syntax = strstr(error, "syntax") != NULL;
        snprintf(why, sizeof why, "%s%s", error, syntax ? " (here or just before; strings need quotes)" : "");
        problem_add(l, NULL, config_error_line(tree), "", why);
        ok = false;
    }
    text_free(&scanned);
    return ok;
}

int settings_load(struct settings *s, const char *path, const char *text, size_t n, const char *const *overrides,
                  int n_overrides)
{
    *s = (struct settings){0};
    struct loader *l = calloc(1, sizeof *l);
    config_t file, *tree = calloc((size_t)n_overrides + 1, sizeof *tree);
    CHECK(l && tree, "out of memory");
    l->s = s;
    l->path = path;
    config_init(&file);
    if (parse_file(l, &file, text, n)) {
        walk_file(l, config_root_setting(&file));
        for (int i = 0; i < n_overrides; i++)
            take_override(l, &tree[i], overrides[i]);
        read_task(l);
        int task = row_find("task");
        for (int i = 0; i < settings_n_rows; i++)
            if (i != task)
                put_standard(field_of(s, &settings_rows[i]), &settings_rows[i], s->task);
        for (int i = 0; i < settings_n_rows; i++)
            if (i != task)
                read_row(l, s, &settings_rows[i], &l->source[i], "");
        read_rewards(l);
        check_together(l);
        for (int i = 0; i < n_overrides; i++)
            config_destroy(&tree[i]);
    }
    config_destroy(&file);
    int rc = problems_report(l);
    free(tree);
    free(l);
    return rc;
}

static void field_free(void *field, enum setting_type type)
{
    if (type == SETTING_STRING)
        free(*(char **)field);
    else if (type == SETTING_STRINGS)
        strings_free(field);
}

void settings_free(struct settings *s)
{
    for (int i = 0; i < settings_n_rows; i++)
        field_free(field_of(s, &settings_rows[i]), settings_rows[i].type);
    for (int i = 0; i < s->n_rewards; i++)
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            field_free(field_of(&s->reward[i], &settings_reward_rows[j]), settings_reward_rows[j].type);
    *s = (struct settings){0};
}

/* ---- writing ---- */

static void write_float(struct text *out, double x)
{
    char number[40];
    for (int digits = 1; digits <= 17; digits++) { /* the shortest that reads back to the same bits */
        snprintf(number, sizeof number, "%.*g", digits, x);
        if (strtod(number, NULL) == x)
            break;
    }
    text_format(out, "%s%s", number, strpbrk(number, ".e") ? "" : ".0");
}

static void write_string(struct text *out, const char *string)
{
    text_add_string(out, "\"");
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        if (*c == '"' || *c == '\\')
            text_format(out, "\\%c", *c);
        else if (*c == '\n')
            text_add_string(out, "\\n");
        else if (*c < 32 || *c == 127)
            text_format(out, "\\x%02x", *c);
        else
            text_add(out, c, 1);
    }
    text_add_string(out, "\"");
}

static void write_value(struct text *out, const void *field, const struct setting_row *row)
{
    const struct settings_strings *list = field;
    const struct settings_range *range = field;
    const struct settings_optional *optional = field;
    switch (row->type) {
    case SETTING_INT:
    case SETTING_DURATION: {
        long long x = *(const int64_t *)field;
        text_format(out, "%lld%s", x, x > INT32_MAX || x < INT32_MIN ? "L" : "");
        break;
    }
    case SETTING_FLOAT:
        write_float(out, *(const double *)field);
        break;
    case SETTING_BOOL:
        text_add_string(out, *(const bool *)field ? "true" : "false");
        break;
    case SETTING_STRING:
        write_string(out, *(char *const *)field);
        break;
    case SETTING_ENUM:
        write_string(out, row->names[*(const int *)field]);
        break;
    case SETTING_STRINGS:
        text_add_string(out, "[");
        for (int i = 0; i < list->n; i++) {
            text_add_string(out, i ? ", " : "");
            write_string(out, list->item[i]);
        }
        text_add_string(out, "]");
        break;
    case SETTING_RANGE:
        if (range->max <= range->min + 1)
            text_format(out, "%lld", (long long)range->min);
        else
            text_format(out, "[%lld, %lld]", (long long)range->min, (long long)range->max);
        break;
    case SETTING_OPTIONAL:
        if (optional->set)
            write_float(out, optional->value);
        else
            text_add_string(out, "\"none\"");
        break;
    }
}

static void type_say(struct text *out, const struct setting_row *row)
{
    char bounds[96];
    bounds_say(bounds, sizeof bounds, row);
    switch (row->type) {
    case SETTING_INT:
        text_format(out, "Integer, %s.", bounds);
        break;
    case SETTING_FLOAT:
        text_format(out, "Float, %s.", bounds);
        break;
    case SETTING_OPTIONAL:
        text_format(out, "Float, %s, or \"none\".", bounds);
        break;
    case SETTING_ENUM:
        text_add_string(out, "One of ");
        names_say(out, row->names);
        text_add_string(out, ".");
        break;
    case SETTING_STRINGS:
        text_add_string(out, "List of strings.");
        break;
    case SETTING_RANGE:
        text_format(out, "Integer, %s, or [min, max].", bounds);
        break;
    case SETTING_DURATION:
        text_add_string(out, "Seconds or clock time.");
        break;
    case SETTING_BOOL:
    case SETTING_STRING:
        break;
    }
}

static void required_say(struct text *out, unsigned tasks)
{
    unsigned all = (1u << TASK_COUNT) - 1;
    if (tasks == all) {
        text_add_string(out, " Required.");
        return;
    }
    unsigned most = all & ~tasks;
    bool but = __builtin_popcount(most) < __builtin_popcount(tasks);
    text_add_string(out, but ? " Required but in" : " Required in");
    for (int i = 0, n = 0; i < TASK_COUNT; i++)
        if ((but ? most : tasks) >> i & 1)
            text_format(out, "%s %s", n++ ? "," : "", settings_task_names[i]);
    text_add_string(out, ".");
}

/* The comment above a key, wrapped. */
static void doc_write(struct text *out, const struct setting_row *row, const char *indent)
{
    struct text doc = {0};
    text_format(&doc, "%s ", row->doc);
    type_say(&doc, row);
    if (row->by_task) {
        char standard[PATH_MAX_BYTES];
        text_add_string(&doc, " Default");
        for (int i = 0, n = 0; i < TASK_COUNT; i++) {
            const char *value = standard_of(row, (enum task_id)i, standard);
            if (value == standard)
                text_format(&doc, "%s %s in %s", n++ ? "," : "", value, settings_task_names[i]);
        }
        text_format(&doc, ", else %s.", row->standard);
    }
    if (row->required)
        required_say(&doc, row->required);
    for (const char *at = doc.bytes; *at;) {
        size_t room = DOC_COLUMNS - strlen(indent) - 2, n = strlen(at);
        if (n > room)
            for (n = room; n > 0 && at[n] != ' '; n--)
                ;
        size_t used = n;
        while (used && at[used - 1] == ' ')
            used--;
        text_format(out, "%s# %.*s\n", indent, (int)used, at);
        at += n;
        at += strspn(at, " ");
    }
    text_free(&doc);
}

static void write_row(struct text *out, const void *in, const struct setting_row *row, const char *indent, bool docs)
{
    if (docs)
        doc_write(out, row, indent);
    text_format(out, "%s%s = ", indent, leaf_of(row->path));
    write_value(out, field_of(in, row), row);
    text_add_string(out, ";\n");
}

static void write_rewards(struct text *out, const struct settings *s, bool docs)
{
    text_add_string(out, "\n");
    if (docs)
        text_format(out, "# Up to %d rewards, { .. }, { .. }: the score of a sample is their weighted sum.\n",
                    SETTINGS_REWARDS_MAX);
    text_add_string(out, "reward = (");
    for (int i = 0; i < s->n_rewards; i++) {
        text_add_string(out, i ? ",\n  {\n" : "\n  {\n");
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            write_row(out, &s->reward[i], &settings_reward_rows[j], "    ", docs);
        text_add_string(out, "  }");
    }
    text_add_string(out, s->n_rewards ? "\n);\n" : ");\n");
}

static void write_all(struct text *out, const struct settings *s, bool docs)
{
    char group[PATH_MAX_BYTES] = "";
    for (int i = 0; i < settings_n_rows; i++) {
        const struct setting_row *row = &settings_rows[i];
        size_t n = strcspn(row->path, ".");
        if (row->path[n] && (strlen(group) != n || strncmp(group, row->path, n) != 0)) {
            text_add_string(out, *group ? "};\n" : "");
            if (strcmp(group, "generate") == 0)
                write_rewards(out, s, docs);
            snprintf(group, sizeof group, "%.*s", (int)n, row->path);
            text_format(out, "\n%s:\n{\n", group);
        }
        write_row(out, s, row, *group ? "    " : "", docs);
    }
    text_add_string(out, "};\n");
}

void settings_write(struct text *out, const struct settings *s)
{
    write_all(out, s, false);
}

void settings_reference(struct text *out)
{
    struct settings s = {.task = TASK_PPO, .n_rewards = 1};
    for (int i = 1; i < settings_n_rows; i++) { /* row 0 is the task */
        const struct setting_row *row = &settings_rows[i];
        put_standard(field_of(&s, row), row, s.task);
        if (row->example)
            string_put(field_of(&s, row), row->example);
    }
    for (int i = 0; i < SETTINGS_REWARD_ROWS; i++) {
        const struct setting_row *row = &settings_reward_rows[i];
        put_standard(field_of(&s.reward[0], row), row, s.task);
        if (row->example && row->type == SETTING_STRING)
            string_put(field_of(&s.reward[0], row), row->example);
    }
    text_add_string(out, "# Every setting of rlhf-hpc, with its default (of task ppo, where tasks differ). Written from the\n"
                         "# table in src/settings_table.c by `make reference`; do not edit.\n"
                         "#\n"
                         "# Only what differs from its default needs to be in an input.cfg. Any of these can be given on the\n"
                         "# command line: --set ppo.batch_size=64, --set reward.0.weight=0.5. Sizes are global, over all\n"
                         "# ranks. Relative paths start at the current directory. @include is not supported.\n\n");
    write_all(out, &s, true);
    settings_free(&s);
}
