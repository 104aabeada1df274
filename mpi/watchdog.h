/* The watchdog: a thread that ends the run when this rank makes no progress.
 *
 * For hangs that no agreement can reach: a rank that waits in a collective for one that never comes, a file system or
 * a device that stopped answering. The time limit must be longer than the longest phase between two calls.
 */
#ifndef RLHF_MPI_WATCHDOG_H
#define RLHF_MPI_WATCHDOG_H

struct comm;
struct watchdog;

/* Starts the thread. timeout_sec 0: off, *out is NULL, which the other two functions take.
 * Ranks: local (c gives the rank's number for the message). Errors: no thread.
 */
int watchdog_open(struct watchdog **out, const struct comm *c, double timeout_sec);

/* "This rank is alive, and begins phase." Cheap, and safe in a signal handler.
 * phase         a string constant: it is kept, not copied
 */
void watchdog_progress(struct watchdog *w, const char *phase);

void watchdog_close(struct watchdog *w); /* ends the thread and waits for it */

#endif
