/* The passes of a model timed one by one on a rank, with what each must move and compute counted beside it. */
#ifndef RLHF_SRC_BENCH_PASS_H
#define RLHF_SRC_BENCH_PASS_H

#include "engine.h"

#include <jansson.h>

/* Times prefill, decode steps of several numbers of sequences, the log-prob pass, the training pass and the update, on made-up
 * tokens, and logs a table: milliseconds, bytes and operations counted, and their share of what the device was measured to do.
 * Owned by the caller: the same as JSON, one object a pass. NULL: the device failed (error slot).
 *
 * Counted as operations: 2 of every weight and token of the linear layers, forward, recomputation and dX each; the head's rows;
 * 4 of every key, channel and query of attention (backward: 10). As bytes: weights, once a pass; keys and values read by decode;
 * the update's parameters, moments and gradients. Activations are not counted: they are what a fused pass need not move.
 * Ranks: local. */
json_t *bench_passes(struct engine *e);

#endif
