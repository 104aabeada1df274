/* task = "ppo": the main job. Reads as the run goes: files in, plan, weights, steps, adapter out. */
#include "actor.h"
#include "banner.h"
#include "best.h"
#include "conversation.h"
#include "engine.h"
#include "error.h"
#include "file.h"
#include "held_out.h"
#include "log.h"
#include "ppo.h"
#include "run.h"
#include "samples.h"
#include "state.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>

struct job {
    const struct settings *settings;
    struct comm *comm;
    struct engine engine;
    struct run run;
    struct reward *reward;
    struct ppo ppo;
    struct prompt_list prompts, eval_prompts; /* the latter of data.eval_path; n = 0 without */
    struct held_out held_out;
    struct best best;
    struct step_file metrics;
    struct event_file events;
    struct samples samples;
    int64_t total_steps;
};

static int take_prompts(void *job, struct dataset *data, bool eval)
{
    struct job *j = job;
    TRY(conversation_render(data, j->settings, CONVERSATION_PROMPTS));
    return actor_encode(eval ? &j->eval_prompts : &j->prompts, &j->engine, data);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Before the plan: what a step works in is part of it. */
static int make_ppo(struct job *j)
{
    const struct settings *s = j->settings;
    const struct engine *e = &j->engine;
    struct rollout r = {.prompts = j->prompts,
                        .shape = {.n_samples = larger(larger(s->ppo.batch_size, SAMPLES_N), j->eval_prompts.n),
                                  .n_prompt = (int)larger(actor_longest(e, &j->prompts), actor_longest(e, &j->eval_prompts)),
                                  .n_response = actor_new_tokens(e)}};
    j->total_steps = s->run.max_steps > 0 ? s->run.max_steps : j->prompts.n / s->ppo.batch_size;
    if (j->total_steps < 1)
        return error_set(ERR_INPUT, "%s has %lld prompts, fewer than ppo.batch_size = %lld: nothing to do in one pass "
                         "(set run.max_steps to go through them repeatedly)", s->data.path, (long long)j->prompts.n,
                         (long long)s->ppo.batch_size);
    actor_rollout(&r, &j->engine, &j->run.timing);
    ppo_init(&j->ppo, &r, &j->engine.gradient, j->total_steps);
    j->held_out = (struct held_out){.rollout = &j->ppo.rollout, .prompts = &j->eval_prompts};
    return 0;
}

static int open_rewards(struct job *j)
{
    struct sample_size size = rollout_sample_size(&j->ppo.rollout);
    size_t text_bytes = size.prompt_bytes > size.response_bytes ? size.prompt_bytes : size.response_bytes;
    TRY(actor_open_rewards(&j->reward, &j->engine, text_bytes, &j->run.progress));
    j->ppo.rollout.reward = j->reward;
    return 0;
}

static int make_plan(struct job *j)
{
    struct engine_need need;
    ppo_need(&j->ppo, &need);
    int rc = reward_need(j->reward, &need);
    return comm_agree(j->comm, rc ? rc : engine_plan(&j->engine, &need));
}

static void print_banner(struct job *j)
{
    const struct settings_generate *s = &j->settings->generate;
    banner_print(&j->engine);
    banner_prompts(j->engine.tokenizer, &j->prompts);
    if (s->top_k > 0 || s->top_p < 1 || s->min_new_tokens > 0)
        log_warn("generate.top_k, top_p and min_new_tokens sample from another distribution than the one that is scored: the KL "
                 "estimate is biased and may turn negative");
}

/* What the steps fill: after it they do not allocate. */
static void reserve(struct job *j)
{
    ppo_reserve(&j->ppo);
    if (j->settings->run.eval_steps > 0)
        held_out_reserve(&j->held_out);
}

static int start(struct job *j, const struct options *o)
{
    struct engine *e = &j->engine;
    uint64_t hash[2];
    TRY(comm_agree(j->comm, dataset_take(&j->settings->data, 0, take_prompts, j, hash)));
    TRY(comm_same_input(j->comm, hash, sizeof hash, "the data of data.path or data.eval_path"));
    TRY(make_ppo(j));
    TRY(open_rewards(j));
    TRY(make_plan(j));
    if (o->plan) {
        engine_print_plan(e);
        return 0;
    }
    timing_begin(&j->run.timing, PHASE_LOAD);
    int rc = engine_load(e);
    if (!rc)
        rc = actor_load_rewards(j->reward, e);
    timing_end(&j->run.timing, 0);
    TRY(rc);
    e->model.progress = &j->run.progress;
    reserve(j);
    print_banner(j);
    return 0;
}

/* One line: what the step brought, its time by phase, and the time left at the mean pace so far. */
static void log_step(struct job *j, const struct metrics *m, int64_t step)
{
    const double *sec = j->run.timing.step_sec;
    log_line("step %*lld/%lld  score %8.4f  kl %7.4f  loss %7.4f/%.4f  length %5.1f  %6.0f tok/s  %.2f s (gen %.2f rew %.2f "
             "logp %.2f train %.2f)  eta %.0f s",
             snprintf(NULL, 0, "%lld", (long long)j->total_steps), (long long)step + 1, (long long)j->total_steps,
             metrics_get(m, "objective/scores"), metrics_get(m, "objective/kl"), metrics_get(m, "loss/policy_avg"),
             metrics_get(m, "loss/value_avg"), metrics_get(m, "response_length/mean"), metrics_get(m, "perf/tokens_per_sec"),
             metrics_get(m, "time/total"), sec[PHASE_GENERATE], sec[PHASE_REWARD], sec[PHASE_LOGPROBS],
             sec[PHASE_FORWARD] + sec[PHASE_BACKWARD] + sec[PHASE_REDUCE] + sec[PHASE_OPTIMIZE],
             timing_left(&j->run.timing, j->total_steps - step - 1));
}

/* metrics.jsonl and the TensorBoard file; on ranks that have not opened them nothing. */
static int write_metrics(struct job *j, const struct metrics *m)
{
    TRY(metrics_write_line(&j->metrics, m));
    return metrics_write_event(&j->events, m);
}

static struct state state_of(struct job *j)
{
    return (struct state){.settings = j->settings, .comm = j->comm, .model = &j->engine.model, .optimizer = &j->ppo.optimizer,
                          .best = &j->best, .kl = &j->ppo.kl, .moments = &j->ppo.moments, .peft = &j->engine.peft,
                          .timing = &j->run.timing};
}

static int save(struct job *j, int64_t step)
{
    struct state s = state_of(j);
    return state_write(&s, step);
}

static bool is_due(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

/* Evaluations after `step` steps, where one is due; the adapter of the best is kept. */
static int evaluate(struct job *j, struct metrics *m, int64_t step)
{
    const struct settings_run *s = &j->settings->run;
    if (!is_due(s->eval_steps, step))
        return 0;
    TRY(held_out_run(&j->held_out, m));
    return best_consider(&j->best, metrics_get(m, "eval/score"), step, j->comm, &j->engine.model, &j->engine.peft, s->output_dir);
}

/* Responses that never end by themselves all run to their limit: a wrong end token, or a model that was not taught one. */
static void check_ends(const struct job *j, const struct metrics *m)
{
    if (!j->settings->generate.ignore_eos && metrics_get(m, "val/num_eos_tokens") == 0)
        log_warn("no response of the first step ends with an end token (eos_token_id of generation_config.json or config.json) or a "
                 "stop string: all run to generate.max_new_tokens; generate.ignore_eos = true where that is meant");
}

static int steps(struct job *j, int64_t first)
{
    const struct settings_run *s = &j->settings->run;
    int64_t saved = first;
    for (int64_t step = first; step < j->total_steps; step++) {
        struct metrics m = {0};
        const char *why = run_should_stop(&j->run, step);
        if (why) {
            if (saved != step)
                TRY(save(j, step));
            return run_stopped(step, why);
        }
        timing_step_begin(&j->run.timing);
        TRY(ppo_step(&j->ppo, &m, step));
        metrics_set_times(&m, &j->run.timing, sample_list_tokens(&j->ppo.samples));
        log_step(j, &m, step);
        if (step == 0)
            check_ends(j, &m);
        TRY(evaluate(j, &m, step + 1));
        TRY(comm_agree(j->comm, write_metrics(j, &m)));
        if (is_due(s->sample_steps, step + 1))
            TRY(samples_write(&j->samples, step + 1));
        if (is_due(s->save_steps, step + 1)) {
            TRY(save(j, step + 1));
            saved = step + 1;
        }
    }
    return saved >= j->total_steps ? 0 : save(j, j->total_steps);
}

/* Who trained: every sample of every epoch on one rank, however the samples were dealt. */
static void show_trained(struct job *j)
{
    int64_t all = j->ppo.n_trained;
    comm_sum_i64_start(j->comm, &all, 1);
    comm_sum_i64_finish(j->comm);
    log_line("trained on %lld samples, each on one rank; %lld of them on rank 0", (long long)all, (long long)j->ppo.n_trained);
}

/* metrics.jsonl and samples.jsonl, cut back to the step from which the run goes on; a new TensorBoard file. */
static int open_files(struct job *j, int64_t first)
{
    char *path = run_path(&j->run, "metrics.jsonl");
    int rc = comm_agree(j->comm, step_file_open(&j->metrics, path, first, comm_rank(j->comm) == 0));
    free(path);
    TRY(rc);
    text_reserve(&j->metrics.lines, METRICS_LINE_MAX);
    TRY(comm_agree(j->comm, comm_rank(j->comm) == 0 ? event_open(&j->events, j->settings->run.output_dir, first + 1) : 0));
    text_reserve(&j->events.records, METRICS_LINE_MAX); /* fewer bytes than the same metrics as text */
    path = j->settings->run.sample_steps > 0 ? run_path(&j->run, "samples.jsonl") : NULL;
    rc = samples_open(&j->samples, &j->ppo.rollout, j->eval_prompts.n ? &j->eval_prompts : &j->prompts, path, first);
    free(path);
    return rc;
}

static int job_run(struct job *j, const struct options *o)
{
    int64_t first = 0;
    TRY(start(j, o));
    if (o->plan)
        return 0;
    struct state state = state_of(j);
    if (o->resume)
        TRY(state_read(&state, &first));
    TRY(run_write_settings(&j->run));
    TRY(open_files(j, first));
    TRY(run_watch(&j->run));
    TRY(steps(j, first));
    show_trained(j);
    TRY(samples_log(&j->samples, j->total_steps));
    char *path = run_path(&j->run, "adapter");
    int rc = comm_agree(j->comm, comm_rank(j->comm) == 0 ? lora_write(&j->engine.model, &j->engine.peft, path) : 0);
    free(path);
    TRY(rc);
    return run_report(&j->run, &j->engine);
}

int task_ppo(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job *j = calloc(1, sizeof *j);
    CHECK(j, "out of memory");
    j->settings = s;
    j->comm = comm;
    int rc = run_open(&j->run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = engine_open(&j->engine, s, comm, o->plan);
    if (!rc)
        rc = job_run(j, o);
    step_file_close(&j->metrics);
    event_close(&j->events);
    samples_close(&j->samples);
    held_out_free(&j->held_out);
    ppo_free(&j->ppo);
    reward_close(j->reward);
    prompts_free(&j->prompts);
    prompts_free(&j->eval_prompts);
    engine_close(&j->engine);
    run_close(&j->run);
    free(j);
    return rc;
}
