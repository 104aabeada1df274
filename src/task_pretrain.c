/* task = "pretrain": all weights of a small model, from text. The texts become one stream of tokens with an end token after
 * each; a sample is a window of it. Gradients are exact sums as in PPO, so ranks change nothing here either. */
#include "bpe_train.h"
#include "causal_lm.h"
#include "conversation.h"
#include "error.h"
#include "file.h"
#include "log.h"
#include "prompts.h"
#include "rng.h"
#include "supervised.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>

struct pretrain {
    const struct settings *settings;
    struct comm *comm;
    struct engine *engine;
    struct run *run;
    struct token_list stream;
    int block;
    struct causal_lm lm;
    struct supervised loop;
};

/* A byte-level BPE tokenizer of the texts, written to path, with <|endoftext|> as its id 0. */
static int train_tokenizer(const struct settings *s, const char *path, int vocab_size)
{
    struct dataset data = {0};
    int rc = dataset_load(&data, &s->data, DATASET_TEXT);
    if (!rc)
        rc = conversation_render(&data, s, CONVERSATION_TEXTS);
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

static int load_stream(struct pretrain *p, uint64_t *hash)
{
    const struct settings *s = p->settings;
    struct dataset data = {0};
    struct prompt_list texts = {0};
    int end = p->engine->folder.arch.n_eos ? p->engine->folder.arch.eos[0] : -1;
    int rc = dataset_load(&data, &s->data, DATASET_TEXT);
    if (!rc)
        rc = conversation_render(&data, s, CONVERSATION_TEXTS);
    if (!rc)
        rc = prompts_encode_texts(&texts, &data, p->engine->tokenizer, &s->data, 0,
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
    *hash = dataset_hash(&data);
    prompts_free(&texts);
    dataset_free(&data);
    return rc;
}

/* Sample number `index` of the run: a window that begins anywhere in the stream. */
static struct causal_lm_example window(const void *pretrain, int64_t index, bool train)
{
    (void)train; /* there is no other split */
    const struct pretrain *p = pretrain;
    struct rng_key key = rng_key((uint64_t)p->settings->run.seed, RNG_ORDER, 2, 0);
    int64_t at = rng_range(rng_word(key, 0, (uint64_t)index, 0, 0), 0, p->stream.n - p->block + 1);
    return (struct causal_lm_example){p->stream.ids + at, p->block, 1};
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

static int pretrain(struct pretrain *p, const struct options *o, const char *tokenizer)
{
    const struct settings *s = p->settings;
    struct engine *e = p->engine;
    p->block = s->pretrain.block_size > 0 && s->pretrain.block_size < engine_context(e) ? (int)s->pretrain.block_size
                                                                                        : engine_context(e);
    uint64_t hash;
    TRY(comm_agree(p->comm, load_stream(p, &hash)));
    TRY(comm_same_input(p->comm, &hash, sizeof hash, "the data of data.path"));
    const int64_t tokens = s->pretrain.batch_size * p->block, one_pass = (p->stream.n + tokens - 1) / tokens;
    struct supervised_task task = causal_lm_task(&p->lm);
    task.batch_size = s->pretrain.batch_size;
    task.n_samples = task.batch_size * (s->run.max_steps > 0 ? s->run.max_steps : one_pass);
    p->lm = (struct causal_lm){.engine = e, .timing = &p->run->timing, .example = window, .source = p};
    supervised_init(&p->loop, &task, e, p->run);
    struct engine_need need = {.longest = p->block, .longest_targets = p->block - 1, .train = true, .all_weights = true,
                               .micro_batch = s->pretrain.micro_batch_size > 0 ? (int)s->pretrain.micro_batch_size : 4};
    TRY(supervised_plan(&p->loop, &need));
    log_line("%lld tokens of text", (long long)p->stream.n);
    if (o->plan)
        return 0;
    TRY(supervised_run(&p->loop, o->resume));
    TRY(comm_agree(p->comm, comm_rank(p->comm) == 0 ? write_folder(p, tokenizer) : 0));
    return supervised_finish(&p->loop);
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
    supervised_free(&p.loop);
    token_list_free(&p.stream);
    engine_close(&e);
    run_close(&run);
    free(tokenizer);
    return rc;
}
