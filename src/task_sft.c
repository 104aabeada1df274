/* task = "sft": supervised fine-tuning of adapters, or of an adapter that is there, by the next-token loss on texts or on the
 * completions of prompts. Source: TRL's SFTTrainer, and the recipe's first script. */
#include "banner.h"
#include "causal_lm.h"
#include "conversation.h"
#include "error.h"
#include "log.h"
#include "sft_examples.h"
#include "task.h"

#include <math.h>
#include <stdlib.h>

enum { PASS_TOKENS = 4096, PASS_SEQUENCES = 16 }; /* of a planned micro-batch, before memory is asked */

struct job {
    const struct settings *settings;
    struct engine engine;
    struct run run;
    struct sft_examples train, eval; /* the latter of data.eval_path; n = 0 without */
    bool wrapped;
    struct causal_lm lm;
    struct supervised loop;
};

/* ---- data ---- */

static int32_t end_token(const struct engine *e)
{
    const int32_t named = tokenizer_eos(e->tokenizer);
    return named >= 0 || !e->folder.arch.n_eos ? named : e->folder.arch.eos[0];
}

static int make_examples(void *job, struct dataset *data, bool eval)
{
    struct job *j = job;
    struct sft_examples *out = eval ? &j->eval : &j->train;
    const struct engine *e = &j->engine;
    TRY(conversation_render(data, j->settings, CONVERSATION_TEXTS));
    if (!eval)
        j->wrapped = sft_examples_wrapped(&j->settings->sft, data);
    const struct sft_format how = {.settings = j->settings,
                                   .tokenizer = e->tokenizer,
                                   .eos = end_token(e),
                                   .context = engine_context(e),
                                   .vocab = e->folder.arch.vocab,
                                   .wrapped = j->wrapped};
    TRY(sft_examples_make(out, data, &how));
    if (out->n_cut)
        log_warn("%s: %lld of %lld rows have more than %d tokens and were cut", data->path, (long long)out->n_cut,
                 (long long)data->n, how.context);
    if (out->n_empty)
        log_warn("%s: %lld of %lld rows have no token to learn and are left out", data->path, (long long)out->n_empty,
                 (long long)data->n);
    return 0;
}

/* Is it one of generation_config.json's end tokens? A chat template ends its turns with another one than texts have. */
static bool ends_generation(const struct engine *e, int32_t token)
{
    for (int i = 0; i < e->folder.arch.n_eos; i++)
        if (token == e->folder.arch.eos[i])
            return true;
    return false;
}

/* Which data it is, and the first example as the model gets it. */
static void show_data(struct job *j)
{
    const struct sft_examples *x = &j->train;
    const int32_t eos = end_token(&j->engine);
    bool ends = eos < 0;
    for (int64_t i = 0; !ends && i < x->tokens.n; i++)
        ends = x->tokens.ids[i] == eos || ends_generation(&j->engine, x->tokens.ids[i]);
    log_line("%lld %s, %lld tokens to learn; %lld to evaluate on", (long long)x->n,
             j->wrapped ? "blocks of texts one behind the other" : "examples", (long long)x->n_targets, (long long)j->eval.n);
    banner_example(j->engine.tokenizer, x->tokens.ids + x->example[0].start, x->example[0].n, x->example[0].first);
    if (!ends)
        log_warn("the end token %d occurs nowhere in the data: the model will not learn to stop%s", (int)eos,
                 j->wrapped ? " (sft.separator = true puts it between texts)" : "");
}

/* ---- the task ---- */

static struct causal_lm_example example(const void *job, int64_t index, bool train)
{
    const struct sft_examples *x = train ? &((const struct job *)job)->train : &((const struct job *)job)->eval;
    const struct sft_example *e = &x->example[index];
    return (struct causal_lm_example){x->tokens.ids + e->start, e->n, e->first};
}

static int64_t n_samples(const struct job *j)
{
    const struct settings *s = j->settings;
    return s->run.max_steps > 0 ? s->run.max_steps * s->sft.batch_size
                                : (int64_t)ceil(s->sft.num_train_epochs * (double)j->train.n);
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

static struct engine_need need_of(const struct job *j)
{
    const struct settings_sft *s = &j->settings->sft;
    const int longest = most(j->train.longest, j->eval.longest), planned = PASS_TOKENS / longest;
    const int64_t micro = s->micro_batch_size > 0        ? s->micro_batch_size
                          : planned > PASS_SEQUENCES     ? PASS_SEQUENCES
                                                         : most(planned, 1);
    return (struct engine_need){.longest = longest,
                                .longest_targets = most(j->train.longest_targets, j->eval.longest_targets),
                                .micro_batch = (int)(micro < s->batch_size ? micro : s->batch_size),
                                .train = true,
                                .adapters = true};
}

static int job_run(struct job *j, const struct options *o)
{
    const struct settings *s = j->settings;
    uint64_t hash[2];
    TRY(comm_agree(j->engine.comm, dataset_take(&s->data, DATASET_TEXT | DATASET_COMPLETION, make_examples, j, hash)));
    TRY(comm_same_input(j->engine.comm, hash, sizeof hash, "the data of data.path or data.eval_path"));
    j->lm = (struct causal_lm){.engine = &j->engine,
                               .timing = &j->run.timing,
                               .example = example,
                               .source = j,
                               .micro_batch_size = s->sft.micro_batch_size};
    struct supervised_task task = causal_lm_task(&j->lm);
    task.n_train = j->train.n;
    task.n_eval = j->eval.n;
    task.batch_size = s->sft.batch_size;
    task.n_samples = n_samples(j);
    supervised_init(&j->loop, &task, &j->engine, &j->run);
    const struct engine_need need = need_of(j);
    TRY(supervised_plan(&j->loop, &need));
    show_data(j);
    if (o->plan)
        return 0;
    TRY(supervised_run(&j->loop, o->resume));
    return supervised_finish(&j->loop);
}

int task_sft(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job *j = calloc(1, sizeof *j);
    CHECK(j, "out of memory");
    j->settings = s;
    int rc = run_open(&j->run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = engine_open(&j->engine, s, comm, o->plan);
    if (!rc)
        rc = job_run(j, o);
    supervised_free(&j->loop);
    sft_examples_free(&j->train);
    sft_examples_free(&j->eval);
    engine_close(&j->engine);
    run_close(&j->run);
    free(j);
    return rc;
}
