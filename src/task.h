/* The tasks by name. */
#ifndef RLHF_SRC_TASK_H
#define RLHF_SRC_TASK_H

#include "comm.h"
#include "options.h"
#include "settings.h"

struct task {
    enum task_id id;
    int (*run)(const struct settings *s, struct comm *comm, const struct options *o); /* NULL: not built yet */
};

/* The row of a task. Errors: ERR_INPUT for one that is not built yet, by name; NULL then. */
const struct task *task_find(enum task_id id);

int task_tokenize(const struct settings *s, struct comm *comm, const struct options *o);
int task_pretrain(const struct settings *s, struct comm *comm, const struct options *o);
int task_sft(const struct settings *s, struct comm *comm, const struct options *o);
int task_merge(const struct settings *s, struct comm *comm, const struct options *o);
int task_ppo(const struct settings *s, struct comm *comm, const struct options *o);
int task_generate(const struct settings *s, struct comm *comm, const struct options *o);
int task_evaluate(const struct settings *s, struct comm *comm, const struct options *o);

#endif
