/* Wall time by phase. Phases nest: a phase's time excludes the phases begun inside it, so that they add up; but what an
 * evaluation begins is evaluation, so that the other phases are of the training alone. */
#ifndef RLHF_SRC_TIMING_H
#define RLHF_SRC_TIMING_H

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

struct timing {
    double sec[PHASES];     /* since timing_init */
    double step_sec[PHASES]; /* since timing_step */
    int64_t tokens[PHASES];
    enum phase stack[8];
    int depth;
    double since, start;
};

const char *phase_name(enum phase p);
double timing_now(void); /* seconds, monotonic */
void timing_init(struct timing *t);
void timing_begin(struct timing *t, enum phase p);
void timing_end(struct timing *t, int64_t tokens); /* tokens the phase worked on */
void timing_step(struct timing *t);                /* starts a step's own account */
double timing_total(const struct timing *t);

#endif
