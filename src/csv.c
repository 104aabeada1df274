/* CSV, RFC 4180 with \n and \r\n line ends, over bytes in memory. */
#include "csv.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unicode.h"

static int fault(const struct csv *c, int64_t line, const char *what)
{
    return error_set(ERR_FILE, "%s:%lld: %s", c->path, (long long)line, what);
}

static bool ends_field(const struct csv *c)
{
    return c->at == c->n || c->bytes[c->at] == ',' || c->bytes[c->at] == '\n' ||
           (c->bytes[c->at] == '\r' && c->at + 1 < c->n && c->bytes[c->at + 1] == '\n');
}

static int read_quoted(struct csv *c, struct text *out)
{
    int64_t begin = c->next_line;
    c->at++;
    for (;;) {
        const char *quote = c->at < c->n ? memchr(c->bytes + c->at, '"', c->n - c->at) : NULL;
        if (!quote)
            return fault(c, begin, "a quoted field begins here and does not end");
        size_t n = (size_t)(quote - (c->bytes + c->at));
        for (size_t i = 0; i < n; i++)
            c->next_line += c->bytes[c->at + i] == '\n';
        text_add(out, c->bytes + c->at, n);
        c->at += n + 1;
        if (c->at == c->n || c->bytes[c->at] != '"')
            break;
        text_add(out, "\"", 1);
        c->at++;
    }
    if (!ends_field(c))
        return fault(c, c->next_line, "text behind the closing quote of a field");
    return 0;
}

static int read_plain(struct csv *c, struct text *out)
{
    size_t begin = c->at;
    for (; !ends_field(c); c->at++)
        if (c->bytes[c->at] == '"')
            return fault(c, c->next_line,
                         "a quote inside an unquoted field: quote the field and double its quotes");
    text_add(out, c->bytes + begin, c->at - begin);
    return 0;
}

static int make_room(struct csv *c, int n)
{
    if (n < c->room)
        return 0;
    if (n >= CSV_COLUMNS_MAX)
        return fault(c, c->next_line, "more than 4096 fields");
    int room = c->room ? 2 * c->room : 8;
    c->field = realloc(c->field, (size_t)room * sizeof *c->field);
    CHECK(c->field, "out of memory");
    memset(c->field + c->room, 0, (size_t)(room - c->room) * sizeof *c->field);
    c->room = room;
    return 0;
}

static bool skip_line_end(struct csv *c)
{
    if (c->at < c->n && c->bytes[c->at] == '\r' && c->at + 1 < c->n && c->bytes[c->at + 1] == '\n')
        c->at++;
    if (c->at == c->n || c->bytes[c->at] != '\n')
        return false;
    c->at++;
    c->next_line++;
    return true;
}

/* The fields of one row: their number, 0 at the end of the file, -1. */
static int read_row(struct csv *c)
{
    while (skip_line_end(c))
        ;
    c->line = c->next_line;
    if (c->at == c->n)
        return 0;
    for (int n = 0;;) {
        TRY(make_room(c, n));
        struct text *field = &c->field[n++];
        text_clear(field);
        if (c->at < c->n && c->bytes[c->at] == '"')
            TRY(read_quoted(c, field));
        else
            TRY(read_plain(c, field));
        if (c->at == c->n || c->bytes[c->at] != ',') {
            skip_line_end(c);
            return n;
        }
        c->at++;
    }
}

static int check_utf8(const char *path, const char *bytes, size_t n)
{
    const size_t good = utf8_check(bytes, n);
    int64_t line = 1;
    for (size_t i = 0; i < good; i++)
        line += bytes[i] == '\n';
    return good == n ? 0 : error_set(ERR_FILE, "%s:%lld: holds bytes that are no UTF-8", path, (long long)line);
}

int csv_open(struct csv *c, const char *path, const char *bytes, size_t n)
{
    *c = (struct csv){.path = path, .bytes = bytes, .n = n, .next_line = 1};
    TRY(check_utf8(path, bytes, n));
    if (n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0)
        c->at = 3;
    int columns = read_row(c);
    if (columns < 0)
        return -1;
    if (columns == 0)
        return error_set(ERR_FILE, "%s: is empty: a header line with field names was expected",
                         path);
    c->name = c->field;
    c->n_columns = columns;
    c->field = calloc((size_t)c->room, sizeof *c->field);
    CHECK(c->field, "out of memory");
    for (int i = 0; i < columns; i++)
        if (csv_column(c, text_string(&c->name[i])) != i)
            return error_set(ERR_FILE, "%s:%lld: the field name \"%s\" occurs twice", path,
                             (long long)c->line, text_string(&c->name[i]));
    return 0;
}

int csv_next(struct csv *c)
{
    int n = read_row(c);
    if (n <= 0)
        return n;
    if (n != c->n_columns)
        return error_set(ERR_FILE, "%s:%lld: %d fields where the header has %d", c->path,
                         (long long)c->line, n, c->n_columns);
    return 1;
}

int csv_column(const struct csv *c, const char *name)
{
    for (int i = 0; i < c->n_columns; i++)
        if (strcmp(text_string(&c->name[i]), name) == 0)
            return i;
    return -1;
}

void csv_close(struct csv *c)
{
    for (int i = 0; i < c->room; i++)
        text_free(&c->field[i]);
    for (int i = 0; i < c->n_columns; i++)
        text_free(&c->name[i]);
    free(c->field);
    free(c->name);
    *c = (struct csv){0};
}
