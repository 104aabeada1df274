/* JSON documents through Jansson. Jansson's parser recurses, so the depth is counted before it starts. */
#include "document.h"

#include "error.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

/* The deepest nesting of brackets outside strings. Malformed text is left to the parser. */
static int depth(const char *bytes, size_t n)
{
    int now = 0, most = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        const char c = bytes[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++now > most)
                most = now;
        } else if (c == '}' || c == ']') {
            now--;
        }
    }
    return most;
}

static json_t *parse(const char *path, const void *bytes, size_t n, size_t flags)
{
    if (depth(bytes, n) > DOCUMENT_DEPTH_MAX) {
        error_set(ERR_FILE, "%s: JSON nested deeper than %d levels", path, DOCUMENT_DEPTH_MAX);
        return NULL;
    }
    json_error_t problem;
    json_t *document = json_loadb(bytes, n, JSON_REJECT_DUPLICATES | flags, &problem);
    if (!document) {
        error_set(ERR_FILE, "%s: line %d: not JSON: %s", path, problem.line, problem.text);
        return NULL;
    }
    if (!json_is_object(document)) {
        error_set(ERR_FILE, "%s: not a JSON object", path);
        json_decref(document);
        return NULL;
    }
    return document;
}

json_t *document_parse(const char *path, const void *bytes, size_t n)
{
    return parse(path, bytes, n, 0);
}

static json_t *read_file(const char *path, size_t flags)
{
    struct file_map map;
    if (file_map(&map, path) != 0)
        return NULL;
    json_t *document = NULL;
    if (map.n > DOCUMENT_BYTES_MAX)
        error_set(ERR_FILE, "%s: larger than %d MiB", path, DOCUMENT_BYTES_MAX >> 20);
    else
        document = parse(path, map.n ? (const void *)map.bytes : "", map.n, flags);
    file_unmap(&map);
    return document;
}

json_t *document_read(const char *path)
{
    return read_file(path, 0);
}

json_t *document_read_reals(const char *path)
{
    return read_file(path, JSON_DECODE_INT_AS_REAL);
}

int document_write(const char *path, const json_t *document)
{
    char *text = NULL;
    for (int digits = 15; digits <= 17; digits++) {
        free(text);
        text = json_dumps(document,
                          JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION((size_t)digits));
        CHECK(text, "%s: cannot be written as JSON", path);
        json_t *back = json_loads(text, 0, NULL);
        const bool same = back && json_equal(back, document);
        json_decref(back);
        if (same)
            break;
    }
    struct text out = {0};
    text_add_string(&out, text);
    text_add_string(&out, "\n");
    free(text);
    int rc = file_write_atomic(path, out.bytes, out.n);
    text_free(&out);
    return rc;
}
