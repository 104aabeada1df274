/* The folder tree of aclImdb: DIR/{neg,pos}/<name>.txt, a review a file. */
#include "dataset_reader.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "file.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
    char **name;
    size_t n, room;
};

static int list_texts(struct names *out, const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return error_set(ERR_FILE, "%s: cannot open the folder: %s", folder, strerror(errno));
    for (const struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        if (n <= 4 || strcmp(e->d_name + n - 4, ".txt") != 0)
            continue;
        if (out->n == out->room) {
            out->room = out->room ? 2 * out->room : 256;
            out->name = realloc(out->name, out->room * sizeof *out->name);
            CHECK(out->name, "out of memory");
        }
        out->name[out->n++] = dataset_bytes(e->d_name, n);
    }
    closedir(dir);
    if (out->n)
        qsort(out->name, out->n, sizeof *out->name, by_name);
    return 0;
}

static int read_review(struct dataset_reader *rd, const char *folder, const char *name, int label)
{
    struct text bytes = {0};
    char *path = file_join(folder, name);
    int rc = file_read(&bytes, path);
    if (rc == 0) {
        struct dataset_row *r = dataset_row_begin(rd->d, 0);
        r->text = dataset_bytes(text_string(&bytes), bytes.n);
        r->n_text = bytes.n;
        r->label = label;
        r->has_label = true;
        rc = dataset_row_end(rd, "\"text\" and \"label\": this is the imdb folder");
    }
    free(path);
    text_free(&bytes);
    return rc;
}

static int read_class(struct dataset_reader *rd, const char *root, const char *class_name, int label)
{
    char *folder = file_join(root, class_name);
    struct names names = {0};
    int rc = file_is_folder(folder) ? list_texts(&names, folder) : 0;
    for (size_t i = 0; i < names.n; i++) {
        if (rc == 0)
            rc = read_review(rd, folder, names.name[i], label);
        free(names.name[i]);
    }
    free(names.name);
    free(folder);
    return rc;
}

static bool has_classes(const char *root)
{
    char *neg = file_join(root, "neg"), *pos = file_join(root, "pos");
    bool has = file_is_folder(neg) || file_is_folder(pos);
    free(neg);
    free(pos);
    return has;
}

int dataset_read_folder(struct dataset_reader *rd)
{
    char *split = file_join(rd->path, rd->split);
    const char *root = has_classes(rd->path) ? rd->path : split;
    int rc = 0;
    if (!has_classes(root))
        rc = error_set(
            ERR_FILE, "%s: no imdb folder: neither neg/ and pos/ nor %s/neg/ and %s/pos/ are in it",
            rd->path, rd->split, rd->split);
    if (rc == 0)
        rc = read_class(rd, root, "neg", 0);
    if (rc == 0)
        rc = read_class(rd, root, "pos", 1);
    free(split);
    return rc;
}
