/* Datasets: four formats into rows; one place (dataset_row_end) decides what a row must have. */
#include "dataset_reader.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "csv.h"
#include "error.h"
#include "file.h"
#include "hash.h"

static const char SEPARATOR[] = "<|endoftext|>";

static void row_free(struct dataset_row *r)
{
    free(r->text);
    free(r->prompt);
    free(r->completion);
    free(r->chosen);
    free(r->rejected);
    json_decref(r->chat);
    free(r->input_ids);
    free(r->label_name);
    *r = (struct dataset_row){0};
}

struct dataset_row *dataset_row_begin(struct dataset *d, int64_t line)
{
    if (d->n == d->room) {
        d->room = d->room ? 2 * d->room : 64;
        d->row = realloc(d->row, (size_t)d->room * sizeof *d->row);
        CHECK(d->row, "out of memory for %lld rows of %s", (long long)d->room, d->path);
    }
    d->row[d->n] = (struct dataset_row){.line = line};
    return &d->row[d->n++];
}

char *dataset_bytes(const char *bytes, size_t n)
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

static int64_t content_characters(const json_t *content)
{
    int64_t n = 0;
    size_t i;
    json_t *part;
    if (json_is_string(content))
        return n_characters(json_string_value(content), json_string_length(content));
    json_array_foreach(content, i, part)
        n += content_characters(json_object_get(part, "text"));
    return n;
}

/* Of the text, else of the prompt; without either as many as no limit asks for. */
static int64_t row_characters(const struct dataset_row *r)
{
    static const char *const lists[] = {"messages", "prompt", "chosen"};
    int64_t n = 0;
    size_t i;
    json_t *message, *list = NULL;
    if (r->text || r->prompt)
        return n_characters(r->text ? r->text : r->prompt, r->text ? r->n_text : r->n_prompt);
    if (!r->chat)
        return INT64_MAX;
    for (int k = 0; k < 3 && !list; k++)
        list = json_object_get(r->chat, lists[k]);
    json_array_foreach(list, i, message)
        n += content_characters(json_object_get(message, "content"));
    return n;
}

static bool in_chat(const struct dataset_row *r, const char *key)
{
    return json_object_get(r->chat, key) != NULL;
}

const char *dataset_row_missing(const struct dataset_reader *rd, const struct dataset_row *r)
{
    const struct settings_data *s = rd->s;
    const bool text = r->text || r->input_ids || in_chat(r, "messages"),
               prompt = r->prompt || r->input_ids || in_chat(r, "prompt"),
               completion = (r->prompt || in_chat(r, "prompt")) && (r->completion || in_chat(r, "completion")),
               pair = (r->chosen && r->rejected) || in_chat(r, "rejected");
    if ((rd->need & DATASET_TEXT) && !text && !((rd->need & DATASET_COMPLETION) && completion))
        return s->text_field;
    if ((rd->need & DATASET_PROMPT) && !prompt)
        return s->prompt_field;
    if ((rd->need & DATASET_COMPLETION) && !completion && !(rd->need & DATASET_TEXT))
        return r->prompt || in_chat(r, "prompt") ? s->completion_field : s->prompt_field;
    if ((rd->need & DATASET_PAIR) && !pair)
        return r->chosen ? s->rejected_field : s->chosen_field;
    if ((rd->need & DATASET_LABEL) && !r->has_label)
        return s->label_field;
    if (!rd->need && !text && !prompt && !r->chosen)
        return s->text_field;
    return NULL;
}

int dataset_row_end(struct dataset_reader *rd, const char *there)
{
    struct dataset *d = rd->d;
    struct dataset_row *r = &d->row[d->n - 1];
    const char *missing = dataset_row_missing(rd, r);
    if (missing && r->line)
        return error_set(ERR_FILE, "%s:%lld: no field \"%s\"; there is %s", rd->path,
                         (long long)r->line, missing, there);
    if (missing)
        return error_set(ERR_FILE, "%s: no field \"%s\"; there is %s", rd->path, missing, there);
    if (row_characters(r) < rd->s->min_chars) {
        row_free(r);
        d->n--;
        d->n_short++;
    }
    return 0;
}

