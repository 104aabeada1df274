/* task = "pretrain": all weights of a small model, from text. The texts become one stream of tokens with an end token after
 * each; a sample is a window of it. Gradients are exact sums as in PPO, so ranks change nothing here either. */
#include "banner.h"
#include "bpe_train.h"
#include "engine.h"
#include "error.h"
#include "file.h"
#include "log.h"
#include "metrics.h"
#include "optimizer.h"
#include "prompts.h"
#include "records.h"
#include "run.h"
#include "schedule.h"
#include "state.h"
#include "step_file.h"
#include "task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pretrain {
    const struct settings *settings;
    struct comm *comm;
    struct engine *engine;
    struct run *run;
    struct optimizer optimizer;
    const struct schedule *schedule;
    struct step_file metrics;
    struct token_list stream;
    int block;
    int64_t total_steps;
};

/* A byte-level BPE tokenizer of the texts, written to path, with <|endoftext|> as its id 0. */
static int train_tokenizer(const struct settings *s, const char *path, int vocab_size)
{
    struct dataset data = {0};
    int rc = dataset_load(&data, &s->data, DATASET_TEXT);
    if (!rc) {
        const char **texts = calloc((size_t)data.n, sizeof *texts);
        size_t *lengths = calloc((size_t)data.n, sizeof *lengths);
        CHECK(texts && lengths, "out of memory");
        for (int64_t i = 0; i < data.n; i++) {
            texts[i] = data.row[i].text ? data.row[i].text : "";
            lengths[i] = data.row[i].n_text;
        }
        rc = bpe_train(path, texts, lengths, data.n, vocab_size, (const char *const[]){"<|endoftext|>"}, 1);
        free(texts);
        free(lengths);
    }
    dataset_free(&data);
    return rc;
}

/* The tokenizer to use: pretrain.tokenizer, the one beside config.json, or one trained here. The caller frees. */
static int find_tokenizer(const struct settings *s, struct run *run, char **path)
{
    char *beside = file_join(s->model.path, "tokenizer.json");
    int rc = 0;
    if (s->pretrain.tokenizer[0]) {
        *path = strdup(s->pretrain.tokenizer);
    } else if (file_exists(beside)) {
        *path = strdup(s->model.path);
    } else {
        struct arch arch;
        *path = run_path(run, "tokenizer.json");
        rc = arch_read(&arch, s->model.path, ARCH_LANGUAGE_MODEL);
        int vocab = s->pretrain.vocab_size > 0 ? (int)s->pretrain.vocab_size : arch.vocab;
        if (!rc && comm_rank(run->comm) == 0)
            rc = train_tokenizer(s, *path, vocab);
    }
    free(beside);
    return comm_agree(run->comm, rc);
}

static int load_stream(struct pretrain *p)
{
    const struct settings *s = p->settings;
    struct dataset data = {0};
    struct prompt_list texts = {0};
    int end = p->engine->folder.arch.n_eos ? p->engine->folder.arch.eos[0] : -1;
    int rc = dataset_load(&data, &s->data, DATASET_TEXT);
    if (!rc)
        rc = prompts_encode_texts(&texts, &data, p->engine->tokenizer, s->data.add_special_tokens, 0,
                                  p->engine->folder.arch.vocab);
    for (int64_t i = 0; !rc && i < texts.n; i++) {
        if (end >= 0)
            token_list_add(&p->stream, end);
        for (int64_t t = 0; t < texts.prompt[i].n; t++)
            token_list_add(&p->stream, texts.prompt[i].ids[t]);
    }
    if (!rc && end >= 0)
        token_list_add(&p->stream, end);
    if (!rc && p->stream.n <= p->block)
        rc = error_set(ERR_FILE, "%s: %lld tokens are not more than pretrain.block_size = %d", data.path, (long long)p->stream.n,
                       p->block);
    prompts_free(&texts);
    dataset_free(&data);
    return rc;
}

