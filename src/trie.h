/* A set of byte strings, each with a number, which finds the longest that begins a text. */
#ifndef RLHF_SRC_TRIE_H
#define RLHF_SRC_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The zeroed struct is an empty set. */
struct trie {
    int32_t *value; /* [n] of the string that ends at a node, or -1; node 0 is the root */
    int32_t n, room;
    struct trie_edge {
        int32_t node, child; /* child 0: an empty slot */
        unsigned char byte;
    } * edge;        /* [n_slots] by the hash of node and byte */
    size_t n_slots;  /* power of two, at least twice n */
    bool first[256]; /* bytes that a string begins with */
};

/* value >= 0. The empty string is not added, and of two equal strings the first keeps its value. */
void trie_add(struct trie *t, const char *string, size_t n, int32_t value);

/* Bytes of the longest string that text begins with, its value in *value; 0 when there is none. */
size_t trie_longest(const struct trie *t, const char *text, size_t n, int32_t *value);

void trie_free(struct trie *t);

#endif
