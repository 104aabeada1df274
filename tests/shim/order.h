/* In which order blocks, warps and lanes run: ascending, or shuffled by RLHF_SHIM_ORDER so that races show. */
#ifndef RLHF_TESTS_SHIM_ORDER_H
#define RLHF_TESTS_SHIM_ORDER_H

#include <stdint.h>

namespace shim {

/* For the grid that begins. */
void order_begin(uint64_t n_blocks, int n_warps);

/* The i-th block to run. */
uint64_t order_block(uint64_t i);

/* For the block that begins: its warps; the lanes, one order for all of them. */
const unsigned *order_warps();
const unsigned *order_lanes();

/* Do the lanes of a warp that has met go on before the other warps? */
bool order_at_once_drawn();
extern bool order_is_ascending;

static inline bool order_at_once()
{
    return order_is_ascending || order_at_once_drawn();
}

/* Changes the seed; 0: ascending. Without this the environment's. */
void order_set(uint64_t seed);

} // namespace shim

#endif
