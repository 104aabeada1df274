/* Time is charged to the innermost phase; what no phase claims is PHASE_OTHER. */
#include "timing.h"

#include "error.h"

#include <string.h>
#include <time.h>

static const char *const names[PHASES] = {"load",   "generate", "reward",     "logprobs", "gather", "forward", "backward",
                                          "reduce", "optimize", "checkpoint", "evaluate", "other"};

const char *phase_name(enum phase p)
{
    return names[p];
}

bool phase_waits(enum phase p)
{
    return p == PHASE_GATHER || p == PHASE_REDUCE || p == PHASE_CHECKPOINT || p == PHASE_OTHER;
}

double timing_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void charge(struct timing *t)
{
    double now = timing_now();
    enum phase p = t->depth ? t->stack[t->depth - 1] : PHASE_OTHER;
    t->sec[p] += now - t->since;
    t->step_sec[p] += now - t->since;
    t->since = now;
}

void timing_init(struct timing *t)
{
    memset(t, 0, sizeof *t);
    t->since = t->start = timing_now();
}

void timing_begin(struct timing *t, enum phase p)
{
    CHECK(t->depth < 8, "phases nest too deep");
    charge(t);
    if (t->depth && t->stack[t->depth - 1] == PHASE_EVALUATE)
        p = PHASE_EVALUATE;
    t->stack[t->depth++] = p;
    progress_phase(t->progress, names[p]);
}

void timing_end(struct timing *t, int64_t tokens)
{
    CHECK(t->depth > 0, "phase ended that was not begun");
    charge(t);
    t->tokens[t->stack[--t->depth]] += tokens;
    progress_phase(t->progress, names[t->depth ? t->stack[t->depth - 1] : PHASE_OTHER]);
}

void timing_add_bytes(struct timing *t, int64_t bytes)
{
    CHECK(t->depth > 0, "bytes moved outside of a phase");
    t->bytes[t->stack[t->depth - 1]] += bytes;
}

void timing_step_begin(struct timing *t)
{
    charge(t);
    memset(t->step_sec, 0, sizeof t->step_sec);
    t->step_start = t->since;
}

double timing_step_end(struct timing *t, int64_t tokens)
{
    charge(t);
    double sec = t->since - t->step_start;
    if (t->n_steps == 0) {
        t->first_sec = sec;
        t->first_end = t->since;
    }
    if (t->n_steps++ == 1)
        memset(&t->timed, 0, sizeof t->timed); /* there is a second step: forget the first */
    for (int p = 0; p < PHASES; p++)
        t->timed.sec[p] += t->step_sec[p];
    t->timed.total += sec;
    t->timed.tokens += tokens;
    t->timed.n++;
    return sec;
}

double timing_left(const struct timing *t, int64_t n_steps)
{
    double pace = t->n_steps > 1 ? (timing_now() - t->first_end) / (double)(t->n_steps - 1) : t->first_sec;
    return pace * (double)n_steps;
}

double timing_total(const struct timing *t)
{
    return timing_now() - t->start;
}

void timing_settle(struct timing *t)
{
    charge(t);
}
