/* The bench is the run's own step on made-up input: the same engine, rollouts and updates, without files around them. */
#include "bench.h"

#include "actor.h"
#include "bench_pass.h"
#include "error.h"
#include "log.h"
#include "ppo.h"
#include "records.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PROMPT_TOKENS = 32, /* where data.prompt_tokens does not say */
    COMM_REPEATS = 11,
    COLUMNS = PHASES + 1 /* the phases, then the whole step */
};

struct bench {
    struct settings settings; /* the input's with files taken out; borrows its strings */
    struct comm *comm;
    struct engine engine;
    struct timing timing;
    struct prompt_list prompts;
    struct ppo ppo;
    int64_t n_steps;
    double sec[BENCH_STEPS][COLUMNS]; /* of this rank, by step */
};

/* A collective operation of the step, timed alone. */
struct transfer {
    size_t bytes; /* of the result */
    double sec;
    double bus_gb_per_sec; /* bytes that cross a rank's link per second; as nccl-tests defines it */
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static void make_prompts(struct bench *b, int n_tokens)
{
    struct prompt_list *p = &b->prompts;
    struct rng_key key = rng_key((uint64_t)b->settings.run.seed, RNG_TEST, 0, 0);
    *p = (struct prompt_list){.n = b->settings.ppo.batch_size, .longest = n_tokens};
    p->prompt = calloc((size_t)p->n, sizeof *p->prompt);
    CHECK(p->prompt, "out of memory");
    for (int64_t i = 0; i < p->n; i++)
        for (int t = 0; t < n_tokens; t++)
            token_list_add(&p->prompt[i],
                           (int32_t)rng_range(rng_word(key, 0, (uint64_t)i, (uint32_t)t, 0), 0, b->engine.folder.arch.vocab));
}

static int make_ppo(struct bench *b)
{
    struct engine *e = &b->engine;
    const struct settings *s = &b->settings;
    int room = actor_prompt_room(e), asked = s->data.prompt_tokens.max > 0 ? (int)s->data.prompt_tokens.max - 1 : PROMPT_TOKENS;
    if (room < 0)
        return -1;
    make_prompts(b, asked < room ? asked : room);
    struct rollout r = {.prompts = b->prompts,
                        .shape = {s->ppo.batch_size, (int32_t)b->prompts.longest, actor_new_tokens(e)}};
    actor_rollout(&r, e, &b->timing);
    ppo_init(&b->ppo, &r, &e->gradient, b->n_steps + 1);
    return 0;
}

static int make_plan(struct bench *b, bool plan_only)
{
    struct engine *e = &b->engine;
    struct engine_need need;
    TRY(engine_open_synthetic(e, &b->settings, b->comm, plan_only));
    timing_init(&b->timing);
    TRY(make_ppo(b));
    ppo_need(&b->ppo, &need);
    TRY(comm_agree(b->comm, engine_plan(e, &need)));
    log_line("rlhf-hpc %s (%s): bench of ppo, %d rank%s, %s", PACKAGE_VERSION, GIT_REVISION, comm_size(b->comm),
             comm_size(b->comm) == 1 ? "" : "s", e->be.ops->describe(&e->be));
    log_line("synthetic %s: %lld parameters, %lld of them trainable; batches of %lld, prompts of up to %lld tokens",
             b->settings.model.path, (long long)engine_parameters(e), (long long)e->model.trainable.n,
             (long long)b->settings.ppo.batch_size, (long long)b->prompts.longest);
    engine_print_plan(e);
    return 0;
}

/* Step 0 warms up, the others count. */
static int time_steps(struct bench *b)
{
    for (int64_t step = 0; step <= b->n_steps; step++) {
        struct metrics m = {0};
        comm_barrier(b->comm);
        if (step == 1)
            timing_init(&b->timing);
        timing_step_begin(&b->timing);
        TRY(ppo_step(&b->ppo, &m, step));
        double sec = timing_step_end(&b->timing, sample_list_tokens(&b->ppo.samples));
        if (step == 0)
            continue;
        for (int p = 0; p < PHASES; p++)
            b->sec[step - 1][p] = b->timing.step_sec[p];
        b->sec[step - 1][PHASES] = sec;
    }
    return 0;
}

/* The slowest rank's median time of operation(context). */
static double time_transfer(struct bench *b, void (*operation)(struct bench *b, void *context), void *context)
{
    double sec[COMM_REPEATS], mine, min, mean, max;
    operation(b, context);
    for (int i = 0; i < COMM_REPEATS; i++) {
        comm_barrier(b->comm);
        double since = timing_now();
        operation(b, context);
        sec[i] = timing_now() - since;
    }
    mine = median(sec, COMM_REPEATS);
    comm_timing_min_mean_max(b->comm, &min, &mean, &max, &mine, 1);
    return max;
}

static void sum_gradients(struct bench *b, void *context)
{
    (void)context;
    gradient_sum_start(&b->engine.gradient);
    gradient_sum_finish(&b->engine.gradient);
}

/* Whatever the steps have left in the accumulators. Of an all-reduce a rank sends and receives 2 (n - 1) / n of the bytes. */
static void time_sum(struct bench *b, struct transfer *t)
{
    int n = comm_size(b->comm);
    t->bytes = (size_t)b->engine.model.trainable.n * sizeof(int64_t);
    t->sec = time_transfer(b, sum_gradients, NULL);
    t->bus_gb_per_sec = (double)t->bytes / t->sec * 2 * (n - 1) / n * 1e-9;
}

struct gathering {
    struct record_list mine, all;
};

static void gather_samples(struct bench *b, void *context)
{
    struct gathering *g = context;
    comm_gather_records(b->comm, &g->all, &g->mine);
}

/* The samples of the last step again. Of an all-gather a rank receives (n - 1) / n of the bytes. */
static void time_gather(struct bench *b, struct transfer *t)
{
    int n = comm_size(b->comm);
    struct gathering g = {0};
    for (int64_t i = comm_rank(b->comm); i < b->ppo.samples.n; i += n) {
        const struct sample *s = &b->ppo.samples.sample[i];
        sample_write(records_extend(&g.mine, i, sample_bytes(s)), s);
    }
    t->sec = time_transfer(b, gather_samples, &g);
    t->bytes = g.all.bytes_used;
    t->bus_gb_per_sec = (double)t->bytes / t->sec * (n - 1) / n * 1e-9;
    records_free(&g.mine);
    records_free(&g.all);
}

static json_t *report_phases(struct bench *b)
{
    double own[COLUMNS], tokens[PHASES], min[COLUMNS], mean[COLUMNS], max[COLUMNS], low[PHASES], share[PHASES], high[PHASES];
    double column[BENCH_STEPS];
    for (int c = 0; c < COLUMNS; c++) {
        for (int64_t i = 0; i < b->n_steps; i++)
            column[i] = b->sec[i][c];
        own[c] = median(column, b->n_steps);
        if (c < PHASES)
            tokens[c] = (double)b->timing.tokens[c] / (double)b->n_steps;
    }
    comm_timing_min_mean_max(b->comm, min, mean, max, own, COLUMNS);
    comm_timing_min_mean_max(b->comm, low, share, high, tokens, PHASES);
    json_t *phases = json_object();
    log_line("median of %lld steps", (long long)b->n_steps);
    log_line("%-12s %9s %9s %9s %7s %12s", "phase", "min s", "avg s", "max s", "share", "tokens/s");
    for (int c = 0; c < COLUMNS; c++) {
        const char *name = c < PHASES ? phase_name((enum phase)c) : "step";
        /* a step's tokens are those it generates */
        double all = share[c < PHASES ? c : PHASE_GENERATE] * comm_size(b->comm), rate = all / max[c];
        if (max[c] <= 0)
            continue;
        char shown[32] = "";
        if (rate > 0)
            snprintf(shown, sizeof shown, "%12.0f", rate);
        log_line("%-12s %9.4f %9.4f %9.4f %6.1f%% %12s", name, min[c], mean[c], max[c], 100 * mean[c] / mean[PHASES], shown);
        json_object_set_new(phases, name, json_pack("{s:f,s:f,s:f,s:f}", "min_sec", min[c], "mean_sec", mean[c], "max_sec",
                                                    max[c], "tokens_per_sec", rate));
    }
    return phases;
}

static json_t *report_transfer(const char *what, const struct transfer *t)
{
    log_line("%-12s %9.4f ms %12zu bytes %8.2f GB/s (bus)", what, 1e3 * t->sec, t->bytes, t->bus_gb_per_sec);
    return json_pack("{s:f,s:I,s:f}", "sec", t->sec, "bytes", (json_int_t)t->bytes, "bus_gb_per_sec", t->bus_gb_per_sec);
}

/* passes: of bench_passes, taken over. */
static void report(struct bench *b, json_t *passes)
{
    struct transfer sum, gather;
    json_t *root = json_pack("{s:s,s:i,s:i,s:i,s:I}", "bench", "ppo", "ranks", comm_size(b->comm), "nodes",
                             comm_nodes(b->comm), "threads", b->engine.threads, "steps", (json_int_t)b->n_steps);
    json_object_set_new(root, "passes", passes);
    json_object_set_new(root, "phases", report_phases(b));
    if (comm_size(b->comm) > 1) {
        time_sum(b, &sum);
        time_gather(b, &gather);
        log_line("communication alone, median of %d", COMM_REPEATS);
        json_object_set_new(root, "sum_gradients", report_transfer("gradients", &sum));
        json_object_set_new(root, "gather_samples", report_transfer("samples", &gather));
    }
    char *line = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6));
    CHECK(line, "out of memory");
    log_line("%s", line);
    free(line);
    json_decref(root);
}

