/* The table of tasks. */
#include "task.h"

#include "error.h"

static const struct task tasks[TASK_COUNT] = {
    [TASK_TOKENIZE] = {TASK_TOKENIZE, task_tokenize},
    [TASK_PRETRAIN] = {TASK_PRETRAIN, task_pretrain},
    [TASK_SFT] = {TASK_SFT, task_sft},
    [TASK_MERGE] = {TASK_MERGE, task_merge},
    [TASK_PPO] = {TASK_PPO, task_ppo},
    [TASK_GENERATE] = {TASK_GENERATE, task_generate},
    [TASK_EVALUATE] = {TASK_EVALUATE, task_evaluate},
};

const struct task *task_find(enum task_id id)
{
    if (tasks[id].run)
        return &tasks[id];
    error_set(ERR_INPUT, "task = \"%s\" is not built yet", settings_task_names[id]);
    return NULL;
}
