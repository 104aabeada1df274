/* task = "evaluate": log-probabilities and perplexity of texts, and their scores where there is a reward; or responses of the
 * policy to prompts, their scores and their KL to the reference. Objects in input order go to evaluate.jsonl, totals to
 * evaluate.json; both are the same on any number of ranks. */
#include "actor.h"
#include "banner.h"
#include "conversation.h"
#include "engine.h"
#include "error.h"
#include "evaluation.h"
#include "file.h"
#include "fmath.h"
#include "jsonl.h"
#include "log.h"
#include "records.h"
#include "run.h"
#include "samples.h"
#include "stats.h"
#include "task.h"

#include <math.h>
#include <stdlib.h>

struct job {
    struct engine engine;
    struct run run;
    struct dataset data;
    uint64_t hash; /* of the data */
    struct prompt_list items; /* its texts or prompts */
    bool responses;
    struct rollout rollout; /* its reward is NULL where texts are not scored */
    struct text lines, totals;
};

/* ---- files ---- */

/* Appends a packed object as one line and drops it. */
static void add_line(struct text *out, json_t *object)
{
    jsonl_add(out, object, 0);
    json_decref(object);
}

static int write_files(struct job *j)
{
    char *path = run_path(&j->run, "evaluate.jsonl"), *total_path = run_path(&j->run, "evaluate.json");
    int rc = file_write_atomic(path, j->lines.bytes, j->lines.n);
    if (!rc)
        rc = file_write_atomic(total_path, j->totals.bytes, j->totals.n);
    if (!rc)
        log_line("wrote %s and %s", path, total_path);
    free(path);
    free(total_path);
    return rc;
}

/* ---- texts ---- */

static int load_texts(struct job *j)
{
    const struct engine *e = &j->engine;
    const struct settings *s = e->settings;
    const int room = engine_context(e);
    TRY(dataset_load(&j->data, &s->data, DATASET_TEXT));
    TRY(conversation_render(&j->data, s, CONVERSATION_TEXTS));
    j->hash = dataset_hash(&j->data);
    TRY(prompts_encode_texts(&j->items, &j->data, e->tokenizer, &s->data, room, e->folder.arch.vocab));
    if (j->items.n_cut)
        log_warn("%lld texts are longer than the context of %d tokens and were cut", (long long)j->items.n_cut, room);
    return 0;
}

/* This rank's texts: every size-th of all. */
static int64_t share_of(const struct job *j)
{
    const int64_t rank = comm_rank(j->engine.comm), size = comm_size(j->engine.comm);
    return (j->items.n - rank + size - 1) / size;
}

/* Scores of this rank's n texts as they stand in the file, as responses to nothing; rows of token numbers are decoded. */
static int score_share(struct job *j, int64_t n, double *score)
{
    const int64_t rank = comm_rank(j->engine.comm), size = comm_size(j->engine.comm);
    struct reward_text *texts = calloc((size_t)n + 1, sizeof *texts);
    struct text *decoded = calloc((size_t)n + 1, sizeof *decoded);
    double *parts = calloc((size_t)n * (size_t)reward_n_parts(j->rollout.reward) + 1, sizeof *parts);
    CHECK(texts && decoded && parts, "out of memory");
    int rc = 0;
    for (int64_t k = 0; !rc && k < n; k++) {
        const int64_t i = rank + k * size;
        const struct dataset_row *row = &j->data.row[i];
        const struct token_list *t = &j->items.prompt[i];
        const bool tokens = row->input_ids || !row->text;
        if (tokens)
            rc = tokenizer_decode(j->engine.tokenizer, &decoded[k], t->ids, t->n, true);
        texts[k] = (struct reward_text){.index = i,
                                        .prompt = "",
                                        .response = tokens ? text_string(&decoded[k]) : row->text,
                                        .response_bytes = tokens ? decoded[k].n : row->n_text,
                                        .ids = t->ids,
                                        .n_ids = (int)t->n};
    }
    if (!rc)
        rc = reward_score(j->rollout.reward, texts, n, score, parts);
    for (int64_t k = 0; k < n; k++)
        text_free(&decoded[k]);
    free(texts);
    free(decoded);
    free(parts);
    return rc;
}

