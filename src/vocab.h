/* Token contents and their ids, both ways. Contents are bytes (UTF-8, NUL allowed); ids may have holes. */
#ifndef RLHF_SRC_VOCAB_H
#define RLHF_SRC_VOCAB_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VOCAB_MAX_ID = (1 << 22) - 1
}; /* 16 times the largest vocabulary in use: refuse absurd files early */

struct vocab {
    struct vocab_entry {
        char *content; /* NULL: no token has this id */
        size_t n;
    } * entry;           /* [room], by id */
    int32_t n_ids, room; /* highest id + 1 */
    int32_t n_tokens;    /* ids that have a token */
    int32_t *slot;       /* [n_slots] id or -1, open addressing on the content's hash */
    uint32_t *slot_hash; /* [n_slots] spares most comparisons */
    size_t n_slots;      /* power of two, at least twice n_tokens */
};

/* Error for an id out of range, an id or a content given twice. */
int vocab_add(struct vocab *v, const char *content, size_t n, int64_t id);
int vocab_read(struct vocab *v, const json_t *object); /* adds a model's {"content": id, ..}, at least one */
int32_t vocab_find(const struct vocab *v, const char *content, size_t n); /* -1 when absent */
void vocab_free(struct vocab *v);

#endif
