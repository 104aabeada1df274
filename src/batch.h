/* Who trains what: samples of a mini-batch dealt to ranks by length, and a rank's share packed into
 * micro-batches.
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

/* Micro-batches of at most max_samples, and of at most max_tokens (0: no limit) where a single
 * sample is not longer by itself; samples stay in order. Micro-batch b takes the samples start[b]
 * .. start[b+1]-1 of the share.
 *
 * start   [n + 1] written
 * length  [n] tokens of the share's samples, in its order
 *
 * Returns the number of micro-batches.
 */
int batch_pack(int *start, const int64_t *length, int n, int max_samples, int64_t max_tokens);

#endif
