/* Nearest names: "did you mean" for misspelt settings and options. */
#ifndef RLHF_SRC_NEAREST_H
#define RLHF_SRC_NEAREST_H

/* Edits (insert, delete, replace, swap of neighbours) from a to b; names beyond 127 bytes count as far (1000). */
int nearest_distance(const char *a, const char *b);

/* The first of the nearest among names that are tried; begin with a distance beyond all. */
struct nearest {
    char name[160];
    int distance;
};
void nearest_try(struct nearest *best, const char *name, int distance);

/* Are d edits few enough to suggest a name of n bytes? One edit, and one more every three bytes. */
int nearest_is_near(int d, int n);

#endif