/* What follows the plan. */
static int run_bench(struct bench *b)
{
    TRY(engine_load(&b->engine));
    ppo_reserve(&b->ppo);
    json_t *passes = bench_passes(&b->engine);
    int rc = comm_agree(b->comm, passes ? 0 : -1);
    if (!rc)
        rc = time_steps(b);
    if (!rc)
        report(b, passes);
    else
        json_decref(passes);
    return rc;
}

int bench_run(const struct settings *s, struct comm *comm, bool plan_only)
{
    if (s->task != TASK_PPO)
        return error_set(ERR_INPUT, "--bench times task = \"ppo\"; this input's task is \"%s\"", settings_task_names[s->task]);
    struct bench *b = calloc(1, sizeof *b);
    CHECK(b, "out of memory");
    b->comm = comm;
    b->settings = *s;
    b->settings.model.init = MODEL_INIT_RANDOM;
    b->settings.model.adapter = (char[]){""};
    b->settings.n_rewards = 0;
    b->settings.generate.stop_strings.n = 0;
    b->n_steps = s->run.max_steps > 0 && s->run.max_steps < BENCH_STEPS ? s->run.max_steps : BENCH_STEPS;
    int rc = make_plan(b, plan_only);
    if (!rc && !plan_only)
        rc = run_bench(b);
    ppo_free(&b->ppo);
    prompts_free(&b->prompts);
    engine_close(&b->engine);
    free(b);
    return rc;
}
