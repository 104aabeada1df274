/* JSON Lines: one object a line, split at \n alone, so that U+2028 and the like may stand in strings. */
#ifndef RLHF_SRC_JSONL_H
#define RLHF_SRC_JSONL_H

#include "text.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { JSONL_DEPTH_MAX = 64 };

struct jsonl {
    const char *path, *bytes; /* borrowed; path is for messages */
    size_t n, at;
    int64_t line; /* of the current object, from 1 */
};

void jsonl_open(struct jsonl *j, const char *path, const char *bytes, size_t n);

/* Next object into *object, owned by the caller (json_decref); blank lines are skipped; strings may hold NUL.
 * Returns 1, 0 at the end (*object is NULL), -1 (ERR_FILE, with path and line): not JSON, not an object, nested deeper than
 * JSONL_DEPTH_MAX. */
int jsonl_next(struct jsonl *j, json_t **object);

/* A value of any kind from bytes[n], which stand in the current line; the caller owns it. NULL (ERR_FILE, as above): not JSON,
 * or nested too deep. */
json_t *jsonl_parse(const struct jsonl *j, const char *bytes, size_t n);

/* Appends the object (borrowed; NULL, or text that is not UTF-8, is a broken invariant) as one line. flags: of json_dumps. */
void jsonl_add(struct text *out, const json_t *object, size_t flags);

/* A new reference; null where x is not finite: JSON has no such number. */
json_t *jsonl_number(double x);

const char *jsonl_kind(const json_t *value); /* "a string", "an array", ..: for messages */

#endif