/* A record: the score, then the log-probabilities. */
static int evaluate_share(struct job *j, struct record_list *mine, const double *score)
{
    struct engine *e = &j->engine;
    struct model_pass pass = {.adapter = e->settings->model.adapter[0] ? 0 : -1};
    for (int64_t i = comm_rank(e->comm); i < j->items.n; i += comm_size(e->comm)) {
        const struct token_list *t = &j->items.prompt[i];
        double *record = records_extend(mine, i, sizeof *record + (size_t)(t->n - 1) * sizeof(float));
        struct sequence s = {.sample = i, .ids = t->ids, .n = (int)t->n, .first = 1, .logprob = (float *)(record + 1)};
        *record = *score++;
        if (t->n > 1)
            TRY(sequences_evaluate(&e->micro_batch, &s, 1, &pass, 1.0f));
    }
    return 0;
}

static double format_text(struct text *out, const struct token_list *t, const float *logprob, const double *score)
{
    double nll = 0;
    text_add_string(out, "{\"ids\": [");
    for (int64_t i = 0; i < t->n; i++)
        text_format(out, i ? ", %d" : "%d", t->ids[i]);
    text_add_string(out, "], \"logprobs\": [");
    for (int64_t i = 0; i + 1 < t->n; i++) {
        text_format(out, i ? ", %.9g" : "%.9g", (double)logprob[i]);
        nll -= logprob[i];
    }
    text_format(out, "], \"perplexity\": %.9g", t->n > 1 ? math_exp(nll / (double)(t->n - 1)) : 1.0);
    if (score)
        text_format(out, ", \"score\": %.17g", *score);
    text_add_string(out, "}\n");
    return nll;
}

static void format_texts(struct job *j, const struct record_list *all)
{
    const int64_t n = j->items.n;
    const bool scored = j->rollout.reward != NULL;
    double *score = malloc((size_t)n * sizeof *score), nll = 0;
    int64_t targets = 0;
    CHECK(score, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        const double *record = records_bytes(all, i);
        score[i] = *record;
        nll += format_text(&j->lines, &j->items.prompt[i], (const float *)(record + 1), scored ? record : NULL);
        targets += j->items.prompt[i].n - 1;
    }
    const double mean = targets ? nll / (double)targets : 0, perplexity = math_exp(mean);
    text_format(&j->totals, "{\"texts\": %lld, \"tokens\": %lld, \"nll\": %.9g, \"perplexity\": %.9g", (long long)n,
                (long long)targets, mean, perplexity);
    log_line("%lld texts, %lld targets: %.6f nats a token, perplexity %.4f", (long long)n, (long long)targets, mean, perplexity);
    if (scored) {
        const double average = stats_mean(score, n), std = sqrt(stats_variance(score, n)), error = std / sqrt((double)n);
        text_format(&j->totals, ", \"score\": %.17g, \"score_std\": %.17g, \"score_stderr\": %.17g", average, std, error);
        log_line("score %.4f +- %.4f", average, error);
    }
    text_add_string(&j->totals, "}\n");
    free(score);
}

static int evaluate_texts(struct job *j)
{
    struct comm *comm = j->engine.comm;
    struct record_list mine = {0}, all = {0};
    const int64_t n = share_of(j);
    double *score = calloc((size_t)n + 1, sizeof *score); /* 0 without rewards */
    CHECK(score, "out of memory");
    int rc = j->rollout.reward ? score_share(j, n, score) : 0;
    if (!rc)
        rc = evaluate_share(j, &mine, score);
    free(score);
    rc = comm_agree(comm, rc);
    if (!rc) {
        comm_gather_records(comm, &all, &mine);
        format_texts(j, &all);
    }
    records_free(&mine);
    records_free(&all);
    return rc;
}

/* ---- responses ---- */

static int load_prompts(struct job *j)
{
    struct dataset data = {0};
    int rc = dataset_load(&data, &j->engine.settings->data, 0);
    if (!rc)
        rc = conversation_render(&data, j->engine.settings, CONVERSATION_PROMPTS);
    if (!rc)
        rc = actor_encode(&j->items, &j->engine, &data);
    j->hash = dataset_hash(&data);
    dataset_free(&data);
    return rc;
}

