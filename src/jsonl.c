/* JSON Lines over bytes in memory, through Jansson. The depth is checked first: Jansson recurses. */
#include "jsonl.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "error.h"

void jsonl_open(struct jsonl *j, const char *path, const char *bytes, size_t n)
{
    *j = (struct jsonl){.path = path, .bytes = bytes, .n = n};
    if (n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0)
        j->at = 3;
}

static bool is_blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

static int depth_of(const char *line, size_t n)
{
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = line[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

json_t *jsonl_parse(const struct jsonl *j, const char *bytes, size_t n)
{
    json_error_t error;
    json_t *value = NULL;
    if (depth_of(bytes, n) > JSONL_DEPTH_MAX)
        error_set(ERR_FILE, "%s:%lld: nested deeper than %d", j->path, (long long)j->line, JSONL_DEPTH_MAX);
    else if (!(value = json_loadb(bytes, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error)))
        error_set(ERR_FILE, "%s:%lld: not valid JSON: %s (at byte %d)", j->path, (long long)j->line, error.text,
                  error.position);
    return value;
}

int jsonl_next(struct jsonl *j, json_t **object)
{
    *object = NULL;
    while (j->at < j->n) {
        const char *line = j->bytes + j->at, *end = memchr(line, '\n', j->n - j->at);
        size_t n = end ? (size_t)(end - line) : j->n - j->at;
        j->at += n + (end != NULL);
        j->line++;
        if (is_blank(line, n))
            continue;
        json_t *value = jsonl_parse(j, line, n);
        if (!value)
            return -1;
        if (!json_is_object(value)) {
            error_set(ERR_FILE, "%s:%lld: %s where an object { .. } was expected", j->path,
                      (long long)j->line, jsonl_kind(value));
            json_decref(value);
            return -1;
        }
        *object = value;
        return 1;
    }
    return 0;
}

static int add_bytes(const char *bytes, size_t n, void *out)
{
    text_add(out, bytes, n);
    return 0;
}

void jsonl_add(struct text *out, const json_t *object, size_t flags)
{
    CHECK(json_dump_callback(object, add_bytes, out, flags) == 0, "an object that is no JSON");
    text_add_string(out, "\n");
}

json_t *jsonl_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

const char *jsonl_kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a float";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}
