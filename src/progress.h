/* What a rank is doing: told by the code that does it, read by the watchdog's thread. The zeroed struct is a valid start. */
#ifndef RLHF_SRC_PROGRESS_H
#define RLHF_SRC_PROGRESS_H

#include <stdatomic.h>
#include <stddef.h>

struct progress {
    atomic_ulong n_ticks;
    _Atomic(const char *) phase; /* a string constant, kept; NULL: none yet */
    atomic_llong step;           /* counted from 1; 0: before the first */
};

/* "This rank is alive." Cheap: once a layer, an answer, a decode step. p may be NULL. */
static inline void progress_tick(struct progress *p)
{
    if (p)
        atomic_fetch_add_explicit(&p->n_ticks, 1, memory_order_relaxed);
}

static inline void progress_phase(struct progress *p, const char *phase)
{
    if (p)
        atomic_store(&p->phase, phase);
    progress_tick(p);
}

#endif
