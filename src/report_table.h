/* A table of a report, written as Markdown and as CSV.
 *
 *   struct report_table t = {0};
 *   report_table_column(&t, "phase");          all columns first
 *   report_table_column(&t, "seconds");
 *   report_table_text(&t, "generate");         then cells, row by row
 *   report_table_number(&t, 1.25);
 *   report_table_markdown(&out, &t, 0, 0, t.n_columns);
 *   report_table_free(&t);
 */
#ifndef RLHF_SRC_REPORT_TABLE_H
#define RLHF_SRC_REPORT_TABLE_H

#include "text.h"

struct report_cell {
    char *text; /* owned; NULL: a number */
    double number;
};

/* The zeroed struct is empty. */
struct report_table {
    char **column; /* [n_columns] */
    struct report_cell *cell; /* [n_cells], row by row */
    int n_columns, n_cells, room;
};

void report_table_column(struct report_table *t, const char *name);
void report_table_text(struct report_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_table_number(struct report_table *t, double x); /* NaN: an empty cell */
void report_table_free(struct report_table *t);

/* Appends the first n_keys columns and those from first to first + n - 1: numbers with four digits, an empty line behind.
 * Nothing without rows. */
void report_table_markdown(struct text *out, const struct report_table *t, int n_keys, int first, int n);

/* Appends all columns (RFC 4180): numbers with 15 digits. */
void report_table_csv(struct text *out, const struct report_table *t);

#endif
