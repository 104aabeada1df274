/* The gradient of a mini-batch: exact sums of integers, over the samples of a rank by the backend, then over ranks. Source: DESIGN
 * section 5.
 *
 * Where the sum over ranks is made:
 *   one rank                                   nowhere
 *   accumulators in host memory (CPU)          in place, by comm_sum_i64
 *   a device for each rank, reduce_ rows       on the devices
 *   a device without these rows, or shared     in a planned copy on the host, by comm_sum_i64
 */
#ifndef RLHF_SRC_GRADIENT_H
#define RLHF_SRC_GRADIENT_H

#include "arena.h"
#include "model.h"

#include <stdbool.h>

struct comm;

struct gradient {
    struct model *model;
    struct comm *comm;
    bool on_device;   /* the ranks are summed by the backend */
    int64_t *staging; /* [n] host; NULL where the sums need no copy */
};

/* m after model_init. share_device: ranks may share a device, so the host sums. */
void gradient_init(struct gradient *g, struct model *m, struct comm *comm, bool share_device);

/* After model_layout. */
void gradient_layout(struct gradient *g, struct arena *a);

/* Joins the group of devices that sum; nothing where the host does. A sum that takes longer than timeout_sec (0: any time) ends
 * the run. Ranks: collective. Errors: no group can be made. A rank that cannot join ends the run, as the others wait for it. */
int gradient_open(struct gradient *g, double timeout_sec);

/* Zeroes the accumulators for a mini-batch of n_samples and sets the limit of a contribution, 2^14 / n_samples: sums of that
 * many stay below 2^62 in the fixed point of 2^48. */
void gradient_begin(struct model *m, int64_t n_samples);

/* The accumulators of all ranks, in place of each rank's own. Between start and finish they are not to be touched; finish waits.
 * A sum that fails ends the run with one line: a rank that knows of it cannot reach the others by an agreement.
 * Ranks: collective, after an agreement that all have done their part. */
void gradient_sum_start(struct gradient *g);
void gradient_sum_finish(struct gradient *g);

/* The first tensor with a contribution, on any rank, that broke the limit; NULL: none. Ranks: collective. */
const char *gradient_overflow(const struct gradient *g);

#endif
