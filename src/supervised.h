/* Supervised training: the loop that pretrain, sft and reward have in common. A task says what an example is worth; the loop
 * deals examples to ranks, sums gradients, guards and makes updates, evaluates, writes metrics and checkpoints, stops and resumes.
 *
 *   supervised_plan    memory: the engine's, the loop's and the task's; the banner
 *   supervised_run     weights in, resume, steps, evaluations; the task writes what it has trained afterwards
 *
 * Same bits on any number of ranks: which examples a step has is a function of (run.seed, step); any rank may train any example,
 * as gradients are exact sums; losses come from records of all examples in global order.
 */
#ifndef RLHF_SRC_SUPERVISED_H
#define RLHF_SRC_SUPERVISED_H

#include "batch.h"
#include "best.h"
#include "engine.h"
#include "metrics.h"
#include "optimizer.h"
#include "options.h"
#include "records.h"
#include "run.h"
#include "schedule.h"

struct supervised_item {
    int64_t sample;  /* number over the whole run, which keys dropout; of an evaluation: the example's */
    int64_t example; /* 0 .. n_train - 1, or n_eval - 1 */
};

/* The examples of a step, or of an evaluation. */
struct supervised_batch {
    bool train;       /* forward and backward, dropout; else an evaluation: forward alone */
    uint32_t update;  /* dropout's counter */
    int n;            /* of all ranks */
    int64_t n_tokens; /* of all of them */
    const struct supervised_item *item; /* [n] in global order */
    int n_mine;
    const int *mine; /* [n_mine] places of this rank's in item, ascending */
};

struct supervised_task {
    void *context;
    int64_t n_train; /* examples, gone through in a new permutation each time; 0: the example is the sample's number, for tasks
                      * that draw their own */
    int64_t n_eval;  /* examples of an evaluation; 0: none */
    int64_t batch_size; /* examples of an update, over all ranks */
    int64_t n_samples;  /* of the whole run: the last step has what is left */
    int sequences;      /* of an example: each contributes to the gradient */
    size_t record_bytes; /* of an example */

    int64_t (*tokens)(void *context, const struct supervised_item *item, bool train); /* of an example, at least 1 */

    /* This rank's examples through the model, micro-batch by micro-batch; of a training batch the gradients are added too. Adds a
     * record for each of b->mine, keyed by its place. Ranks: local; errors end the run. */
    int (*share)(void *context, const struct supervised_batch *b, struct record_list *mine);

    /* The loss of a batch from the records of its examples, in the order of b->item, and its metrics ("loss"; of an evaluation
     * "eval/loss" and so on). The same bits on every rank. The adapter of the lowest loss of an evaluation is the best. */
    double (*describe)(void *context, struct metrics *m, const struct supervised_batch *b, const struct record_list *all);

    void (*layout)(void *context, struct arena *a); /* of what the calls above work in; see engine_need */
};

struct supervised_room;

struct supervised {
    struct supervised_task task;
    const struct settings *settings;
    struct comm *comm;
    struct engine *engine;
    struct run *run;
    struct optimizer optimizer;
    const struct schedule *schedule;
    struct best best;
    struct step_file metrics;
    struct event_file events;
    struct supervised_room *room; /* planned */
    struct record_list mine, all;
    int64_t total_steps;
    int64_t n_tokens; /* trained on so far, over all ranks */
    int64_t epoch;    /* whose permutation is in the room; -1: none */
    double logged;    /* when the newest line was */
};

/* engine (opened) and run are borrowed. */
void supervised_init(struct supervised *s, const struct supervised_task *task, struct engine *engine, struct run *run);

/* The plan of need, with the loop's and the task's own layout, on the log. Collective. Errors: engine_plan's. */
int supervised_plan(struct supervised *s, const struct engine_need *need);

/* After supervised_plan. resume: continue from the newest checkpoint. Collective. Errors: of files; a loss or gradient that is
 * not finite, with run.on_nan = "stop"; ERR_STOP when it was stopped early. */
int supervised_run(struct supervised *s, bool resume);

/* Writes run.output_dir/adapter as PEFT folder, and the closing table. Collective. */
int supervised_finish(struct supervised *s);
void supervised_free(struct supervised *s);

#endif
