/* task = "ppo": the main job. Reads as the run goes: files in, plan, weights, steps, adapter out. */
#include "engine.h"
#include "error.h"
#include "file.h"
#include "log.h"
#include "ppo.h"
#include "run.h"
#include "state.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>

struct job {
    const struct settings *settings;
    struct comm *comm;
    struct engine engine;
    struct run run;
    struct rollout rollout;
    struct ppo ppo;
    struct step_file metrics;
    int64_t total_steps;
};

static int load_prompts(struct job *j)
{
    const struct settings *s = j->settings;
    struct engine *e = &j->engine;
    struct dataset data = {0};
    int room = engine_context(e) - (int)(s->generate.max_new_tokens.max - 1);
    if (room < 1)
        return error_set(ERR_INPUT, "generate.max_new_tokens leaves no room for a prompt: the context has %d tokens",
                         engine_context(e));
    int rc = dataset_load(&data, &s->data, 0);
    if (!rc)
        rc = prompts_encode(&j->rollout.prompts, &data, e->tokenizer, s->data.add_special_tokens, room, e->folder.arch.vocab);
    if (!rc && j->rollout.prompts.n_cut && s->data.prompt_tokens.max == 0)
        log_warn("%lld prompts are longer than %d tokens and were cut", (long long)j->rollout.prompts.n_cut, room);
    dataset_free(&data);
    return rc;
}

static int open_rewards(struct job *j)
{
    struct reward_spec specs[SETTINGS_REWARDS_MAX];
    for (int i = 0; i < j->settings->n_rewards; i++) {
        const struct settings_reward *r = &j->settings->reward[i];
        specs[i] = (struct reward_spec){settings_reward_names[r->type], r->name, r->weight, r->path, r->command, r->timeout};
    }
    return reward_open(&j->rollout.reward, specs, j->settings->n_rewards);
}

static int make_plan(struct job *j)
{
    const struct settings *s = j->settings;
    int64_t longest_prompt = j->rollout.prompts.longest, drawn = s->data.prompt_tokens.max;
    if (drawn > 0 && drawn - 1 < longest_prompt)
        longest_prompt = drawn - 1;
    int new_tokens = (int)s->generate.max_new_tokens.max - 1;
    int64_t share = (s->ppo.batch_size + comm_size(j->comm) - 1) / comm_size(j->comm);
    int64_t micro = s->ppo.micro_batch_size > 0 ? s->ppo.micro_batch_size : 16;
    int64_t slots = s->generate.slots > 0 ? s->generate.slots : share < 64 ? share : 64;
    struct engine_need need = {.longest = (int)longest_prompt + new_tokens,
                               .longest_targets = new_tokens,
                               .micro_batch = (int)(micro < s->ppo.mini_batch_size ? micro : s->ppo.mini_batch_size),
                               .slots = (int)slots,
                               .train = true,
                               .adapters = true,
                               .value_head = true};
    return comm_agree(j->comm, engine_plan(&j->engine, &need));
}

static void print_banner(struct job *j)
{
    struct engine *e = &j->engine;
    const struct token_list *p = &j->rollout.prompts.prompt[0];
    struct text shown = {0};
    log_line("rlhf-hpc %s (%s): ppo, %d rank%s x %d thread%s on %d node%s, %s", PACKAGE_VERSION, GIT_REVISION, comm_size(j->comm),
             comm_size(j->comm) == 1 ? "" : "s", e->threads, e->threads == 1 ? "" : "s", comm_nodes(j->comm),
             comm_nodes(j->comm) == 1 ? "" : "s", e->be.ops->describe(&e->be));
    log_line("model %s: %lld parameters, %lld trainable; seed %lld; output %s", j->settings->model.path,
             (long long)arch_parameters(&e->folder.arch), (long long)e->model.trainable.n, (long long)j->settings->run.seed,
             j->settings->run.output_dir);
    engine_print_plan(e);
    for (int64_t i = 0; i < p->n && i < 24; i++) {
        const char *token = tokenizer_token(e->tokenizer, p->ids[i]);
        text_format(&shown, " %d:%s", p->ids[i], token ? token : "?");
    }
    log_line("%lld prompts; the first:%s", (long long)j->rollout.prompts.n, text_string(&shown));
    text_free(&shown);
    if (j->settings->generate.top_k > 0 || j->settings->generate.top_p < 1 || j->settings->generate.min_new_tokens > 0)
        log_warn("generate.top_k, top_p and min_new_tokens sample from another distribution than the one that is scored: the KL "
                 "estimate is biased and may turn negative");
}

static int start(struct job *j, const struct options *o)
{
    struct engine *e = &j->engine;
    const struct settings *s = j->settings;
    TRY(comm_agree(j->comm, load_prompts(j)));
    TRY(make_plan(j));
    if (o->plan) {
        engine_print_plan(e);
        return 0;
    }
    TRY(comm_agree(j->comm, open_rewards(j)));
    timing_begin(&j->run.timing, PHASE_LOAD);
    int rc = engine_load(e);
    timing_end(&j->run.timing, 0);
    TRY(rc);
    struct rollout *r = &j->rollout;
    r->settings = s;
    r->comm = j->comm;
    r->model = &e->model;
    r->generator = &e->generator;
    r->micro_batch = &e->micro_batch;
    r->tokenizer = e->tokenizer;
    r->timing = &j->run.timing;
    r->eos = e->folder.arch.eos;
    r->n_eos = s->generate.ignore_eos ? 0 : e->folder.arch.n_eos;
    j->total_steps = s->run.max_steps > 0 ? s->run.max_steps : r->prompts.n / s->ppo.batch_size;
    if (j->total_steps < 1)
        return error_set(ERR_INPUT, "%s has %lld prompts, fewer than ppo.batch_size = %lld: nothing to do in one pass "
                         "(set run.max_steps to go through them repeatedly)", s->data.path, (long long)r->prompts.n,
                         (long long)s->ppo.batch_size);
    ppo_init(&j->ppo, r, j->total_steps);
    print_banner(j);
    return 0;
}

