/* Datasets: four formats into rows; one place (row_end) decides what a row must have. */
#include "dataset.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "csv.h"
#include "error.h"
#include "file.h"
#include "jsonl.h"

static const char SEPARATOR[] = "<|endoftext|>";

struct reader {
    struct dataset *d;
    const struct settings_data *s;
    const char *path, *split;
    unsigned need;
};

static void row_free(struct dataset_row *r)
{
    free(r->text);
    free(r->prompt);
    free(r->chosen);
    free(r->rejected);
    free(r->input_ids);
    *r = (struct dataset_row){0};
}

static struct dataset_row *row_begin(struct dataset *d, int64_t line)
{
    if (d->n == d->room) {
        d->room = d->room ? 2 * d->room : 64;
        d->row = realloc(d->row, (size_t)d->room * sizeof *d->row);
        CHECK(d->row, "out of memory for %lld rows of %s", (long long)d->room, d->path);
    }
    d->row[d->n] = (struct dataset_row){.line = line};
    return &d->row[d->n++];
}

static char *bytes_copy(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    CHECK(copy, "out of memory for %zu bytes of text", n);
    if (n)
        memcpy(copy, bytes, n);
    copy[n] = 0;
    return copy;
}

static int64_t n_characters(const char *text, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

/* The first field that the row lacks and must have; NULL: none. */
static const char *missing_field(const struct reader *rd, const struct dataset_row *r)
{
    const struct settings_data *s = rd->s;
    if ((rd->need & DATASET_TEXT) && !r->text && !r->input_ids)
        return s->text_field;
    if ((rd->need & DATASET_PROMPT) && !r->prompt && !r->input_ids)
        return s->prompt_field;
    if ((rd->need & DATASET_PAIR) && !r->chosen)
        return s->chosen_field;
    if ((rd->need & DATASET_PAIR) && !r->rejected)
        return s->rejected_field;
    if ((rd->need & DATASET_LABEL) && !r->has_label)
        return s->label_field;
    if (!rd->need && !r->text && !r->prompt && !r->chosen && !r->input_ids)
        return s->text_field;
    return NULL;
}

/* Checks the newest row, and drops it where it is short. there: names of its fields, for the message. */
static int row_end(struct reader *rd, const char *there)
{
    struct dataset *d = rd->d;
    struct dataset_row *r = &d->row[d->n - 1];
    const char *missing = missing_field(rd, r);
    if (missing && r->line)
        return error_set(ERR_FILE, "%s:%lld: no field \"%s\"; there is %s", rd->path,
                         (long long)r->line, missing, there);
    if (missing)
        return error_set(ERR_FILE, "%s: no field \"%s\"; there is %s", rd->path, missing, there);
    const char *first = r->text ? r->text : r->prompt;
    size_t n = r->text ? r->n_text : r->n_prompt;
    if (first && n_characters(first, n) < rd->s->min_chars) {
        row_free(r);
        d->n--;
        d->n_short++;
    }
    return 0;
}

/* ---- jsonl ---- */

static int json_text(char **out, size_t *n, const struct jsonl *j, json_t *object,
                     const char *field)
{
    json_t *value = json_object_get(object, field);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return error_set(ERR_FILE, "%s:%lld: the field \"%s\" is %s, not a string", j->path,
                         (long long)j->line, field, jsonl_kind(value));
    *n = json_string_length(value);
    *out = bytes_copy(json_string_value(value), *n);
    return 0;
}

static int json_ids(struct dataset_row *r, const struct jsonl *j, json_t *object)
{
    json_t *value = json_object_get(object, "input_ids");
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_array(value) || json_array_size(value) == 0)
        return error_set(ERR_FILE, "%s:%lld: \"input_ids\" is %s, not an array of token numbers",
                         j->path, (long long)j->line,
                         json_is_array(value) ? "empty" : jsonl_kind(value));
    r->n_ids = (int64_t)json_array_size(value);
    r->input_ids = malloc((size_t)r->n_ids * sizeof *r->input_ids);
    CHECK(r->input_ids, "out of memory for %lld token numbers", (long long)r->n_ids);
    for (int64_t i = 0; i < r->n_ids; i++) {
        json_t *id = json_array_get(value, (size_t)i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return error_set(ERR_FILE, "%s:%lld: input_ids[%lld] is no token number", j->path,
                             (long long)j->line, (long long)i);
        r->input_ids[i] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int json_label(struct dataset_row *r, const struct jsonl *j, json_t *object,
                      const struct reader *rd)
{
    json_t *value = json_object_get(object, rd->s->label_field);
    bool fits = json_is_integer(value) && json_integer_value(value) >= INT_MIN &&
                json_integer_value(value) <= INT_MAX;
    if (json_is_boolean(value) || fits) {
        r->label = fits ? (int)json_integer_value(value) : json_is_true(value);
        r->has_label = true;
    } else if (value && !json_is_null(value) && (rd->need & DATASET_LABEL)) {
        return error_set(ERR_FILE, "%s:%lld: the field \"%s\" is %s, not a label (an integer)",
                         j->path, (long long)j->line, rd->s->label_field,
                         json_is_integer(value) ? "too large" : jsonl_kind(value));
    }
    return 0;
}

static int json_row(struct reader *rd, const struct jsonl *j, json_t *object)
{
    const struct settings_data *s = rd->s;
    struct dataset_row *r = row_begin(rd->d, j->line);
    TRY(json_text(&r->text, &r->n_text, j, object, s->text_field));
    TRY(json_text(&r->prompt, &r->n_prompt, j, object, s->prompt_field));
    if (rd->need & DATASET_PAIR) { /* elsewhere these may be lists of messages */
        TRY(json_text(&r->chosen, &r->n_chosen, j, object, s->chosen_field));
        TRY(json_text(&r->rejected, &r->n_rejected, j, object, s->rejected_field));
    }
    TRY(json_ids(r, j, object));
    TRY(json_label(r, j, object, rd));
    struct text there = {0};
    const char *key;
    json_t *value;
    if (missing_field(rd, r))
        json_object_foreach(object, key, value)
            text_format(&there, "%s\"%s\"", there.n ? ", " : "", key);
    int rc = row_end(rd, there.n ? there.bytes : "none");
    text_free(&there);
    return rc;
}

static int read_jsonl(struct reader *rd, const char *bytes, size_t n)
{
    struct jsonl j;
    jsonl_open(&j, rd->path, bytes, n);
    json_t *object;
    int more;
    while ((more = jsonl_next(&j, &object)) > 0) {
        int rc = json_row(rd, &j, object);
        json_decref(object);
        TRY(rc);
    }
    return more;
}

/* ---- csv ---- */

static void csv_text(char **out, size_t *n, const struct csv *c, const char *field)
{
    int column = csv_column(c, field);
    if (column < 0)
        return;
    *n = c->field[column].n;
    *out = bytes_copy(text_string(&c->field[column]), *n);
}

static int csv_label(struct dataset_row *r, const struct csv *c, const struct reader *rd)
{
    int column = csv_column(c, rd->s->label_field);
    if (column < 0)
        return 0;
    const char *text = text_string(&c->field[column]);
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    r->has_label = *text && *end == 0 && !errno && value >= INT_MIN && value <= INT_MAX;
    if (!r->has_label && (rd->need & DATASET_LABEL))
        return error_set(ERR_FILE,
                         "%s:%lld: the field \"%s\" is \"%.60s\", not a label (an integer)",
                         c->path, (long long)c->line, rd->s->label_field, text);
    r->label = r->has_label ? (int)value : 0;
    return 0;
}

static int csv_row(struct reader *rd, const struct csv *c, const char *there)
{
    const struct settings_data *s = rd->s;
    struct dataset_row *r = row_begin(rd->d, c->line);
    csv_text(&r->text, &r->n_text, c, s->text_field);
    csv_text(&r->prompt, &r->n_prompt, c, s->prompt_field);
    csv_text(&r->chosen, &r->n_chosen, c, s->chosen_field);
    csv_text(&r->rejected, &r->n_rejected, c, s->rejected_field);
    TRY(csv_label(r, c, rd));
    return row_end(rd, there);
}

static int read_csv(struct reader *rd, const char *bytes, size_t n)
{
    struct csv c;
    struct text there = {0};
    int rc = csv_open(&c, rd->path, bytes, n);
    for (int i = 0; i < c.n_columns; i++)
        text_format(&there, "%s\"%s\"", i ? ", " : "", text_string(&c.name[i]));
    while (rc == 0) {
        int more = csv_next(&c);
        if (more == 0)
            break;
        rc = more < 0 ? -1 : csv_row(rd, &c, text_string(&there));
    }
    csv_close(&c);
    text_free(&there);
    return rc;
}

/* ---- text ---- */

static size_t line_length(const char *line, size_t n, size_t *next)
{
    const char *end = memchr(line, '\n', n);
    size_t length = end ? (size_t)(end - line) : n;
    *next = length + (end != NULL);
    return length && line[length - 1] == '\r' ? length - 1 : length;
}

static bool is_separator(const char *line, size_t n)
{
    return n == sizeof SEPARATOR - 1 && memcmp(line, SEPARATOR, n) == 0;
}

static bool has_separator(const char *bytes, size_t n)
{
    for (size_t at = 0, next; at < n; at += next)
        if (is_separator(bytes + at, line_length(bytes + at, n - at, &next)))
            return true;
    return false;
}

static int put_text(struct reader *rd, const char *bytes, size_t n, int64_t line)
{
    if (n == 0)
        return 0;
    struct dataset_row *r = row_begin(rd->d, line);
    r->text = bytes_copy(bytes, n);
    r->n_text = n;
    return row_end(rd, "\"text\" alone: this is a plain text file");
}

/* A text between separators, without the blank lines around it. */
static int put_block(struct reader *rd, const char *bytes, size_t from, size_t to, int64_t line)
{
    for (; from < to && (bytes[from] == '\n' || bytes[from] == '\r'); from++)
        line += bytes[from] == '\n';
    while (to > from && (bytes[to - 1] == '\n' || bytes[to - 1] == '\r'))
        to--;
    return put_text(rd, bytes + from, to - from, line);
}

static int read_text(struct reader *rd, const char *bytes, size_t n)
{
    bool blocks = has_separator(bytes, n);
    size_t begin = 0;
    int64_t line = 1, begin_line = 1;
    for (size_t at = 0, next; at < n; at += next, line++) {
        size_t length = line_length(bytes + at, n - at, &next);
        if (!blocks) {
            TRY(put_text(rd, bytes + at, length, line));
        } else if (is_separator(bytes + at, length)) {
            TRY(put_block(rd, bytes, begin, at, begin_line));
            begin = at + next;
            begin_line = line + 1;
        }
    }
    return blocks ? put_block(rd, bytes, begin, n, begin_line) : 0;
}

/* ---- imdb ---- */

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
        out->name[out->n++] = bytes_copy(e->d_name, n);
    }
    closedir(dir);
    if (out->n)
        qsort(out->name, out->n, sizeof *out->name, by_name);
    return 0;
}

static int read_review(struct reader *rd, const char *folder, const char *name, int label)
{
    struct text bytes = {0};
    char *path = file_join(folder, name);
    int rc = file_read(&bytes, path);
    if (rc == 0) {
        struct dataset_row *r = row_begin(rd->d, 0);
        r->text = bytes_copy(text_string(&bytes), bytes.n);
        r->n_text = bytes.n;
        r->label = label;
        r->has_label = true;
        rc = row_end(rd, "\"text\" and \"label\": this is the imdb folder");
    }
    free(path);
    text_free(&bytes);
    return rc;
}

static int read_class(struct reader *rd, const char *root, const char *class_name, int label)
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

static int read_imdb(struct reader *rd)
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

/* ---- */

static int read_file(struct reader *rd)
{
    struct file_map map;
    TRY(file_map(&map, rd->path));
    const char *bytes = (const char *)map.bytes;
    int rc = rd->s->format == DATA_FORMAT_JSONL ? read_jsonl(rd, bytes, map.n)
             : rd->s->format == DATA_FORMAT_CSV ? read_csv(rd, bytes, map.n)
                                                : read_text(rd, bytes, map.n);
    file_unmap(&map);
    return rc;
}

static int load(struct dataset *d, const struct settings_data *s, unsigned need, const char *path,
                const char *split)
{
    *d = (struct dataset){.path = bytes_copy(path, strlen(path))};
    struct reader rd = {.d = d, .s = s, .path = path, .split = split, .need = need};
    TRY(s->format == DATA_FORMAT_IMDB ? read_imdb(&rd) : read_file(&rd));
    if (d->n == 0 && d->n_short)
        return error_set(ERR_FILE,
                         "%s: all %lld rows have fewer than data.min_chars = %lld characters", path,
                         (long long)d->n_short, (long long)s->min_chars);
    if (d->n == 0)
        return error_set(ERR_FILE, "%s: holds no data", path);
    return 0;
}

int dataset_load(struct dataset *d, const struct settings_data *s, unsigned need)
{
    return load(d, s, need, s->path, "train");
}

int dataset_load_eval(struct dataset *d, const struct settings_data *s, unsigned need)
{
    return load(d, s, need, s->eval_path, "test");
}

void dataset_free(struct dataset *d)
{
    for (int64_t i = 0; i < d->n; i++)
        row_free(&d->row[i]);
    free(d->row);
    free(d->path);
    *d = (struct dataset){0};
}
