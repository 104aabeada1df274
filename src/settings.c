/* Loading, checking and writing of settings, all driven by the table.
 *
 * Loading: text -> libconfig tree; walk the tree and note for every row where its value stands (an unknown key is a
 * problem here); overrides take the place of the file's values; then every row is read or takes its default, which is
 * parsed like an override; last come the checks that concern more than one key. Problems are collected on the way.
 */
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "nearest.h"
#include "settings_scan.h"
#include "settings_value.h"

enum { PROBLEMS_MAX = 500, REPORT_MAX = 15000 };

struct problem {
    int line; /* 0: an override or a missing key, listed last */
    struct text text;
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

static void problem_add(struct loader *l, const struct source *at, int line, const char *key,
                        const char *why)
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
    if (all.n > REPORT_MAX) { /* what the error slot holds, cut at a line */
        all.n = REPORT_MAX;
        while (all.bytes[all.n - 1] != '\n')
            all.n--;
        text_add_string(&all, ".. and more");
    }
    for (int i = 0; i < n; i++)
        text_free(&l->problem[i].text);
    if (n)
        error_set(ERR_INPUT, "%s", text_string(&all));
    text_free(&all);
    return n ? -1 : 0;
}

/* ---- names ---- */

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

static void unknown_say(char why[WHY_MAX], const char *what, const struct nearest *best,
                        const char *written)
{
    if (nearest_is_near(best->distance, (int)strlen(value_leaf(written))))
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
        if (strcmp(value_leaf(path), value_leaf(settings_rows[i].path)) == 0)
            nearest_try(&best, settings_rows[i].path, 1);
    if (!strchr(path, '.')) {
        nearest_try(&best, "reward", nearest_distance(path, "reward"));
        for (int i = 0; i < settings_n_rows; i++) {
            char group[PATH_MAX_BYTES];
            snprintf(group, sizeof group, "%.*s", (int)strcspn(settings_rows[i].path, "."),
                     settings_rows[i].path);
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

/* ---- the loader ---- */

static void walk_reward(struct loader *l, config_setting_t *list)
{
    int type = config_setting_type(list), n = config_setting_length(list);
    struct source at = {.setting = list};
    if (type != CONFIG_TYPE_LIST && !(type == CONFIG_TYPE_ARRAY && n == 0)) {
        problem_add(l, &at, 0, "reward",
                    "must be a list of groups: reward = ( { type = .. }, { .. } )");
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
            problem_add(l, &(struct source){.setting = group}, 0, prefix,
                        "must be a group { type = ..; .. }");
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
static const struct setting_row *override_row(struct loader *l, const char *key, struct source **at,
                                              char why[WHY_MAX])
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
    if (value_parse(&here, tree, row, equals + 1, why))
        *at = here;
    else
        problem_add(l, &here, 0, "", why);
}

/* Reads one row of the file or an override; without either the default stays. */
static void read_row(struct loader *l, void *in, const struct setting_row *row,
                     struct source *v, const char *prefix)
{
    char path[PATH_MAX_BYTES], why[WHY_MAX];
    snprintf(path, sizeof path, "%s%s", prefix, row->path);
    bool given = v->setting || v->bare;
    if (given && !value_read(field_of(in, row), row, v, why)) {
        problem_add(l, v, 0, path, why);
        v->refused = true;
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
        l->task_known = value_read(&task, &settings_rows[row], v, why);
        if (l->task_known)
            l->s->task = (enum task_id)task;
        else
            problem_add(l, v, 0, "task", why);
    } else {
        value_names(&names, settings_task_names);
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
            value_put_standard(field_of(r, &settings_reward_rows[j]), &settings_reward_rows[j],
                               l->s->task);
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            read_row(l, r, &settings_reward_rows[j], &l->reward[i][j], prefix);
        if (!*r->name)
            value_put_string(&r->name, settings_reward_names[r->type]);
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
        problem_add(l, NULL, 0, "reward",
                    "is missing; task ppo needs at least one: reward = ( { type = .. } )");
    for (int i = 0; i < s->n_rewards; i++) {
        const struct settings_reward *r = &s->reward[i];
        const struct source *type = &l->reward[i][reward_row_find("type")];
        char path[64], why[WHY_MAX];
        bool is_program = r->type == REWARD_TYPE_PROGRAM;
        const char *needed = is_program ? "command" : "path";
        bool told = type->refused || l->reward[i][reward_row_find(needed)].refused;
        if ((type->setting || type->bare) && !told && !*(is_program ? r->command : r->path)) {
            snprintf(path, sizeof path, "reward.%d.%s", i, needed);
            snprintf(why, sizeof why, "is missing; a %s needs it", settings_reward_names[r->type]);
            problem_add(l, type->override ? NULL : type, 0, path, why);
        }
        for (int j = 0; j < i; j++)
            if (strcmp(s->reward[j].name, r->name) == 0) {
                snprintf(path, sizeof path, "reward.%d.name", i);
                snprintf(why, sizeof why,
                         "\"%.100s\" is the name of reward.%d too: give each its own", r->name, j);
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
        snprintf(why, sizeof why, "ppo.mini_batch_size = %lld %s ppo.batch_size = %lld", mini,
                 mini > batch ? "exceeds" : "does not divide", batch);
        clash(l,
              l->source[row_find("ppo.mini_batch_size")].setting ? "ppo.mini_batch_size"
                                                                 : "ppo.batch_size",
              why);
    }
    long long max_new = s->generate.max_new_tokens.max - 1;
    if (s->generate.min_new_tokens > max_new) {
        snprintf(why, sizeof why,
                 "%lld exceeds the longest response of generate.max_new_tokens, %lld",
                 (long long)s->generate.min_new_tokens, max_new);
        clash(l, "generate.min_new_tokens", why);
    }
    if (s->task == TASK_PPO && s->generate.temperature == 0)
        clash(l, "generate.temperature", "0 is greedy: ppo needs samples");
    if (s->ppo.early_stopping && !s->ppo.target_kl.set)
        clash(l, "ppo.early_stopping", "needs ppo.target_kl");
    if (s->ppo.use_score_norm && !s->ppo.use_score_scaling)
        clash(l, "ppo.use_score_norm", "needs ppo.use_score_scaling = true");
    if (s->ppo.missing_eos_penalty.set && s->generate.ignore_eos)
        clash(l, "ppo.missing_eos_penalty", "needs generate.ignore_eos = false");
    if (s->optim.warmup_steps > 0 && s->optim.lr_scheduler_type == SCHEDULER_CONSTANT)
        clash(l, "optim.warmup_steps",
              "optim.lr_scheduler_type = \"constant\" takes no warm-up; use "
              "\"constant_with_warmup\"");
    if (s->reward_model.head_only && *s->model.adapter)
        clash(l, "reward_model.head_only", "the head is trained without adapters: model.adapter has no part in it; merge it first "
              "(task = \"merge\")");
    if (s->run.eval_steps > 0 && !*s->data.eval_path)
        clash(l, "run.eval_steps", "needs data.eval_path");
    if (l->task_known && s->task == TASK_EVALUATE && s->evaluate.what == EVALUATE_CHOICE_RESPONSES && !s->n_rewards)
        clash(l, "evaluate.what", "\"responses\" needs a reward: reward = ( { type = .. } )");
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
        snprintf(why, sizeof why, "%s%s", error,
                 syntax ? " (here or just before; strings need quotes)" : "");
        problem_add(l, NULL, config_error_line(tree), "", why);
        ok = false;
    }
    text_free(&scanned);
    return ok;
}

int settings_load(struct settings *s, const char *path, const char *text, size_t n,
                  const char *const *overrides, int n_overrides)
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
                value_put_standard(field_of(s, &settings_rows[i]), &settings_rows[i], s->task);
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

void settings_free(struct settings *s)
{
    for (int i = 0; i < settings_n_rows; i++)
        value_free(field_of(s, &settings_rows[i]), settings_rows[i].type);
    for (int i = 0; i < s->n_rewards; i++)
        for (int j = 0; j < SETTINGS_REWARD_ROWS; j++)
            value_free(field_of(&s->reward[i], &settings_reward_rows[j]),
                       settings_reward_rows[j].type);
    *s = (struct settings){0};
}
