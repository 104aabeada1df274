/* Nearest names: "did you mean" for misspelt settings and options. */
#ifndef RLHF_SRC_NEAREST_H
#define RLHF_SRC_NEAREST_H

/* Edits (insert, delete, replace, swap of neighbours) from a to b; names beyond 127 bytes count as far (1000). */
int nearest_distance(const char *a, const char *b);

/* Is d edits near enough for a name of n bytes to suggest it? One edit, and one more every three bytes. */
int nearest_is_near(int d, int n);

#endif