/* ---- csv ---- */

static void csv_text(char **out, size_t *n, const struct csv *c, const char *field)
{
    int column = csv_column(c, field);
    if (column < 0)
        return;
    *n = c->field[column].n;
    *out = dataset_bytes(text_string(&c->field[column]), *n);
}

static void csv_label(struct dataset_row *r, const struct csv *c, const struct dataset_reader *rd)
{
    int column = csv_column(c, rd->s->label_field);
    const char *text = column < 0 ? "" : text_string(&c->field[column]);
    if (!*text)
        return;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    const bool number = *end == 0 && !errno && value >= INT_MIN && value <= INT_MAX;
    r->has_label = true;
    r->label = number ? (int)value : -1;
    r->label_name = number ? NULL : dataset_bytes(text, c->field[column].n);
}

static int csv_row(struct dataset_reader *rd, const struct csv *c, const char *there)
{
    const struct settings_data *s = rd->s;
    struct dataset_row *r = dataset_row_begin(rd->d, c->line);
    csv_text(&r->text, &r->n_text, c, s->text_field);
    csv_text(&r->prompt, &r->n_prompt, c, s->prompt_field);
    if (rd->need & DATASET_COMPLETION)
        csv_text(&r->completion, &r->n_completion, c, s->completion_field);
    csv_text(&r->chosen, &r->n_chosen, c, s->chosen_field);
    csv_text(&r->rejected, &r->n_rejected, c, s->rejected_field);
    csv_label(r, c, rd);
    return dataset_row_end(rd, there);
}

static int read_csv(struct dataset_reader *rd, const char *bytes, size_t n)
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

static int put_text(struct dataset_reader *rd, const char *bytes, size_t n, int64_t line)
{
    if (n == 0)
        return 0;
    struct dataset_row *r = dataset_row_begin(rd->d, line);
    r->text = dataset_bytes(bytes, n);
    r->n_text = n;
    return dataset_row_end(rd, "\"text\" alone: this is a plain text file");
}

/* A text between separators, without the blank lines around it. */
static int put_block(struct dataset_reader *rd, const char *bytes, size_t from, size_t to, int64_t line)
{
    for (; from < to && (bytes[from] == '\n' || bytes[from] == '\r'); from++)
        line += bytes[from] == '\n';
    while (to > from && (bytes[to - 1] == '\n' || bytes[to - 1] == '\r'))
        to--;
    return put_text(rd, bytes + from, to - from, line);
}

static int read_text(struct dataset_reader *rd, const char *bytes, size_t n)
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

/* ---- */

static int read_file(struct dataset_reader *rd)
{
    struct file_map map;
    TRY(file_map(&map, rd->path));
    const char *bytes = (const char *)map.bytes;
    int rc = rd->s->format == DATA_FORMAT_JSONL ? dataset_read_jsonl(rd, bytes, map.n)
             : rd->s->format == DATA_FORMAT_CSV ? read_csv(rd, bytes, map.n)
                                                : read_text(rd, bytes, map.n);
    file_unmap(&map);
    return rc;
}

