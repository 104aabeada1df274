/* config.json's id2label: {"0": "NEGATIVE", "1": "POSITIVE"}. Class names are from outside: each id and name is checked. */
#include "labels.h"

#include "document.h"
#include "error.h"
#include "file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_TOLD = 20 };

/* A whole decimal number below n, -1 for anything else. */
static int index_of(const char *digits, int n)
{
    char *end;
    if (*digits < '0' || *digits > '9')
        return -1;
    const long value = strtol(digits, &end, 10);
    return *end || value >= n ? -1 : (int)value;
}

static int find_name(const struct labels *l, const char *name)
{
    for (int i = 0; i < l->n; i++)
        if (l->name[i] && !strcmp(l->name[i], name))
            return i;
    return -1;
}

static void make_room(struct labels *l, size_t n)
{
    l->n = (int)n;
    l->name = calloc(n, sizeof *l->name);
    CHECK(l->name, "out of memory for %zu labels", n);
}

static int put(struct labels *l, const char *path, int id, const char *name)
{
    if (id < 0 || l->name[id])
        return error_set(ERR_FILE, "%s: the ids of %d labels are not 0 to %d", path, l->n, l->n - 1);
    if (!name)
        return error_set(ERR_FILE, "%s: the name of label %d is not a string", path, id);
    if (find_name(l, name) >= 0)
        return error_set(ERR_FILE, "%s: two labels have the name '%.60s'", path, name);
    l->name[id] = strdup(name);
    CHECK(l->name[id], "out of memory");
    return 0;
}

/* Fills l from {"<id>": name}, or from {name: <id>}. */
static int put_all(struct labels *l, const char *path, const json_t *map, bool by_name)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        TRY(by_name ? put(l, path, id < l->n ? (int)id : -1, key) : put(l, path, index_of(key, l->n), json_string_value(value)));
    }
    return 0;
}

void labels_numbered(struct labels *l, int n)
{
    make_room(l, (size_t)n);
    for (int i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof name, "LABEL_%d", i);
        l->name[i] = strdup(name);
        CHECK(l->name[i], "out of memory");
    }
}

void labels_put(json_t *config, const struct labels *l)
{
    json_t *by_id = json_object(), *by_name = json_object();
    for (int i = 0; i < l->n; i++) {
        char id[24];
        snprintf(id, sizeof id, "%d", i);
        CHECK(json_object_set_new(by_id, id, json_string(l->name[i])) == 0 &&
                  json_object_set_new(by_name, l->name[i], json_integer(i)) == 0, "id2label: %s", l->name[i]);
    }
    CHECK(json_object_set_new(config, "id2label", by_id) == 0 && json_object_set_new(config, "label2id", by_name) == 0,
          "out of memory for %d labels", l->n);
}

static int check_count(const struct labels *l, const char *path, const json_t *number)
{
    if (number && json_integer_value(number) != l->n)
        return error_set(ERR_FILE, "%s: num_labels is %lld, but %d labels have names", path,
                         (long long)json_integer_value(number), l->n);
    return 0;
}

/* The value of a key, NULL where it is absent or null. */
static const json_t *get(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_is_null(v) ? NULL : v;
}

int labels_of_config(struct labels *l, const char *path, const json_t *config)
{
    const json_t *names = get(config, "id2label"), *ids = get(config, "label2id"), *number = get(config, "num_labels");
    const json_t *map = names ? names : ids;
    *l = (struct labels){0};
    if (map && (!json_is_object(map) || !json_object_size(map) || json_object_size(map) > LABELS_MAX))
        return error_set(ERR_FILE, "%s: %s is not an object of 1 to %d labels", path, names ? "id2label" : "label2id",
                         LABELS_MAX);
    if (number && (!json_is_integer(number) || json_integer_value(number) < 1 || json_integer_value(number) > LABELS_MAX))
        return error_set(ERR_FILE, "%s: num_labels is not a whole number from 1 to %d", path, LABELS_MAX);
    if (map)
        make_room(l, json_object_size(map));
    else
        labels_numbered(l, number ? (int)json_integer_value(number) : 2);
    int rc = map ? put_all(l, path, map, !names) : 0;
    if (!rc)
        rc = check_count(l, path, number);
    if (rc)
        labels_free(l);
    return rc;
}

int labels_read(struct labels *l, const char *folder)
{
    *l = (struct labels){0};
    char *path = file_join(folder, "config.json");
    json_t *config = document_read(path);
    int rc = config ? labels_of_config(l, path, config) : -1;
    json_decref(config);
    free(path);
    return rc;
}

void labels_free(struct labels *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    *l = (struct labels){0};
}

int labels_find(const struct labels *l, const char *name)
{
    const int by_name = find_name(l, name), by_number = index_of(name, l->n);
    if (by_name >= 0 || by_number >= 0)
        return by_name >= 0 ? by_name : by_number;
    struct text names = {0};
    for (int i = 0; i < l->n && i < NAMES_TOLD; i++)
        text_format(&names, "%s%s", i ? ", " : "", l->name[i]);
    error_set(ERR_INPUT, "label '%.60s' is not one of %s%s, nor a number from 0 to %d", name, text_string(&names),
              l->n > NAMES_TOLD ? ", .." : "", l->n - 1);
    text_free(&names);
    return -1;
}
