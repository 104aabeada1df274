/* safetensors files: a bounded reader over mapped files, and a writer.
 *
 *   8 bytes     N, little-endian, the size of the header
 *   N bytes     JSON {"name": {"dtype": "F32", "shape": [out, in], "data_offsets": [begin, end]}, ..,
 *               "__metadata__": {"key": "value"}}, padded with spaces
 *   the rest    the tensors' bytes, little-endian, row-major; offsets count from here
 *
 * The reader asks for what the reference implementation asks for: end - begin is the product of the shape times the size
 * of the type, the tensors follow each other without gap or overlap, and they fill the file.
 * Large models come in shards: model.safetensors.index.json has {"weight_map": {"name": "file"}}.
 */
#ifndef RLHF_SRC_SAFETENSORS_H
#define RLHF_SRC_SAFETENSORS_H

#include "file.h"
#include "tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_DIMS_MAX = 8, SAFETENSORS_TYPE_NAME = 12 };

struct safetensors_entry {
    char *name;
    char type[SAFETENSORS_TYPE_NAME]; /* as in the file: "F32", "BOOL" */
    int dtype;  /* enum dtype, or -1: a type that this program does not compute with */
    int n_dims; /* 0: a scalar */
    int64_t shape[SAFETENSORS_DIMS_MAX];
    int64_t n;                  /* elements */
    const unsigned char *bytes; /* in the mapped file; may be unaligned */
    size_t n_bytes;
    const char *file; /* path, for messages */
};

/* A set of tensors from one file or several. Owns the mappings; entries are sorted by name. */
struct safetensors {
    struct safetensors_entry *entry;
    int n;
    struct safetensors_file {
        char *path;
        struct file_map map;
    } * file;
    int n_files;
};

/* Opens a file, or a folder's model.safetensors, or else the shards that its model.safetensors.index.json lists.
 * Errors: one line that names the file and what is wrong; the struct is then empty. */
int safetensors_open(struct safetensors *s, const char *folder_or_file);
void safetensors_close(struct safetensors *s);

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name);

bool safetensors_is_float(const struct safetensors_entry *e); /* F32, F16 or BF16 */

/* Elements [first, first + n) of a floating tensor, converted. Errors: another type is refused by name, and
 * what is infinite or not a number by its place. */
int safetensors_floats(float *out, const struct safetensors_entry *e, int64_t first, int64_t n);

/* Elements [first, first + n) as they lie in the file, aligned to the type's size in out. Errors as safetensors_floats. */
int safetensors_raw(void *out, const struct safetensors_entry *e, int64_t first, int64_t n);

/* The tensor's part of the mapped file was read and need not stay in memory: a model is larger than what reads it may hold. */
void safetensors_release(const struct safetensors_entry *e);

/* "[4096, 11008]": for messages. Returns out. */
char *safetensors_shape(char *out, size_t room, const int64_t *shape, int n_dims);

/* A tensor to write. `data` is for safetensors_write; a streaming writer gets its bytes through _put. */
struct safetensors_out {
    const char *name;
    enum dtype dtype;
    int n_dims;
    int64_t shape[SAFETENSORS_DIMS_MAX];
    const void *data;
    const char *type; /* of the format, where enum dtype lacks it: "BOOL"; NULL: dtype's */
};
uint64_t safetensors_out_bytes(const struct safetensors_out *t);

/* Writes all tensors, in this order, under a temporary name; flushes, renames. Metadata {"format": "pt"}. */
int safetensors_write(const char *path, const struct safetensors_out *tensors, int n);

/* The same when the tensors do not fit in memory: begin writes the header, put appends bytes of the tensors in their
 * order, end checks that all were put and renames. After an error, and instead of end, call abandon (may be called twice). */
struct safetensors_writer {
    char *path, *temporary;
    int fd;
    uint64_t n_bytes, n_written;
};
int safetensors_writer_begin(struct safetensors_writer *w, const char *path,
                             const struct safetensors_out *tensors, int n);
int safetensors_writer_put(struct safetensors_writer *w, const void *bytes, size_t n);
int safetensors_writer_end(struct safetensors_writer *w);
void safetensors_writer_abandon(struct safetensors_writer *w);

#endif
