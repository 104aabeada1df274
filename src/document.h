/* One JSON document from outside (config.json, adapter_config.json, a safetensors header), read with limits. */
#ifndef RLHF_SRC_DOCUMENT_H
#define RLHF_SRC_DOCUMENT_H

#include <jansson.h>
#include <stddef.h>

enum {
    DOCUMENT_DEPTH_MAX = 32,       /* nested arrays and objects */
    DOCUMENT_BYTES_MAX = 64 << 20, /* of a file given to document_read */
};

/* Parses n bytes of JSON whose root is an object, without duplicate keys. `path` is for messages.
 * The caller owns the reference. Errors: NULL, with the line in the slot. */
json_t *document_parse(const char *path, const void *bytes, size_t n);

json_t *document_read(const char *path);
json_t *document_read_reals(const char *path); /* integers too: in tokenizer_config.json model_max_length often has 31 digits */

/* Writes sorted keys, indent 2, a newline; reals in the fewest of 15 to 17 digits that read back the same.
 * Atomic (file_write_atomic). */
int document_write(const char *path, const json_t *document);

#endif
