/* Records: byte strings of any length, each with a global index as its key. What comm_gather_records carries.
 *
 * A list owns its bytes. The zeroed struct is an empty list. A record begins at a multiple of 8 bytes, so that it may
 * be read as a struct of int64_t or double.
 */
#ifndef RLHF_MPI_RECORDS_H
#define RLHF_MPI_RECORDS_H

#include <stddef.h>
#include <stdint.h>

struct record {
    int64_t key;
    size_t start, n; /* its bytes are list->bytes[start .. start + n) */
};

struct record_list {
    struct record *records; /* [n] */
    int64_t n, room;
    unsigned char *bytes; /* [bytes_used] */
    size_t bytes_used, bytes_room;
};

/* Room for n records of together so many bytes, each rounded up to 8: adding them does not allocate. */
void records_reserve(struct record_list *list, int64_t n, size_t bytes);

void records_add(struct record_list *list, int64_t key, const void *bytes, size_t n);

/* Adds a record of n bytes and returns where to write them; valid until the next call. */
void *records_extend(struct record_list *list, int64_t key, size_t n);

const void *records_bytes(const struct record_list *list, int64_t i); /* of record i; borrowed */
void records_clear(struct record_list *list);                         /* keeps the room */
void records_free(struct record_list *list);

#endif
