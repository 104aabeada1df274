/* MANIFEST.json, written last and checked first. */
#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "error.h"
#include "file.h"
#include "hash.h"
#include "text.h"

enum { FORMAT_VERSION = 1, MANIFEST_BYTES_MAX = 1 << 24, NAME_MAX_BYTES = 1024, DEPTH_MAX = 8 };

static const char NAME[] = "MANIFEST.json";

/* -- writing -------------------------------------------------------------------------------------- */

static int sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0 || fsync(fd) != 0)
        rc = error_set(ERR_FILE, "%s: cannot flush to disk: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

static int add_file(json_t *files, const char *path, const char *name)
{
    TRY(sync_file(path));
    struct file_map map;
    TRY(file_map(&map, path));
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, hash_bytes(map.bytes, map.n, 0));
    json_t *entry =
        json_pack("{s:s, s:I, s:s}", "name", name, "size", (json_int_t)map.n, "xxh64", hash);
    file_unmap(&map);
    if (!entry || json_array_append_new(files, entry) != 0)
        return error_set(ERR_FILE, "%s: the name is not UTF-8", path);
    return 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_entry(const struct dirent *e)
{
    return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

/* The files below folder/inner, in the order of their names, so that equal states have equal manifests. */
static int add_folder(json_t *files, const char *folder, const char *inner, int depth)
{
    if (depth > DEPTH_MAX)
        return error_set(ERR_FILE, "%s: folders nested deeper than %d", inner, DEPTH_MAX);
    char *path = *inner ? file_join(folder, inner) : strdup(folder);
    CHECK(path, "out of memory");
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, is_entry, compare_names), rc = 0;
    if (n < 0)
        rc = error_set(ERR_FILE, "%s: cannot read the folder: %s", path, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (rc == 0 && strcmp(*inner ? "" : entries[i]->d_name, NAME) != 0) {
            char *name = *inner ? file_join(inner, entries[i]->d_name) : strdup(entries[i]->d_name);
            CHECK(name, "out of memory");
            char *full = file_join(folder, name);
            rc = file_is_folder(full) ? add_folder(files, folder, name, depth + 1)
                                      : add_file(files, full, name);
            free(full);
            free(name);
        }
        free(entries[i]);
    }
    free(entries);
    if (rc == 0)
        rc = file_sync_folder(path);
    free(path);
    return rc;
}

int manifest_write(const char *folder, int64_t step)
{
    json_t *files = json_array(), *root = NULL;
    CHECK(files, "out of memory");
    int rc = add_folder(files, folder, "", 0);
    if (rc == 0) {
        root = json_pack("{s:i, s:I, s:O}", "version", FORMAT_VERSION, "step", (json_int_t)step,
                         "files", files);
        char *bytes = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
        CHECK(bytes, "out of memory");
        char *path = file_join(folder, NAME);
        rc = file_write_atomic(path, bytes, strlen(bytes));
        free(path);
        free(bytes);
    }
    if (rc == 0)
        rc = file_sync_folder(folder);
    json_decref(root);
    json_decref(files);
    return rc;
}

/* -- checking ------------------------------------------------------------------------------------- */

/* A relative path that stays inside: no empty part, no "." or "..". */
static bool name_is_safe(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_BYTES)
        return false;
    for (const char *part = name;; part++) {
        size_t k = strcspn(part, "/");
        if (k == 0 || (k == 1 && part[0] == '.') || (k == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += k;
        if (!*part)
            return true;
    }
}

static int check_file(const char *folder, const json_t *entry, const char *manifest, size_t i,
                      bool *is_state)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const json_t *size = json_object_get(entry, "size");
    const char *hash = json_string_value(json_object_get(entry, "xxh64"));
    if (!name || !json_is_integer(size) || json_integer_value(size) < 0 || !hash)
        return error_set(ERR_FILE, "%s: files[%zu]: needs a name, a size and an xxh64", manifest,
                         i);
    if (!name_is_safe(name))
        return error_set(ERR_FILE, "%s: files[%zu]: bad file name", manifest, i);
    *is_state = strcmp(name, "state.h5") == 0;
    char *path = file_join(folder, name);
    struct file_map map = {0};
    int rc = file_map(&map, path);
    if (rc == 0 && (json_int_t)map.n != json_integer_value(size))
        rc = error_set(ERR_FILE, "%s: has %zu bytes, its manifest says %lld", path, map.n,
                       (long long)json_integer_value(size));
    if (rc == 0) {
        char found[17];
        snprintf(found, sizeof found, "%016" PRIx64, hash_bytes(map.bytes, map.n, 0));
        if (strcmp(found, hash) != 0)
            rc = error_set(ERR_FILE, "%s: is damaged: its hash is %s, its manifest says %.32s",
                           path, found, hash);
    }
    file_unmap(&map);
    free(path);
    return rc;
}

static int check_root(const char *folder, const json_t *root, const char *path, int64_t step)
{
    const json_t *version = json_object_get(root, "version");
    const json_t *own_step = json_object_get(root, "step");
    const json_t *files = json_object_get(root, "files");
    if (!json_is_integer(version) || !json_is_integer(own_step) || !json_is_array(files))
        return error_set(ERR_FILE, "%s: needs a version, a step and files", path);
    if (json_integer_value(version) != FORMAT_VERSION)
        return error_set(ERR_FILE, "%s: version %lld; this program reads version %d", path,
                         (long long)json_integer_value(version), FORMAT_VERSION);
    if (step >= 0 && json_integer_value(own_step) != step)
        return error_set(ERR_FILE, "%s: is of step %lld, not %lld", path,
                         (long long)json_integer_value(own_step), (long long)step);
    bool has_state = false;
    for (size_t i = 0; i < json_array_size(files); i++) {
        bool is_state = false;
        TRY(check_file(folder, json_array_get(files, i), path, i, &is_state));
        has_state |= is_state;
    }
    if (!has_state)
        return error_set(ERR_FILE, "%s: does not list state.h5", path);
    return 0;
}

int manifest_check(const char *folder, int64_t step)
{
    char *path = file_join(folder, NAME);
    struct file_map map = {0};
    json_t *root = NULL;
    int rc = file_map(&map, path);
    if (rc == 0 && map.n > MANIFEST_BYTES_MAX)
        rc = error_set(ERR_FILE, "%s: %zu bytes are too many", path, map.n);
    if (rc == 0) {
        json_error_t e;
        root = json_loadb(map.n ? (const char *)map.bytes : "", map.n, JSON_REJECT_DUPLICATES, &e);
        if (!root)
            rc = error_set(ERR_FILE, "%s:%d: %s", path, e.line, e.text);
    }
    if (rc == 0)
        rc = check_root(folder, root, path, step);
    json_decref(root);
    file_unmap(&map);
    free(path);
    return rc;
}
