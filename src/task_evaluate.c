/* task = "evaluate": log-probabilities and perplexity of texts. Each rank takes every size-th text; results are gathered. */
#include "engine.h"
#include "error.h"
#include "file.h"
#include "fmath.h"
#include "log.h"
#include "prompts.h"
#include "records.h"
#include "run.h"
#include "task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int evaluate_share(struct engine *e, const struct prompt_list *texts, struct record_list *mine)
{
    int size = comm_size(e->comm);
    for (int64_t i = comm_rank(e->comm); i < texts->n; i += size) {
        const struct token_list *t = &texts->prompt[i];
        float *logprob = records_extend(mine, i, (size_t)(t->n - 1) * sizeof *logprob);
        struct sequence s = {.sample = i, .ids = t->ids, .n = (int)t->n, .first = 1, .logprob = logprob};
        struct model_pass pass = {.adapter = e->settings->model.adapter[0] ? 0 : -1};
        if (t->n > 1)
            TRY(sequences_evaluate(&e->micro_batch, &s, 1, &pass, 1.0f));
    }
    return 0;
}

static void format_text(struct text *out, const struct token_list *t, const float *logprob, double *nll)
{
    text_add_string(out, "{\"ids\": [");
    for (int64_t i = 0; i < t->n; i++)
        text_format(out, i ? ", %d" : "%d", t->ids[i]);
    text_add_string(out, "], \"logprobs\": [");
    double sum = 0;
    for (int64_t i = 0; i + 1 < t->n; i++) {
        text_format(out, i ? ", %.9g" : "%.9g", (double)logprob[i]);
        sum -= logprob[i];
    }
    text_format(out, "], \"perplexity\": %.9g}\n", t->n > 1 ? math_exp(sum / (double)(t->n - 1)) : 1.0);
    *nll += sum;
}

static int write_results(struct run *run, const struct prompt_list *texts, const struct record_list *all)
{
    struct text lines = {0}, totals = {0};
    double nll = 0;
    int64_t targets = 0;
    for (int64_t i = 0; i < texts->n; i++) {
        format_text(&lines, &texts->prompt[i], records_bytes(all, i), &nll);
        targets += texts->prompt[i].n - 1;
    }
    double perplexity = targets ? math_exp(nll / (double)targets) : 1;
    text_format(&totals, "{\"texts\": %lld, \"tokens\": %lld, \"nll\": %.9g, \"perplexity\": %.9g}\n", (long long)texts->n,
                (long long)targets, targets ? nll / (double)targets : 0, perplexity);
    char *path = run_path(run, "evaluate.jsonl"), *total_path = run_path(run, "evaluate.json");
    int rc = file_write_atomic(path, lines.bytes, lines.n);
    if (!rc)
        rc = file_write_atomic(total_path, totals.bytes, totals.n);
    if (!rc)
        log_line("%lld texts, %lld targets: %.6f nats a token, perplexity %.4f; wrote %s", (long long)texts->n,
                 (long long)targets, targets ? nll / (double)targets : 0, perplexity, path);
    free(path);
    free(total_path);
    text_free(&lines);
    text_free(&totals);
    return rc;
}

static int load_texts(struct prompt_list *texts, const struct engine *e)
{
    const struct settings *s = e->settings;
    struct dataset data = {0};
    int rc = dataset_load(&data, &s->data, DATASET_TEXT);
    if (!rc)
        rc = prompts_encode(texts, &data, e->tokenizer, s->data.add_special_tokens, engine_context(e), e->folder.arch.vocab);
    if (!rc && texts->n_cut)
        log_warn("%lld texts are longer than the context of %d tokens and were cut", (long long)texts->n_cut, engine_context(e));
    dataset_free(&data);
    return rc;
}

static int evaluate(struct engine *e, struct run *run, const struct options *o, struct prompt_list *texts)
{
    TRY(comm_agree(e->comm, load_texts(texts, e)));
    struct engine_need need = {.longest = (int)texts->longest, .longest_targets = (int)texts->longest, .micro_batch = 4};
    TRY(comm_agree(e->comm, engine_plan(e, &need)));
    if (o->plan) {
        engine_print_plan(e);
        return 0;
    }
    TRY(engine_load(e));
    struct record_list mine = {0}, all = {0};
    timing_begin(&run->timing, PHASE_EVALUATE);
    int rc = comm_agree(e->comm, evaluate_share(e, texts, &mine));
    timing_end(&run->timing, 0);
    if (!rc) {
        comm_gather_records(e->comm, &all, &mine);
        rc = comm_agree(e->comm, comm_rank(e->comm) == 0 ? write_results(run, texts, &all) : 0);
    }
    records_free(&mine);
    records_free(&all);
    return rc;
}

int task_evaluate(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct engine e;
    struct run run;
    struct prompt_list texts = {0};
    int rc = run_open(&run, s, comm, o->resume);
    if (!rc) {
        rc = engine_open(&e, s, comm);
        if (!rc)
            rc = evaluate(&e, &run, o, &texts);
        prompts_free(&texts);
        engine_close(&e);
    }
    run_close(&run);
    return rc;
}
