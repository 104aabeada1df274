/* Fibers: the threads of a block run on stacks of their own and hand the processor to one another. */
#ifndef RLHF_TESTS_SHIM_FIBER_H
#define RLHF_TESTS_SHIM_FIBER_H

#include <stddef.h>

namespace shim {

struct fiber;

/* A fiber that will run entry, which never returns. Lives as long as the process: whoever needs no more of it keeps it for
 * another use. number tells fibers apart. */
struct fiber *fiber_create(int number, void (*entry)());

/* Goes on in `to`; returns when someone switches to `from`, which must be the running one. */
void fiber_switch(struct fiber *from, struct fiber *to);

/* The fiber that the process began on. */
struct fiber *fiber_host();

} // namespace shim

#endif
