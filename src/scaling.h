/* The scaling report: the same input on several numbers of ranks. */
#ifndef RLHF_SRC_SCALING_H
#define RLHF_SRC_SCALING_H

/* Reads the timing.json (and settings.cfg) of n finished runs and writes scaling.md and scaling.csv beside the first folder,
 * in the folder that holds it. A row is a number of ranks and of threads; runs of a row are averaged. With sec the time of a
 * step without the first,
 *   speedup = sec of the first row / sec;   efficiency = speedup * ranks of the first row / ranks;
 *   imbalance: timing_file_imbalance; share_<phase>: of a step, in %; max_over_mean_<phase>: over ranks.
 *
 * Ranks: local, without MPI. Errors: ERR_FILE: past_run_open's; a run that has not finished or timed no step; runs that differ
 * in more than ranks, threads, micro-batches, slots, and the settings of run: what differs is named.
 */
int scaling_write(const char *const *folder, int n);

#endif
