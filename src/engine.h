/* What a task computes with, planned as one: backend, model, generator, micro-batches; tokenizer and files beside them.
 *
 *   engine_open       reads config.json and the tokenizer, opens the backend; no weights, no memory of the device
 *   engine_plan       lays everything out, counting; chooses what was left to the plan; refuses what does not fit
 *   engine_load       the same layout, placed; weights and adapters in
 */
#ifndef RLHF_SRC_ENGINE_H
#define RLHF_SRC_ENGINE_H

#include "comm.h"
#include "generate.h"
#include "gradient.h"
#include "hf_folder.h"
#include "lora.h"
#include "micro_batch.h"
#include "placement.h"
#include "settings.h"
#include "tokenizer.h"

/* What the task needs room for. */
struct engine_need {
    int longest;      /* tokens of the longest sequence */
    int longest_targets; /* targets of a sequence at most */
    int micro_batch;  /* sequences of a micro-batch wanted */
    int micro_least;  /* and needed: 0 is 1 */
    int slots;        /* sequences to decode at once wanted; 0: no generation */
    bool train;       /* backward too */
    bool adapters, value_head, all_weights;
    int scores;       /* outputs of a score head to train; 0: none. The folder is read as ARCH_BACKBONE for task = "reward" */
    const struct peft_adapter *frozen[LINEAR_ADAPTERS - 1]; /* more adapters on the same weights, opened for e->folder.arch: */
    int n_frozen;                                           /* frozen[i] is adapter 1 + i of passes */
    void (*layout)(void *context, struct arena *a); /* of what the algorithm itself works in, on the host; or NULL */
    void *context;
};

struct engine {
    const struct settings *settings;
    struct comm *comm;
    struct hf_folder folder; /* with model.init = "random" only its arch is filled */
    struct tokenizer *tokenizer;
    struct backend be;
    struct place *places; /* of all ranks */
    struct model model;
    struct generator generator;
    struct micro_batch micro_batch;
    struct gradient gradient; /* of tasks that train */
    struct peft_config peft; /* of the adapters: model.adapter's, else lora.*; what is written says the same */
    struct peft_adapter adapter; /* model.adapter, opened; engine_plan takes its config */
    struct peft_adapter reference; /* model.ref_adapter, opened, where it is a folder */
    struct arena arena;
    struct engine_need need;
    struct model_shape shape;
    int threads;
};

/* plan_only: nothing beyond engine_plan will be called, and the device need not be here. */
int engine_open(struct engine *e, const struct settings *s, struct comm *comm, bool plan_only);

/* From config.json alone: no tokenizer (NULL), no adapter read; s has model.init = "random" and no model.adapter. */
int engine_open_synthetic(struct engine *e, const struct settings *s, struct comm *comm, bool plan_only);

/* Whether the backend computes with a model's widths; path is named where it does not. Errors: ERR_FILE. */
int engine_check_widths(const struct engine *e, const struct arch *a, const char *path);

/* Fills e->shape. Errors: ERR_INPUT when memory does not suffice, with what to change. */
int engine_plan(struct engine *e, const struct engine_need *need);
void engine_print_plan(const struct engine *e); /* devices of the ranks and the table of --plan, through log_line */

/* Collective. Errors of one rank become everyone's. */
int engine_load(struct engine *e);
void engine_close(struct engine *e);

/* Longest sequence the model can hold, and data.max_length where that is shorter. */
int engine_context(const struct engine *e);

/* All parameters: the model's, and adapters and value head beside them. */
int64_t engine_parameters(const struct engine *e);

#endif
