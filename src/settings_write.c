/* Writing settings: the resolved input.cfg of a run, and input/reference.cfg with its documentation. */
#include "settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings_value.h"

enum { DOC_COLUMNS = 100 };

static void write_float(struct text *out, double x)
{
    char number[40];
    for (int digits = 1; digits <= 17;
         digits++) { /* the shortest that reads back to the same bits */
        snprintf(number, sizeof number, "%.*g", digits, x);
        bool plain = fabs(x) < 1e-4 || fabs(x) >= 1e9 || !strchr(number, 'e'); /* 60.0, not 6e+01 */
        if (strtod(number, NULL) == x && plain)
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
    value_bounds(bounds, sizeof bounds, row);
    switch (row->type) {
    case SETTING_INT:
        text_format(out, " Integer, %s.", bounds);
        break;
    case SETTING_FLOAT:
        text_format(out, " Float, %s.", bounds);
        break;
    case SETTING_OPTIONAL:
        text_format(out, " Float, %s, or \"none\".", bounds);
        break;
    case SETTING_ENUM:
        text_add_string(out, " One of ");
        value_names(out, row->names);
        text_add_string(out, ".");
        break;
    case SETTING_STRINGS:
        text_add_string(out, " List of strings.");
        break;
    case SETTING_RANGE:
        text_format(out, " Integer, %s, or [min, max].", bounds);
        break;
    case SETTING_DURATION:
        text_add_string(out, " Seconds or clock time.");
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
    text_add_string(&doc, row->doc);
    type_say(&doc, row);
    if (row->by_task) {
        char standard[PATH_MAX_BYTES];
        text_add_string(&doc, " Default");
        for (int i = 0, n = 0; i < TASK_COUNT; i++) {
            const char *value = value_standard(row, (enum task_id)i, standard);
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

static void write_row(struct text *out, const void *in, const struct setting_row *row,
                      const char *indent, bool docs)
{
    if (docs)
        doc_write(out, row, indent);
    text_format(out, "%s%s = ", indent, value_leaf(row->path));
    write_value(out, field_of(in, row), row);
    text_add_string(out, ";\n");
}

static void write_rewards(struct text *out, const struct settings *s, bool docs)
{
    text_add_string(out, "\n");
    if (docs)
        text_format(
            out,
            "# Up to %d rewards, { .. }, { .. }: the score of a sample is their weighted sum.\n",
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
        value_put_standard(field_of(&s, row), row, s.task);
        if (row->example)
            value_put_string(field_of(&s, row), row->example);
    }
    for (int i = 0; i < SETTINGS_REWARD_ROWS; i++) {
        const struct setting_row *row = &settings_reward_rows[i];
        value_put_standard(field_of(&s.reward[0], row), row, s.task);
        if (row->example && row->type == SETTING_STRING)
            value_put_string(field_of(&s.reward[0], row), row->example);
    }
    text_add_string(
        out,
        "# Every setting of rlhf-hpc, with its default (of task ppo, where tasks differ). Written "
        "from the\n"
        "# table in src/settings_table.c by `make reference`; do not edit.\n"
        "#\n"
        "# Only what differs from its default needs to be in an input.cfg. Any of these can be "
        "given on the\n"
        "# command line: --set ppo.batch_size=64, --set reward.0.weight=0.5. Sizes are global, "
        "over all\n"
        "# ranks. Relative paths start at the current directory. @include is not supported.\n\n");
    write_all(out, &s, true);
    settings_free(&s);
}
