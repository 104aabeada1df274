/* Dealing: greedy, deterministic. */
#include "batch.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

/* Longest first; of equal lengths the lower place. No two are equal, so qsort's order is fixed. */
static int longest_first(const void *a, const void *b)
{
    const struct batch_entry *x = a, *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

void batch_deal(int *rank, struct batch_deal *deal, const int64_t *length, int n, int n_ranks)
{
    CHECK(n_ranks > 0, "dealing to %d ranks", n_ranks);
    if (n <= 0)
        return;
    struct batch_entry *entry = deal->entry;
    int64_t *load = deal->load;
    memset(load, 0, (size_t)n_ranks * sizeof *load);
    for (int i = 0; i < n; i++)
        entry[i] = (struct batch_entry){length[i] > 0 ? length[i] : 1, i};
    qsort(entry, (size_t)n, sizeof *entry, longest_first);
    for (int i = 0; i < n; i++) {
        int least = 0;
        for (int r = 1; r < n_ranks; r++)
            if (load[r] < load[least])
                least = r;
        rank[entry[i].place] = least;
        load[least] += entry[i].length;
    }
}

int batch_share(int *place, const int *rank, int n, int my_rank)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        if (rank[i] == my_rank)
            place[count++] = i;
    return count;
}