/* This rank's windows of the step: forward, backward. nll[i]: of window i, in records keyed by i. */
static int train_share(struct pretrain *p, int64_t step, struct record_list *mine)
{
    const struct settings_pretrain *s = &p->settings->pretrain;
    struct micro_batch *mb = &p->engine->micro_batch;
    struct rng_key key = rng_key((uint64_t)p->settings->run.seed, RNG_ORDER, 2, 0);
    int targets = p->block - 1, size = comm_size(p->comm), most = p->engine->shape.batch_seqs;
    float *logprob = malloc((size_t)most * (size_t)targets * sizeof *logprob);
    float *derivative = malloc((size_t)targets * sizeof *derivative);
    struct sequence *seq = calloc((size_t)most, sizeof *seq);
    CHECK(logprob && derivative && seq, "out of memory");
    for (int t = 0; t < targets; t++)
        derivative[t] = (float)(-1.0 / ((double)s->batch_size * targets));
    struct model_pass pass = {.adapter = -1, .keep = true};
    int rc = 0;
    for (int64_t i = comm_rank(p->comm); !rc && i < s->batch_size;) {
        int n = 0;
        for (; n < most && i < s->batch_size; n++, i += size) {
            int64_t window = step * s->batch_size + i;
            int64_t at = rng_range(rng_word(key, 0, (uint64_t)window, 0, 0), 0, p->stream.n - p->block + 1);
            seq[n] = (struct sequence){.sample = window, .ids = p->stream.ids + at, .n = p->block, .first = 1,
                                       .logprob = logprob + (int64_t)n * targets, .dlogprob = derivative};
        }
        timing_begin(&p->run->timing, PHASE_FORWARD);
        rc = micro_batch_forward(mb, seq, n, &pass, 1.0f);
        timing_end(&p->run->timing, (int64_t)n * p->block);
        timing_begin(&p->run->timing, PHASE_BACKWARD);
        if (!rc)
            rc = micro_batch_backward(mb, seq, n, &pass, 1.0f);
        timing_end(&p->run->timing, (int64_t)n * p->block);
        for (int k = 0; k < n; k++) {
            double nll = 0;
            for (int t = 0; t < targets; t++)
                nll -= seq[k].logprob[t];
            records_add(mine, seq[k].sample, &nll, sizeof nll);
        }
    }
    free(seq);
    free(derivative);
    free(logprob);
    return rc;
}

static double learning_rate(const struct pretrain *p, int64_t step)
{
    const struct settings_optim *s = &p->settings->optim;
    return schedule_rate(p->schedule, s->learning_rate, step, s->warmup_steps, p->total_steps);
}

static int train_step(struct pretrain *p, int64_t step, double *loss, double *norm)
{
    struct model *m = &p->engine->model;
    const struct settings *s = p->settings;
    struct record_list mine = {0}, all = {0};
    gradient_begin(m, s->pretrain.batch_size);
    int rc = train_share(p, step, &mine);
    timing_begin(&p->run->timing, PHASE_REDUCE); /* waiting for the slowest rank is part of it */
    rc = comm_agree(p->comm, rc);
    if (!rc) {
        gradient_sum_start(&p->engine->gradient);
        comm_gather_records(p->comm, &all, &mine);
        gradient_sum_finish(&p->engine->gradient);
        timing_add_bytes(&p->run->timing, m->trainable.n * (int64_t)sizeof(int64_t));
    }
    *loss = 0;
    for (int64_t i = 0; i < all.n; i++)
        *loss += *(const double *)records_bytes(&all, i);
    *loss /= (double)all.n * (p->block - 1);
    records_free(&mine);
    records_free(&all);
    timing_end(&p->run->timing, 0);
    TRY(rc);
    if (gradient_overflow(&p->engine->gradient) || !isfinite(*loss))
        return error_set(ERR_RUN, "step %lld: the loss or a gradient is not finite or too large: lower optim.learning_rate",
                         (long long)step + 1);
    timing_begin(&p->run->timing, PHASE_OPTIMIZE);
    optimizer_update(&p->optimizer, m, learning_rate(p, step), norm);
    timing_end(&p->run->timing, 0);
    return comm_hash_equal(p->comm, m->be->ops->hash(m->be, m->trainable.value, (size_t)m->trainable.n * sizeof(float)),
                           "the weights");
}

/* The model as a Hugging Face folder in 16 bits, with its tokenizer. */
static int write_folder(struct pretrain *p, const char *tokenizer)
{
    struct model *m = &p->engine->model;
    struct arch_tensor *names;
    struct safetensors_out *list = hf_folder_list(m->arch, DTYPE_F16, &names);
    float *host = malloc((size_t)m->trainable.n * sizeof *host);
    uint16_t *half = malloc((size_t)m->trainable.n * sizeof *half);
    CHECK(host && half, "out of memory");
    m->be->ops->copy_out(m->be, host, m->trainable.value, (size_t)m->trainable.n * sizeof *host);
    for (int64_t i = 0; i < m->trainable.n; i++)
        half[i] = half_from_float(host[i]);
    for (int i = 0; i < arch_tensors(m->arch); i++)
        list[i].data = half + trainable_find(&m->trainable, names[i].name)->offset;
    char *folder = run_path(p->run, "model"), *to = file_join(folder, "tokenizer.json");
    int rc = hf_folder_write(folder, m->arch, list, arch_tensors(m->arch), NULL);
    char *from = file_is_folder(tokenizer) ? file_join(tokenizer, "tokenizer.json") : strdup(tokenizer);
    if (!rc)
        rc = file_copy(to, from);
    if (!rc)
        log_line("wrote %s", folder);
    free(from);
    free(to);
    free(folder);
    free(half);
    free(host);
    free(names);
    free(list);
    return rc;
}

static struct state state_of(struct pretrain *p)
{
    return (struct state){.settings = p->settings, .comm = p->comm, .model = &p->engine->model, .optimizer = &p->optimizer,
                          .timing = &p->run->timing};
}

static int save(struct pretrain *p, int64_t step)
{
    struct state s = state_of(p);
    return state_write(&s, step);
}

