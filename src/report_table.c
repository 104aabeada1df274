/* Tables: cells in one array, row by row. */
#include "report_table.h"

#include "error.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void report_table_column(struct report_table *t, const char *name)
{
    CHECK(t->n_cells == 0, "a column after the first cell");
    t->column = realloc(t->column, (size_t)(t->n_columns + 1) * sizeof *t->column);
    CHECK(t->column, "out of memory");
    t->column[t->n_columns] = strdup(name);
    CHECK(t->column[t->n_columns++], "out of memory");
}

static void add_cell(struct report_table *t, struct report_cell cell)
{
    if (t->n_cells == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->cell = realloc(t->cell, (size_t)t->room * sizeof *t->cell);
        CHECK(t->cell, "out of memory");
    }
    t->cell[t->n_cells++] = cell;
}

void report_table_text(struct report_table *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = (size_t)vsnprintf(NULL, 0, format, args) + 1;
    char *text = malloc(room);
    CHECK(text, "out of memory");
    vsnprintf(text, room, format, again);
    va_end(again);
    va_end(args);
    add_cell(t, (struct report_cell){.text = text});
}

void report_table_number(struct report_table *t, double x)
{
    add_cell(t, (struct report_cell){.number = x});
}

void report_table_free(struct report_table *t)
{
    for (int i = 0; i < t->n_columns; i++)
        free(t->column[i]);
    for (int i = 0; i < t->n_cells; i++)
        free(t->cell[i].text);
    free(t->column);
    free(t->cell);
    *t = (struct report_table){0};
}

/* Text of one cell: what would end the cell or the row, or begin a tag, is replaced. */
static void markdown_text(struct text *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            text_add_string(out, "\\|");
        else if (*text == '<')
            text_add_string(out, "&lt;");
        else
            text_add(out, (unsigned char)*text < 0x20 ? " " : text, 1);
    }
}

static void markdown_number(struct text *out, double x)
{
    if (isnan(x))
        text_add_string(out, "-");
    else
        text_format(out, fabs(x) >= 1000 && fabs(x) < 1e15 ? "%.0f" : "%.4g", x);
}

/* Which column stands at place i of those asked for. */
static int place(int i, int n_keys, int first)
{
    return i < n_keys ? i : first + i - n_keys;
}

void report_table_markdown(struct text *out, const struct report_table *t, int n_keys, int first, int n)
{
    if (t->n_cells == 0)
        return;
    for (int i = 0; i < n_keys + n; i++) {
        text_add_string(out, "| ");
        markdown_text(out, t->column[place(i, n_keys, first)]);
        text_add_string(out, " ");
    }
    text_add_string(out, "|\n");
    for (int i = 0; i < n_keys + n; i++)
        text_add_string(out, t->cell[place(i, n_keys, first)].text ? "| --- " : "| ---: ");
    text_add_string(out, "|\n");
    for (int row = 0; row < t->n_cells / t->n_columns; row++) {
        for (int i = 0; i < n_keys + n; i++) {
            const struct report_cell *cell = &t->cell[row * t->n_columns + place(i, n_keys, first)];
            text_add_string(out, "| ");
            if (cell->text)
                markdown_text(out, cell->text);
            else
                markdown_number(out, cell->number);
            text_add_string(out, " ");
        }
        text_add_string(out, "|\n");
    }
    text_add_string(out, "\n");
}

static void csv_text(struct text *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        text_add_string(out, text);
        return;
    }
    text_add_string(out, "\"");
    for (; *text; text++)
        text_add(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    text_add_string(out, "\"");
}

void report_table_csv(struct text *out, const struct report_table *t)
{
    for (int i = 0; i < t->n_columns; i++) {
        text_add_string(out, i ? "," : "");
        csv_text(out, t->column[i]);
    }
    text_add_string(out, "\n");
    for (int i = 0; i < t->n_cells; i++) {
        const struct report_cell *cell = &t->cell[i];
        if (cell->text)
            csv_text(out, cell->text);
        else if (!isnan(cell->number))
            text_format(out, "%.15g", cell->number);
        text_add_string(out, (i + 1) % t->n_columns ? "," : "\n");
    }
}