static int evaluate_responses(struct job *j)
{
    struct sample_list samples = {0};
    struct evaluation e;
    int rc = evaluation_run(&e, &samples, &j->rollout, &j->items, 0, j->engine.settings->generate.temperature);
    for (int64_t i = 0; !rc && i < samples.n; i++) {
        const struct sample *s = &samples.sample[i];
        const struct text *prompt = &s->prompt_text, *response = &s->response_text;
        add_line(&j->lines, json_pack("{s:s%, s:s%, s:o, s:o, s:o}", "prompt", text_string(prompt), prompt->n, "response",
                                      text_string(response), response->n, "score", jsonl_number(s->raw_score), "scores",
                                      samples_parts(&j->rollout, s), "kl",
                                      jsonl_number(evaluation_kl(s))));
    }
    if (!rc) {
        const double distinct = evaluation_distinct_2(&samples);
        add_line(&j->totals,
                 json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "prompts", (json_int_t)e.n, "score", jsonl_number(e.score),
                           "score_std", jsonl_number(e.score_std), "score_stderr", jsonl_number(e.score_stderr), "kl",
                           jsonl_number(e.kl), "response_length", jsonl_number(e.response_length), "distinct_2",
                           jsonl_number(distinct)));
        log_line("%lld prompts: score %.4f +- %.4f  kl %.4f  length %.1f  distinct-2 %.4f", (long long)e.n, e.score,
                 e.score_stderr, e.kl, e.response_length, distinct);
    }
    sample_list_free(&samples);
    return rc;
}

/* ---- the task ---- */

static void layout(void *job, struct arena *a)
{
    struct job *j = job;
    if (j->responses)
        rollout_layout(&j->rollout, a);
    else if (j->rollout.reward)
        reward_layout(j->rollout.reward, a);
}

static struct engine_need need_of(struct job *j)
{
    const struct rollout_shape *shape = &j->rollout.shape;
    const struct settings *s = j->engine.settings;
    const int size = comm_size(j->engine.comm), micro = (int)s->evaluate.micro_batch_size;
    const int64_t share = (j->items.n + size - 1) / size, slots = s->generate.slots;
    struct engine_need need = {.longest = (int)j->items.longest,
                               .longest_targets = (int)j->items.longest,
                               .micro_batch = micro > 0 ? micro : 4,
                               .layout = layout,
                               .context = j};
    if (j->responses) {
        need.longest_targets = shape->n_response;
        need.longest = shape->n_prompt + shape->n_response;
        need.slots = (int)(slots > 0 ? slots : share < 32 ? share : 32);
    }
    return need;
}

static int evaluate(struct job *j, const struct options *o)
{
    struct engine *e = &j->engine;
    const struct settings *s = e->settings;
    j->responses = s->evaluate.what == EVALUATE_CHOICE_RESPONSES ||
                   (s->evaluate.what == EVALUATE_CHOICE_AUTO && s->n_rewards > 0);
    TRY(comm_agree(e->comm, j->responses ? load_prompts(j) : load_texts(j)));
    TRY(comm_same_input(e->comm, &j->hash, sizeof j->hash, "the data of data.path"));
    actor_rollout(&j->rollout, e, &j->run.timing);
    j->rollout.shape = (struct rollout_shape){j->items.n, actor_longest(e, &j->items), actor_new_tokens(e)};
    if (s->n_rewards)
        TRY(actor_open_rewards(&j->rollout.reward, e, 0, NULL));
    struct engine_need need = need_of(j);
    int rc = j->rollout.reward ? reward_need(j->rollout.reward, &need) : 0;
    TRY(comm_agree(e->comm, rc ? rc : engine_plan(e, &need)));
    if (o->plan) {
        engine_print_plan(e);
        return 0;
    }
    TRY(engine_load(e));
    TRY(actor_load_rewards(j->rollout.reward, e));
    banner_print(e);
    if (j->responses)
        banner_prompts(e->tokenizer, &j->items);
    timing_begin(&j->run.timing, PHASE_EVALUATE);
    rc = j->responses ? evaluate_responses(j) : evaluate_texts(j);
    timing_end(&j->run.timing, 0);
    TRY(rc);
    return comm_agree(e->comm, comm_rank(e->comm) == 0 ? write_files(j) : 0);
}

int task_evaluate(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job j = {0};
    int rc = run_open(&j.run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = engine_open(&j.engine, s, comm, o->plan);
    if (!rc)
        rc = evaluate(&j, o);
    text_free(&j.lines);
    text_free(&j.totals);
    reward_close(j.rollout.reward);
    rollout_free(&j.rollout);
    prompts_free(&j.items);
    dataset_free(&j.data);
    engine_close(&j.engine);
    run_close(&j.run);
    return rc;
}
