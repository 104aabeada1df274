/* Open addressing with linear probing; slots grow by doubling and are filled again from the entries. */
#include "vocab.h"

#include "error.h"
#include "hash.h"

#include <stdlib.h>
#include <string.h>

static size_t find_slot(const struct vocab *v, const char *content, size_t n, uint32_t hash)
{
    size_t i = hash & (v->n_slots - 1);
    while (v->slot[i] >= 0) {
        const struct vocab_entry *e = &v->entry[v->slot[i]];
        if (v->slot_hash[i] == hash && e->n == n && !memcmp(e->content, content, n))
            break;
        i = (i + 1) & (v->n_slots - 1);
    }
    return i;
}

static void grow_slots(struct vocab *v)
{
    v->n_slots = v->n_slots ? 2 * v->n_slots : 512;
    free(v->slot);
    free(v->slot_hash);
    v->slot = malloc(v->n_slots * sizeof *v->slot);
    v->slot_hash = malloc(v->n_slots * sizeof *v->slot_hash);
    CHECK(v->slot && v->slot_hash, "out of memory for a vocabulary");
    memset(v->slot, 0xff, v->n_slots * sizeof *v->slot);
    for (int32_t id = 0; id < v->n_ids; id++) {
        const struct vocab_entry *e = &v->entry[id];
        if (!e->content)
            continue;
        uint32_t hash = (uint32_t)hash_bytes(e->content, e->n, 0);
        size_t i = find_slot(v, e->content, e->n, hash);
        v->slot[i] = id;
        v->slot_hash[i] = hash;
    }
}

static void grow_entries(struct vocab *v, int32_t id)
{
    if (id >= v->room) {
        int32_t room = v->room ? v->room : 256;
        while (room <= id)
            room *= 2;
        v->entry = realloc(v->entry, (size_t)room * sizeof *v->entry);
        CHECK(v->entry, "out of memory for a vocabulary");
        memset(v->entry + v->room, 0, (size_t)(room - v->room) * sizeof *v->entry);
        v->room = room;
    }
    if (id >= v->n_ids)
        v->n_ids = id + 1;
}

int vocab_add(struct vocab *v, const char *content, size_t n, int64_t id)
{
    if (id < 0 || id > VOCAB_MAX_ID)
        return error_set(ERR_FILE, "token \"%.100s\" has id %lld, outside 0 to %d", content,
                         (long long)id, VOCAB_MAX_ID);
    if (id < v->n_ids && v->entry[id].content)
        return error_set(ERR_FILE, "tokens \"%.100s\" and \"%.100s\" have the same id %lld",
                         v->entry[id].content, content, (long long)id);
    if (2 * ((size_t)v->n_tokens + 1) > v->n_slots)
        grow_slots(v);
    uint32_t hash = (uint32_t)hash_bytes(content, n, 0);
    size_t i = find_slot(v, content, n, hash);
    if (v->slot[i] >= 0)
        return error_set(ERR_FILE, "token \"%.100s\" has two ids, %d and %lld", content, v->slot[i],
                         (long long)id);
    grow_entries(v, (int32_t)id);
    char *copy = malloc(n + 1);
    CHECK(copy, "out of memory for a vocabulary");
    memcpy(copy, content, n);
    copy[n] = 0;
    v->entry[id] = (struct vocab_entry){copy, n};
    v->slot[i] = (int32_t)id;
    v->slot_hash[i] = hash;
    v->n_tokens++;
    return 0;
}

int vocab_read(struct vocab *v, const json_t *object)
{
    if (!json_is_object(object) || !json_object_size(object))
        return error_set(ERR_FILE, "model: \"vocab\" must be an object with at least one token");
    const char *content;
    json_t *id;
    json_object_foreach((json_t *)object, content, id)
    {
        if (!json_is_integer(id))
            return error_set(ERR_FILE, "model: the id of \"%.100s\" is not an integer", content);
        if (vocab_add(v, content, strlen(content), json_integer_value(id)))
            return error_context("model");
    }
    return 0;
}

int32_t vocab_find(const struct vocab *v, const char *content, size_t n)
{
    if (!v->n_tokens)
        return -1;
    return v->slot[find_slot(v, content, n, (uint32_t)hash_bytes(content, n, 0))];
}

void vocab_free(struct vocab *v)
{
    for (int32_t id = 0; id < v->n_ids; id++)
        free(v->entry[id].content);
    free(v->entry);
    free(v->slot);
    free(v->slot_hash);
    *v = (struct vocab){0};
}
