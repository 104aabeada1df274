/* Nodes stand in one growing array and name each other by index; node 0 is the root, and no child. */
#include "trie.h"

#include "error.h"

#include <stdlib.h>

static int32_t new_node(struct trie *t, unsigned char byte)
{
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->node = realloc(t->node, (size_t)t->room * sizeof *t->node);
        CHECK(t->node, "out of memory for %d nodes of a trie", t->room);
    }
    t->node[t->n] = (struct trie_node){.value = -1, .byte = byte};
    return t->n++;
}

static int32_t find_child(const struct trie *t, int32_t node, unsigned char byte)
{
    int32_t child = t->node[node].child;
    while (child && t->node[child].byte != byte)
        child = t->node[child].sibling;
    return child;
}

void trie_add(struct trie *t, const char *string, size_t n, int32_t value)
{
    if (!n)
        return;
    if (!t->n)
        new_node(t, 0);
    t->first[(unsigned char)string[0]] = true;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t child = find_child(t, node, (unsigned char)string[i]);
        if (!child) {
            child = new_node(t, (unsigned char)string[i]);
            t->node[child].sibling = t->node[node].child;
            t->node[node].child = child;
        }
        node = child;
    }
    if (t->node[node].value < 0)
        t->node[node].value = value;
}

size_t trie_longest(const struct trie *t, const char *text, size_t n, int32_t *value)
{
    size_t longest = 0;
    int32_t node = 0;
    for (size_t i = 0; i < n && t->n; i++) {
        node = find_child(t, node, (unsigned char)text[i]);
        if (!node)
            break;
        if (t->node[node].value >= 0) {
            *value = t->node[node].value;
            longest = i + 1;
        }
    }
    return longest;
}

void trie_free(struct trie *t)
{
    free(t->node);
    *t = (struct trie){0};
}
