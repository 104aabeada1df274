/* Nodes are numbers; the way from one to the next is looked up in one table, by open addressing with linear probing. */
#include "trie.h"

#include "error.h"

#include <stdlib.h>

/* The edge, or the empty slot where it belongs. */
static struct trie_edge *find_edge(const struct trie *t, int32_t node, unsigned char byte)
{
    uint64_t hash = ((uint64_t)node << 8 | byte) * UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio */
    size_t i = (hash >> 32) & (t->n_slots - 1);
    while (t->edge[i].child && (t->edge[i].node != node || t->edge[i].byte != byte))
        i = (i + 1) & (t->n_slots - 1);
    return &t->edge[i];
}

static void grow_edges(struct trie *t)
{
    struct trie_edge *old = t->edge;
    const size_t n_old = t->n_slots;
    t->n_slots = n_old ? 2 * n_old : 128;
    t->edge = calloc(t->n_slots, sizeof *t->edge);
    CHECK(t->edge, "out of memory for a trie of %d nodes", t->n);
    for (size_t i = 0; i < n_old; i++)
        if (old[i].child)
            *find_edge(t, old[i].node, old[i].byte) = old[i];
    free(old);
}

static int32_t new_node(struct trie *t)
{
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->value = realloc(t->value, (size_t)t->room * sizeof *t->value);
        CHECK(t->value, "out of memory for a trie of %d nodes", t->n);
    }
    t->value[t->n] = -1;
    return t->n++;
}

void trie_add(struct trie *t, const char *string, size_t n, int32_t value)
{
    if (!n)
        return;
    if (!t->n)
        new_node(t);
    t->first[(unsigned char)string[0]] = true;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char byte = (unsigned char)string[i];
        if (2 * ((size_t)t->n + 1) > t->n_slots)
            grow_edges(t);
        struct trie_edge *edge = find_edge(t, node, byte);
        if (!edge->child)
            *edge = (struct trie_edge){node, new_node(t), byte};
        node = edge->child;
    }
    if (t->value[node] < 0)
        t->value[node] = value;
}

size_t trie_longest(const struct trie *t, const char *text, size_t n, int32_t *value)
{
    size_t longest = 0;
    int32_t node = 0;
    for (size_t i = 0; i < n && t->n; i++) {
        node = find_edge(t, node, (unsigned char)text[i])->child;
        if (!node)
            break;
        if (t->value[node] >= 0) {
            *value = t->value[node];
            longest = i + 1;
        }
    }
    return longest;
}

void trie_free(struct trie *t)
{
    free(t->value);
    free(t->edge);
    *t = (struct trie){0};
}
