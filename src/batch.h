/* Who trains what: samples of a mini-batch dealt to ranks by length.
 *
 * Any rank may train any sample (gradients are exact integer sums), so this is about time alone:
 * the result does not depend on it. Ranks: every rank calls with the same arguments and gets the
 * same deal.
 */
#ifndef RLHF_SRC_BATCH_H
#define RLHF_SRC_BATCH_H

#include <stdint.h>

/* What dealing works with. */
struct batch_deal {
    struct batch_entry {
        int64_t length;
        int place;
    } *entry;      /* [n] scratch */
    int64_t *load; /* [n_ranks] written: tokens of each rank */
};

/* Longest sample first to the rank with the least tokens so far (Graham 1969: at most 4/3 of the
 * best makespan). Of equal lengths the lower place goes first, of equal loads the lower rank takes
 * it. A length below 1 counts as 1.
 *
 * rank    [n] written: the rank of each sample
 * length  [n] tokens of each sample (prompt and response), in global order
 */
void batch_deal(int *rank, struct batch_deal *deal, const int64_t *length, int n, int n_ranks);

/* Places of one rank's samples, ascending, into place [n]. Returns how many. */
int batch_share(int *place, const int *rank, int n, int my_rank);

#endif