static int load(struct dataset *d, const struct settings_data *s, unsigned need, const char *path,
                const char *split)
{
    *d = (struct dataset){.path = dataset_bytes(path, strlen(path))};
    struct dataset_reader rd = {.d = d, .s = s, .path = path, .split = split, .need = need};
    TRY(s->format == DATA_FORMAT_IMDB ? dataset_read_folder(&rd) : read_file(&rd));
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

/* A string with its length; one that is not given differs from an empty one. */
static void hash_string(struct hash *h, const char *bytes, size_t n)
{
    const int64_t length = bytes ? (int64_t)n : -1;
    hash_add(h, &length, sizeof length);
    if (bytes)
        hash_add(h, bytes, n);
}

uint64_t dataset_hash(const struct dataset *d)
{
    struct hash h;
    hash_begin(&h, 0);
    for (int64_t i = 0; i < d->n; i++) {
        const struct dataset_row *r = &d->row[i];
        hash_string(&h, r->text, r->n_text);
        hash_string(&h, r->prompt, r->n_prompt);
        hash_string(&h, r->completion, r->n_completion);
        hash_string(&h, r->chosen, r->n_chosen);
        hash_string(&h, r->rejected, r->n_rejected);
        hash_string(&h, (const char *)r->input_ids, (size_t)r->n_ids * sizeof *r->input_ids);
        hash_string(&h, r->label_name, r->label_name ? strlen(r->label_name) : 0);
        hash_add(&h, &r->label, sizeof r->label);
        hash_add(&h, &r->margin, sizeof r->margin);
    }
    return hash_end(&h);
}

int dataset_take(const struct settings_data *s, unsigned need, int (*take)(void *context, struct dataset *d, bool eval),
                 void *context, uint64_t hash[2])
{
    for (int eval = 0; eval < 2; eval++) {
        struct dataset d = {0};
        int rc = 0;
        if (!eval || *s->eval_path) {
            rc = eval ? dataset_load_eval(&d, s, need) : dataset_load(&d, s, need);
            if (!rc)
                rc = take(context, &d, eval);
        }
        hash[eval] = dataset_hash(&d);
        dataset_free(&d);
        TRY(rc);
    }
    return 0;
}

/* ---- labels ---- */

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int dataset_label_names(const struct dataset *d, char ***name)
{
    char **all = calloc((size_t)d->n + 1, sizeof *all);
    int64_t n = 0;
    int distinct = 0;
    CHECK(all, "out of memory for %lld labels", (long long)d->n);
    for (int64_t i = 0; i < d->n; i++)
        if (d->row[i].label_name)
            all[n++] = d->row[i].label_name;
    if (n)
        qsort(all, (size_t)n, sizeof *all, by_bytes);
    for (int64_t i = 0; i < n; i++)
        if (!distinct || strcmp(all[i], all[distinct - 1]) != 0)
            all[distinct++] = all[i];
    for (int i = 0; i < distinct; i++)
        all[i] = dataset_bytes(all[i], strlen(all[i]));
    *name = all;
    return distinct;
}

/* The first labels that there are say enough: there may be thousands. */
static int unknown_label(const struct dataset *d, const struct dataset_row *r, char *const *name, int n_names)
{
    enum { SHOWN = 10 };
    struct text known = {0};
    for (int i = 0; i < n_names && i < SHOWN; i++)
        text_format(&known, "%s%s", i ? ", " : "", name[i]);
    if (n_names > SHOWN)
        text_add_string(&known, ", ..");
    if (r->label_name)
        error_set(ERR_FILE, "%s:%lld: the label \"%s\" is none of %s", d->path, (long long)r->line, r->label_name,
                  text_string(&known));
    else
        error_set(ERR_FILE, "%s:%lld: the label %d is not in 0 .. %d (%s)", d->path, (long long)r->line, r->label, n_names - 1,
                  text_string(&known));
    text_free(&known);
    return -1;
}

int dataset_number_labels(struct dataset *d, char *const *name, int n_names)
{
    for (int64_t i = 0; i < d->n; i++) {
        struct dataset_row *r = &d->row[i];
        r->label = r->label_name ? -1 : r->label;
        for (int k = 0; r->label_name && k < n_names; k++)
            if (!strcmp(r->label_name, name[k]))
                r->label = k;
        if (r->has_label && (r->label < 0 || r->label >= n_names))
            return unknown_label(d, r, name, n_names);
    }
    return 0;
}
