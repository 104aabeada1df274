/* What the formats of a dataset have in common: where a row begins, and what it must have when it ends. */
#ifndef RLHF_SRC_DATASET_READER_H
#define RLHF_SRC_DATASET_READER_H

#include "dataset.h"

struct dataset_reader {
    struct dataset *d;
    const struct settings_data *s;
    const char *path, *split;
    unsigned need;
};

/* A new row, the newest of d. */
struct dataset_row *dataset_row_begin(struct dataset *d, int64_t line);

/* The first field that the row lacks and must have; NULL: none. */
const char *dataset_row_missing(const struct dataset_reader *rd, const struct dataset_row *r);

/* Checks the newest row, and drops it where it is short. there: names of its fields, for the message. Errors: ERR_FILE. */
int dataset_row_end(struct dataset_reader *rd, const char *there);

/* Owned bytes with a NUL behind the last. */
char *dataset_bytes(const char *bytes, size_t n);

/* The formats: rows of bytes[n], or of the folder rd->path. Errors: ERR_FILE with path and line. */
int dataset_read_jsonl(struct dataset_reader *rd, const char *bytes, size_t n);
int dataset_read_folder(struct dataset_reader *rd);

#endif
