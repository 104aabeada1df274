/* task = "reward": a score head with adapters, or alone, on any supported family: rewards by pairs of answers, or classes of texts.
 * The adapter folder is what AutoModelForSequenceClassification and peft load. Source: TRL's RewardTrainer, transformers' sequence
 * classification. */
#include "banner.h"
#include "classifier_folder.h"
#include "conversation.h"
#include "error.h"
#include "file.h"
#include "labels.h"
#include "log.h"
#include "score_task.h"
#include "task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_TOKENS = 4096, PASS_SEQUENCES = 32 }; /* of a planned micro-batch, before memory is asked */

struct job {
    struct settings settings; /* borrowed strings; the adapter of a head alone is as small as can be */
    struct engine engine;
    struct run run;
    struct labels labels;
    struct score_examples train, eval; /* the latter of data.eval_path; n = 0 without */
    struct score_task task;
    struct supervised loop;
};

static bool pairs(const struct job *j)
{
    return j->settings.reward_model.loss == REWARD_LOSS_PAIRWISE;
}

/* ---- classes ---- */

static void add_label(struct labels *l, const char *name)
{
    l->name = realloc(l->name, (size_t)(l->n + 1) * sizeof *l->name);
    CHECK(l->name, "out of memory");
    l->name[l->n] = strdup(name);
    CHECK(l->name[l->n], "out of memory");
    l->n++;
}

/* The largest number of a label; -1 where they are names. */
static int largest_label(const struct dataset *d)
{
    int most = -1;
    for (int64_t i = 0; i < d->n; i++)
        most = d->row[i].label > most ? d->row[i].label : most;
    return most;
}

/* reward_model.label_names; else the names that the data have; else LABEL_0, .. up to the largest number. */
static int find_labels(struct labels *l, const struct settings *s, const struct dataset *d)
{
    const struct settings_strings *given = &s->reward_model.label_names;
    char **name = NULL;
    const int n = given->n ? 0 : dataset_label_names(d, &name);
    for (int i = 0; i < given->n; i++)
        add_label(l, given->item[i]);
    for (int i = 0; i < n; i++) {
        add_label(l, name[i]);
        free(name[i]);
    }
    free(name);
    for (int i = 0; !given->n && !n && i <= largest_label(d) && i < LABELS_MAX; i++) {
        char number[32];
        snprintf(number, sizeof number, "LABEL_%d", i);
        add_label(l, number);
    }
    if (l->n < 2)
        return error_set(ERR_INPUT, "%s: %d class%s: a classifier needs two or more (reward_model.label_names gives them; for "
                         "rewards by pairs set reward_model.loss = \"pairwise\")", d->path, l->n, l->n == 1 ? "" : "es");
    if (l->n > LABELS_MAX)
        return error_set(ERR_INPUT, "%s: %d classes, at most %d: is data.label_field the class?", d->path, l->n, LABELS_MAX);
    return 0;
}

/* ---- data ---- */

static int make_examples(void *job, struct dataset *data, bool eval)
{
    struct job *j = job;
    struct score_examples *out = eval ? &j->eval : &j->train;
    const struct engine *e = &j->engine;
    const struct arch *arch = &e->folder.arch;
    const int32_t named = tokenizer_eos(e->tokenizer);
    TRY(conversation_render(data, &j->settings, CONVERSATION_TEXTS));
    if (!pairs(j) && !eval)
        TRY(find_labels(&j->labels, &j->settings, data));
    if (!pairs(j))
        TRY(dataset_number_labels(data, j->labels.name, j->labels.n));
    const struct score_format how = {.settings = &j->settings,
                                     .tokenizer = e->tokenizer,
                                     .eos = arch->bidirectional ? -1 : named >= 0 || !arch->n_eos ? named : arch->eos[0],
                                     .pad = arch->bidirectional ? -1 : arch_classifier_pad(arch),
                                     .context = engine_context(e),
                                     .vocab = arch->vocab};
    TRY(score_examples_make(out, data, &how));
    if (out->n_cut)
        log_warn("%s: %lld of %lld texts have more than %d tokens and were cut", data->path, (long long)out->n_cut,
                 (long long)data->n, how.context);
    if (out->n_long)
        log_warn("%s: %lld of %lld pairs have an answer that ends beyond %d tokens and are left out", data->path,
                 (long long)out->n_long, (long long)data->n, how.context);
    return 0;
}

