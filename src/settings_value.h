/* One value of the table: libconfig tree or text -> field of its type, and back. Private to settings*.c. */
#ifndef RLHF_SRC_SETTINGS_VALUE_H
#define RLHF_SRC_SETTINGS_VALUE_H

#include <libconfig.h>

#include "settings_table.h"

enum { WHY_MAX = 512, PATH_MAX_BYTES = 160 };

/* Where the value of a row stands: nowhere, in the file (setting with a line) or in an override. */
struct source {
    config_setting_t *setting;
    const char *override; /* "KEY=VALUE" */
    const char *bare;     /* VALUE, where it is no libconfig value but stands for a string */
    bool refused;         /* it did not fit its row: a problem that was told */
};

/* Reads a value into the field of its row; false, and why, where it does not fit. */
bool value_read(void *field, const struct setting_row *row, const struct source *v,
                char why[WHY_MAX]);

/* Parses the VALUE of an override (or default) for a row, into a tree that the caller destroys. A text that is no
 * libconfig value stands for itself where it can be a string; false, and why, where it cannot. */
bool value_parse(struct source *out, config_t *tree, const struct setting_row *row,
                 const char *value, char why[WHY_MAX]);

/* The default of a row for a task, as text in out or in the table; NULL where there is none. */
const char *value_standard(const struct setting_row *row, enum task_id task,
                           char out[PATH_MAX_BYTES]);
void value_put_standard(void *field, const struct setting_row *row, enum task_id task);

void value_put_string(char **field, const char *value);
void value_free(void *field, enum setting_type type);

/* Bounds for people: "0 to 1", "above 0", "at least 1", "any number". */
void value_bounds(char *out, size_t n, const struct setting_row *row);
void value_names(struct text *out, const char *const *names); /* "a", "b" */

static inline void *field_of(const void *in, const struct setting_row *row)
{
    return (char *)in + row->offset;
}

const char *value_leaf(const char *path); /* behind the last dot */

#endif
