/* Lists of records: two growing arrays, one of keys and places, one of bytes. */
#include "records.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static size_t rounded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

void records_reserve(struct record_list *list, int64_t n, size_t bytes)
{
    if (n > list->room) {
        int64_t twice = list->room ? 2 * list->room : 16;
        list->room = twice > n ? twice : n;
        list->records = realloc(list->records, (size_t)list->room * sizeof *list->records);
        CHECK(list->records, "out of memory for %lld records", (long long)list->room);
    }
    if (bytes > list->bytes_room || !list->bytes) {
        size_t twice = list->bytes_room ? 2 * list->bytes_room : 256;
        list->bytes_room = twice > bytes ? twice : rounded(bytes);
        list->bytes = realloc(list->bytes, list->bytes_room);
        CHECK(list->bytes, "out of memory for %zu bytes of records", list->bytes_room);
    }
}

void *records_extend(struct record_list *list, int64_t key, size_t n)
{
    size_t start = list->bytes_used, end = start + rounded(n);
    records_reserve(list, list->n + 1, end);
    if (end > start)
        memset(list->bytes + end - 8, 0, 8); /* the padding travels too */
    list->bytes_used = end;
    list->records[list->n++] = (struct record){key, start, n};
    return list->bytes + start;
}

void records_add(struct record_list *list, int64_t key, const void *bytes, size_t n)
{
    void *to = records_extend(list, key, n);
    if (n)
        memcpy(to, bytes, n);
}

const void *records_bytes(const struct record_list *list, int64_t i)
{
    CHECK(i >= 0 && i < list->n, "record %lld of %lld", (long long)i, (long long)list->n);
    return list->bytes + list->records[i].start;
}

void records_clear(struct record_list *list)
{
    list->n = 0;
    list->bytes_used = 0;
}

void records_free(struct record_list *list)
{
    free(list->records);
    free(list->bytes);
    *list = (struct record_list){0};
}
