/* Wall time by phase. Phases nest: a phase's time excludes the phases begun inside it, so that they add up; but what an
 * evaluation begins is evaluation, so that the other phases are of the training alone. */
#ifndef RLHF_SRC_TIMING_H
#define RLHF_SRC_TIMING_H

#include "progress.h"

#include <stdbool.h>
#include <stdint.h>

enum phase {
    PHASE_LOAD,
    PHASE_GENERATE,
    PHASE_REWARD,
    PHASE_LOGPROBS,
    PHASE_GATHER,
    PHASE_FORWARD,
    PHASE_BACKWARD,
    PHASE_REDUCE,
    PHASE_OPTIMIZE,
    PHASE_CHECKPOINT,
    PHASE_EVALUATE,
    PHASE_OTHER,
    PHASES
};

/* Steps to judge a speed by: all but the first, which still warms caches up; the first while it is the only one. */
struct timed_steps {
    double sec[PHASES], total;
    int64_t tokens, n;
};

struct timing {
    double sec[PHASES];      /* since timing_init */
    double step_sec[PHASES]; /* since timing_step_begin */
    int64_t tokens[PHASES], bytes[PHASES];
    int64_t n_steps;
    double first_sec; /* of the first step */
    struct timed_steps timed;
    enum phase stack[8];
    int depth;
    double since, start, step_start, first_end;
    struct progress *progress; /* is told of each phase; NULL after timing_init */
};

const char *phase_name(enum phase p);
bool phase_waits(enum phase p); /* ranks meet in it, so that its time holds the waiting for others */
double timing_now(void); /* seconds, monotonic */
void timing_init(struct timing *t);
void timing_begin(struct timing *t, enum phase p);
void timing_end(struct timing *t, int64_t tokens); /* tokens the phase worked on */

/* Bytes that the phase now open has moved: what a gather brought together, what a sum went over, what a checkpoint holds.
 * Counted once, not per rank. */
void timing_add_bytes(struct timing *t, int64_t bytes);

void timing_step_begin(struct timing *t);                   /* starts a step's own account */
double timing_step_end(struct timing *t, int64_t tokens);   /* seconds since; tokens the step made, of all ranks */
double timing_left(const struct timing *t, int64_t n_steps); /* seconds for so many steps more, at the mean pace so far */

double timing_total(const struct timing *t); /* seconds since timing_init */
void timing_settle(struct timing *t);        /* charges the open phase up to now: the phases add up to since - start */

#endif
