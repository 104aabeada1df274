/* The table of settings: one row a key. Private to settings.c and its tests. */
#ifndef RLHF_SRC_SETTINGS_TABLE_H
#define RLHF_SRC_SETTINGS_TABLE_H

#include "settings.h"

enum setting_type {
    SETTING_INT,      /* int64_t */
    SETTING_FLOAT,    /* double; integers are accepted */
    SETTING_BOOL,     /* bool */
    SETTING_STRING,   /* char *, owned */
    SETTING_ENUM,     /* an enum (stored as int) whose names are in the row */
    SETTING_STRINGS,  /* struct settings_strings; one string stands for a list of one */
    SETTING_RANGE,    /* struct settings_range: n or [min, max] */
    SETTING_OPTIONAL, /* struct settings_optional: a float or "none" */
    SETTING_DURATION  /* int64_t seconds: an integer or "[D-]HH:MM:SS" */
};

struct setting_row {
    const char *path; /* dotted; in settings_reward_rows the key alone */
    enum setting_type type;
    size_t offset;        /* in struct settings, or struct settings_reward */
    const char *standard; /* the default, as one would write it after --set KEY=; NULL: "" or off */
    const char *by_task;  /* defaults of single tasks: "sft=0.05 reward=0.05"; NULL: none */
    double min, max;      /* of numbers, inclusive */
    bool above;           /* min itself is excluded */
    bool filled;          /* a string that may not be "" */
    bool number_too;      /* a string that may be written as an integer */
    const char *const *names; /* of an enum, NULL at the end */
    unsigned required;        /* 1u << task: this task cannot do without */
    const char *example;      /* what reference.cfg shows, where the default is no use */
    const char *doc;
};

extern const struct setting_row settings_rows[], settings_reward_rows[];
extern const int settings_n_rows;
enum { SETTINGS_ROWS_MAX = 128, SETTINGS_REWARD_ROWS = 10 };

#endif