/* *first: the step to begin with. */
static int resume_or_begin(struct pretrain *p, const struct options *o, int64_t *first)
{
    struct state s = state_of(p);
    if (o->resume)
        TRY(state_read(&s, first));
    char *path = run_path(p->run, "metrics.jsonl");
    int rc = comm_agree(p->comm, step_file_open(&p->metrics, path, *first, comm_rank(p->comm) == 0));
    free(path);
    return rc;
}

static int describe_step(struct pretrain *p, int64_t step, double loss, double norm)
{
    struct metrics m = {0};
    int64_t tokens = p->settings->pretrain.batch_size * p->block;
    double sec = timing_step_end(&p->run->timing, tokens), tokens_per_sec = (double)tokens / sec;
    metrics_set(&m, "step", (double)(step + 1));
    metrics_set(&m, "loss", loss);
    metrics_set(&m, "grad_norm", norm);
    metrics_set(&m, "lr", learning_rate(p, step));
    metrics_set(&m, "time/total", sec);
    metrics_set(&m, "perf/tokens_per_sec", tokens_per_sec);
    if ((step + 1) % 50 == 0 || step + 1 == p->total_steps)
        log_line("step %lld/%lld  loss %.4f  grad %.3f  %.0f tok/s  eta %.0f s", (long long)step + 1, (long long)p->total_steps,
                 loss, norm, tokens_per_sec, timing_left(&p->run->timing, p->total_steps - step - 1));
    return comm_agree(p->comm, metrics_write_line(&p->metrics, &m));
}

static int steps(struct pretrain *p, int64_t first)
{
    int64_t saved = first, every = p->settings->run.save_steps;
    for (int64_t step = first; step < p->total_steps; step++) {
        double loss, norm;
        const char *why = run_should_stop(p->run, step);
        if (why) {
            if (saved != step)
                TRY(save(p, step));
            return run_stopped(step, why);
        }
        timing_step_begin(&p->run->timing);
        TRY(train_step(p, step, &loss, &norm));
        TRY(describe_step(p, step, loss, norm));
        if (every > 0 && (step + 1) % every == 0) {
            TRY(save(p, step + 1));
            saved = step + 1;
        }
    }
    return saved == p->total_steps ? 0 : save(p, p->total_steps);
}

static int pretrain(struct pretrain *p, const struct options *o, const char *tokenizer)
{
    const struct settings *s = p->settings;
    struct engine *e = p->engine;
    p->block = s->pretrain.block_size > 0 && s->pretrain.block_size < engine_context(e) ? (int)s->pretrain.block_size
                                                                                        : engine_context(e);
    TRY(comm_agree(p->comm, load_stream(p)));
    struct engine_need need = {.longest = p->block, .longest_targets = p->block - 1, .train = true, .all_weights = true,
                               .micro_batch = s->pretrain.micro_batch_size > 0 ? (int)s->pretrain.micro_batch_size : 4};
    TRY(comm_agree(p->comm, engine_plan(e, &need)));
    banner_print(e);
    log_line("%lld tokens of text", (long long)p->stream.n);
    if (o->plan)
        return 0;
    TRY(run_write_settings(p->run));
    timing_begin(&p->run->timing, PHASE_LOAD);
    int rc = engine_load(e);
    timing_end(&p->run->timing, 0);
    TRY(rc);
    p->schedule = schedule_find(settings_scheduler_names[s->optim.lr_scheduler_type]);
    p->optimizer = (struct optimizer){.beta1 = s->optim.adam_beta1, .beta2 = s->optim.adam_beta2, .epsilon = s->optim.adam_epsilon,
                                      .weight_decay = s->optim.weight_decay,
                                      .max_grad_norm = s->optim.max_grad_norm.set ? s->optim.max_grad_norm.value : 0};
    int64_t tokens = s->pretrain.batch_size * p->block, first = 0;
    p->total_steps = s->run.max_steps > 0 ? s->run.max_steps : (p->stream.n + tokens - 1) / tokens;
    e->model.progress = &p->run->progress;
    TRY(resume_or_begin(p, o, &first));
    TRY(run_watch(p->run));
    TRY(steps(p, first));
    TRY(comm_agree(p->comm, comm_rank(p->comm) == 0 ? write_folder(p, tokenizer) : 0));
    return run_report(p->run, p->engine);
}

int task_pretrain(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct settings own = *s; /* borrows all but the tokenizer's path */
    struct engine e = {0};
    struct run run;
    struct pretrain p = {.settings = &own, .comm = comm, .engine = &e, .run = &run};
    char *tokenizer = NULL;
    int rc = run_open(&run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = find_tokenizer(s, &run, &tokenizer);
    if (!rc) {
        own.pretrain.tokenizer = tokenizer;
        if (own.run.device == DEVICE_CHOICE_AUTO)
            own.run.device = DEVICE_CHOICE_CPU; /* the one backend that trains all weights */
        rc = engine_open(&e, &own, comm, o->plan);
    }
    if (!rc)
        rc = pretrain(&p, o, tokenizer);
    step_file_close(&p.metrics);
    token_list_free(&p.stream);
    engine_close(&e);
    run_close(&run);
    free(tokenizer);
    return rc;
}