/* Which data it is, and the first example as the model gets it. */
static void show_data(struct job *j)
{
    const struct score_examples *x = &j->train;
    const struct score_example *e = &x->example[0];
    struct text classes = {0};
    for (int i = 0; i < j->labels.n && i < 10; i++)
        text_format(&classes, "%s%s", i ? ", " : " of classes ", j->labels.name[i]);
    log_line("%lld %s%s%s; %lld to evaluate on", (long long)x->n, x->pairs ? "pairs" : "texts", text_string(&classes),
             j->labels.n > 10 ? ", .." : "", (long long)j->eval.n);
    for (int i = 0; i < 1 + x->pairs; i++)
        banner_example(j->engine.tokenizer, x->tokens.ids + e->start[i], e->n[i], e->n[i]);
    if (!x->pairs)
        log_line("  its class is %s", j->labels.name[e->label]);
    text_free(&classes);
}

/* ---- the task ---- */

static int most(int a, int b)
{
    return a > b ? a : b;
}

static struct engine_need need_of(const struct job *j)
{
    const struct settings_reward_model *s = &j->settings.reward_model;
    const int width = pairs(j) ? 2 : 1, longest = most(j->train.longest, j->eval.longest), planned = PASS_TOKENS / longest;
    const int64_t micro = s->micro_batch_size > 0    ? width * s->micro_batch_size
                          : planned > PASS_SEQUENCES ? PASS_SEQUENCES
                                                     : most(planned, width);
    return (struct engine_need){.longest = longest,
                                .longest_targets = 1,
                                .micro_batch = (int)(micro < width * s->batch_size ? micro : width * s->batch_size),
                                .micro_least = width,
                                .train = true,
                                .adapters = true,
                                .scores = j->task.n_scores};
}

static int64_t n_samples(const struct job *j)
{
    const struct settings *s = &j->settings;
    return s->run.max_steps > 0 ? s->run.max_steps * s->reward_model.batch_size
                                : (int64_t)ceil(s->reward_model.num_train_epochs * (double)j->train.n);
}

/* config.json with the classes and the tokenizer, beside the adapters. */
static int complete_folder(const struct job *j, const char *name)
{
    char *path = run_path(&j->run, name);
    int rc = file_is_folder(path) ? classifier_folder_complete(path, &j->engine.folder.arch, j->settings.model.path,
                                                               pairs(j) ? NULL : &j->labels)
                                  : 0;
    free(path);
    return rc;
}

static int complete_folders(const struct job *j)
{
    if (comm_rank(j->engine.comm) != 0)
        return 0;
    TRY(complete_folder(j, "adapter"));
    return complete_folder(j, "adapter-best");
}

static int job_run(struct job *j, const struct options *o)
{
    const struct settings_reward_model *s = &j->settings.reward_model;
    uint64_t hash[2];
    const unsigned data = pairs(j) ? DATASET_PAIR : DATASET_TEXT | DATASET_LABEL;
    TRY(comm_agree(j->engine.comm, dataset_take(&j->settings.data, data, make_examples, j, hash)));
    TRY(comm_same_input(j->engine.comm, hash, sizeof hash, "the data of data.path or data.eval_path"));
    j->task = (struct score_task){.engine = &j->engine,
                                  .timing = &j->run.timing,
                                  .train = &j->train,
                                  .eval = &j->eval,
                                  .micro_batch_size = s->micro_batch_size,
                                  .n_scores = pairs(j) ? 1 : j->labels.n,
                                  .center = s->center_rewards_coefficient.set ? s->center_rewards_coefficient.value : 0,
                                  .head_only = s->head_only};
    struct supervised_task task = score_task_of(&j->task);
    task.batch_size = s->batch_size;
    task.n_samples = n_samples(j);
    supervised_init(&j->loop, &task, &j->engine, &j->run);
    const struct engine_need need = need_of(j);
    TRY(supervised_plan(&j->loop, &need));
    show_data(j);
    if (o->plan)
        return 0;
    int rc = supervised_run(&j->loop, o->resume);
    if (rc && error_kind() != ERR_STOP)
        return rc;
    if (!rc)
        TRY(supervised_finish(&j->loop));
    TRY(comm_agree(j->engine.comm, complete_folders(j))); /* of a run that was stopped: the best so far */
    return rc;
}

int task_reward(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job *j = calloc(1, sizeof *j);
    CHECK(j, "out of memory");
    j->settings = *s;
    if (s->reward_model.head_only)
        j->settings.lora.r = 1;
    int rc = run_open(&j->run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = engine_open(&j->engine, &j->settings, comm, o->plan);
    if (!rc)
        rc = job_run(j, o);
    supervised_free(&j->loop);
    score_examples_free(&j->train);
    score_examples_free(&j->eval);
    labels_free(&j->labels);
    engine_close(&j->engine);
    run_close(&j->run);
    free(j);
    return rc;
}
