/* Reward by a program of the user: started once, when the weights are loaded; asked a line a sample.
 *
 * The command runs by /bin/sh -c in a process group of its own. For each sample it is sent one JSON
 * object on a line of its standard input, {"index":17,"prompt":"..","response":".."}, and must
 * answer with one finite number on a line of its standard output, in the same order. Input stays
 * open between batches, so the program must answer a line when it has read it: flush its output,
 * and not wait for a full buffer of input (mawk does, without -W interactive). Its standard error
 * is the run's. Lines are sent ahead of the answers as far as the pipe takes them.
 *
 * Same bits: as far as an answer is a function of its line alone.
 */
#ifndef RLHF_SRC_REWARD_PROGRAM_H
#define RLHF_SRC_REWARD_PROGRAM_H

#include "reward.h"

/* Errors: ERR_INPUT without a command or with a bad timeout. */
int reward_program_open(void **state, const struct reward_spec *spec);

/* Starts it. Errors: ERR_SYSTEM when it cannot be started. A command that does not exist is found by the shell, and so by the
 * first score. */
int reward_program_load(void *state);

/* Errors: ERR_RUN when the program ends (with its exit code or signal), takes and gives nothing for
 * timeout_sec, answers with a line that is no finite number (quoted), or says more than it was
 * asked. */
int reward_program_score(void *state, const struct reward_text *texts, int64_t n, double *score);

/* Closes its input, waits a moment for it to end, then ends what is left of its process group. */
void reward_program_close(void *state);

#endif