static void log_step(struct job *j, const struct metrics *m, int64_t step, double sec, int64_t tokens)
{
    log_line("step %lld/%lld  score %.4f  kl %.4f  loss %.4f/%.4f  length %.1f  %.0f tok/s  %.2f s  eta %.0f s", (long long)step + 1,
             (long long)j->total_steps, metrics_get(m, "objective/scores"), metrics_get(m, "objective/kl"),
             metrics_get(m, "loss/policy_avg"), metrics_get(m, "loss/value_avg"), metrics_get(m, "response_length/mean"),
             (double)tokens / sec, sec, sec * (double)(j->total_steps - step - 1));
}

static int save(struct job *j, int64_t step)
{
    timing_begin(&j->run.timing, PHASE_CHECKPOINT);
    int rc = state_write(&j->ppo, &j->engine.peft, step);
    if (!rc && j->settings->run.save_total_limit > 0)
        rc = checkpoint_prune(j->comm, j->settings->run.output_dir, (int)j->settings->run.save_total_limit);
    timing_end(&j->run.timing, 0);
    return rc;
}

static int steps(struct job *j, int64_t first)
{
    const struct settings_run *s = &j->settings->run;
    int64_t saved = first;
    for (int64_t step = first; step < j->total_steps; step++) {
        struct metrics m = {0};
        double since = timing_now();
        if (run_should_stop(&j->run)) {
            if (saved != step)
                TRY(save(j, step));
            return error_set(ERR_STOP, "stopped early after step %lld; the state is saved: continue with --resume",
                             (long long)step);
        }
        timing_step(&j->run.timing);
        TRY(ppo_step(&j->ppo, &m, step));
        double sec = timing_now() - since;
        for (int p = 0; p < PHASES; p++)
            if (j->run.timing.step_sec[p] > 0) {
                char name[METRIC_NAME_MAX];
                snprintf(name, sizeof name, "time/%s", phase_name((enum phase)p));
                metrics_set(&m, name, j->run.timing.step_sec[p]);
            }
        int64_t tokens = sample_list_tokens(&j->ppo.samples);
        metrics_set(&m, "time/total", sec);
        metrics_set(&m, "perf/tokens_per_sec", (double)tokens / sec);
        TRY(comm_agree(j->comm, metrics_write_line(&j->metrics, &m)));
        log_step(j, &m, step, sec, tokens);
        if (s->save_steps > 0 && (step + 1) % s->save_steps == 0) {
            TRY(save(j, step + 1));
            saved = step + 1;
        }
    }
    return saved == j->total_steps ? 0 : save(j, j->total_steps);
}

/* Responses of the reference and of the policy to the same first prompts, with the same random numbers. */
static int show_samples(struct job *j)
{
    struct sample_list before = {0}, after = {0};
    int64_t n = j->rollout.prompts.n < 4 ? j->rollout.prompts.n : 4;
    struct rollout_request ask = {.prompts = &j->rollout.prompts, .n = n, .step = UINT32_MAX, .adapter = -1, .in_order = true,
                                  .temperature = (float)j->settings->generate.temperature};
    int rc = rollout_run(&j->ppo.rollout, &before, &ask);
    ask.adapter = 0;
    if (!rc)
        rc = rollout_run(&j->ppo.rollout, &after, &ask);
    for (int64_t i = 0; !rc && i < n; i++) {
        log_line("prompt     %s", text_string(&after.sample[i].prompt_text));
        log_line("  before   [%.3f]%s", before.sample[i].raw_score, text_string(&before.sample[i].response_text));
        log_line("  after    [%.3f]%s", after.sample[i].raw_score, text_string(&after.sample[i].response_text));
    }
    sample_list_free(&before);
    sample_list_free(&after);
    return rc;
}

static int job_run(struct job *j, const struct options *o)
{
    int64_t first = 0;
    TRY(start(j, o));
    if (o->plan)
        return 0;
    if (o->resume)
        TRY(state_read(&j->ppo, &first));
    char *path = run_path(&j->run, "metrics.jsonl");
    int rc = comm_agree(j->comm, step_file_open(&j->metrics, path, first, comm_rank(j->comm) == 0));
    free(path);
    TRY(rc);
    TRY(steps(j, first));
    TRY(show_samples(j));
    path = run_path(&j->run, "adapter");
    rc = comm_agree(j->comm, comm_rank(j->comm) == 0 ? lora_write(&j->engine.model, &j->engine.peft, path) : 0);
    free(path);
    TRY(rc);
    return run_report(&j->run);
}

int task_ppo(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job *j = calloc(1, sizeof *j);
    CHECK(j, "out of memory");
    j->settings = s;
    j->comm = comm;
    int rc = run_open(&j->run, s, comm, o->resume || o->plan);
    if (!rc)
        rc = engine_open(&j->engine, s, comm);
    if (!rc)
        rc = job_run(j, o);
    step_file_close(&j->metrics);
    ppo_free(&j->ppo);
    reward_close(j->rollout.reward);
    prompts_free(&j->rollout.prompts);
    engine_close(&j->engine);
    run_close(&j->run);
    free(j);
    return rc;
}
