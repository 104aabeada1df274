/* The training report of one run: what was run, curves, time by phase, checkpoints, samples, advice. */
#ifndef RLHF_SRC_REPORT_H
#define RLHF_SRC_REPORT_H

/* Reads the folder of a run, finished or not, and writes into it
 *   report.md    all of the above
 *   report.csv   every metric, one row a step            (where there is a metrics.jsonl)
 *   phases.csv   seconds, tokens and bytes, a row a phase (where there is a timing.json)
 * Says on the log what was written. Ranks: local, without MPI. Errors: ERR_FILE: past_run_open's, a malformed samples.jsonl.
 */
int report_write(const char *folder);

#endif
