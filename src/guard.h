/* The guard before an update: a loss or gradient that is not finite, or too large for the fixed point, trains nothing. */
#ifndef RLHF_SRC_GUARD_H
#define RLHF_SRC_GUARD_H

#include "gradient.h"
#include "settings.h"

/* Looks at the summed gradients and the loss of step number `step` (as it is to be named). Returns 0 to go on; 1 to leave the
 * update out, with run.on_nan = "skip", which the log says; -1 with ERR_RUN to stop. The same on every rank. Ranks: collective,
 * with the same loss. */
int guard_update(const struct gradient *g, double loss, enum on_nan on_nan, int64_t step);

#endif
