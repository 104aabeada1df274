/* The watchdog: a thread that ends the run when this rank makes no progress.
 *
 * For hangs that no agreement can reach: a reward program that answers no more, a file system or a device that stopped
 * answering, a rank that waits in a collective for one that never comes. A rank that waits for a working one on its
 * node is left alone, however long that takes: the working one has a watchdog too. Where all ranks of a node wait, the one
 * they wait for may be on another node, so they get twice the time: the limit must be longer than half of what the work
 * of nodes differs by.
 */
#ifndef RLHF_MPI_WATCHDOG_H
#define RLHF_MPI_WATCHDOG_H

#include "progress.h"

struct comm;
struct watchdog;

/* Starts the thread. timeout_sec 0: off, *out is NULL.
 * progress      borrowed until watchdog_close; may also be told things while nobody watches
 * Ranks: local. Errors: no thread.
 */
int watchdog_open(struct watchdog **out, const struct comm *c, struct progress *progress, double timeout_sec);

void watchdog_close(struct watchdog *w); /* ends the thread and waits for it; takes NULL */

#endif
