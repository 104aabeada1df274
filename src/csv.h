/* CSV in UTF-8 with a header line (RFC 4180): quoted fields may hold commas, doubled quotes and line breaks.
 *
 *   struct csv c;
 *   TRY(csv_open(&c, path, bytes, n));
 *   while ((more = csv_next(&c)) > 0)
 *       use(c.field[csv_column(&c, "text")].bytes);
 *   csv_close(&c);
 */
#ifndef RLHF_SRC_CSV_H
#define RLHF_SRC_CSV_H

#include "text.h"

#include <stdint.h>

enum { CSV_COLUMNS_MAX = 4096 };

struct csv {
    const char *path, *bytes; /* borrowed */
    size_t n, at;
    int64_t line; /* where the current row begins, from 1 */
    int64_t next_line;
    int n_columns;
    struct text *name, *field; /* [n_columns] names of the header; fields of the current row */
    int room;
};

/* Reads the header line of bytes[n], the contents of path (for messages); a byte order mark is skipped. Errors: ERR_FILE:
 * no header, a name that occurs twice, faulty quotes. Close in either case. */
int csv_open(struct csv *c, const char *path, const char *bytes, size_t n);

/* Next row into c->field; blank lines are skipped. Returns 1, 0 at the end, -1 (ERR_FILE) for faulty quotes or a row with
 * another number of fields than the header. */
int csv_next(struct csv *c);

int csv_column(const struct csv *c, const char *name); /* index of a column; -1: there is none */
void csv_close(struct csv *c);

#endif
