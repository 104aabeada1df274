/* The loop of supervised training. Reads as a step goes: examples, gradients, loss, update, metrics, checkpoint. */
#include "supervised.h"

#include "banner.h"
#include "error.h"
#include "gradient.h"
#include "guard.h"
#include "log.h"
#include "rng.h"
#include "state.h"

#include <stdlib.h>

/* Arrays for the largest batch or evaluation, of M examples. */
struct supervised_room {
    int64_t *order; /* [n_train] the permutation of an epoch */
    struct supervised_item *item; /* [M] */
    int64_t *length;              /* [M] tokens */
    int *rank, *mine;             /* [M] */
    struct batch_deal deal;
};

void supervised_init(struct supervised *s, const struct supervised_task *task, struct engine *engine, struct run *run)
{
    const struct settings *settings = engine->settings;
    const struct settings_optim *o = &settings->optim;
    *s = (struct supervised){.task = *task,
                             .settings = settings,
                             .comm = engine->comm,
                             .engine = engine,
                             .run = run,
                             .optimizer = {.beta1 = o->adam_beta1,
                                           .beta2 = o->adam_beta2,
                                           .epsilon = o->adam_epsilon,
                                           .weight_decay = o->weight_decay,
                                           .max_grad_norm = o->max_grad_norm.set ? o->max_grad_norm.value : 0},
                             .schedule = schedule_find(settings_scheduler_names[o->lr_scheduler_type]),
                             .total_steps = (task->n_samples + task->batch_size - 1) / task->batch_size,
                             .epoch = -1};
    CHECK(s->schedule, "names in settings and tables differ");
}

static int64_t most_items(const struct supervised *s)
{
    return s->task.n_eval > s->task.batch_size ? s->task.n_eval : s->task.batch_size;
}

static void layout(void *supervised, struct arena *a)
{
    struct supervised *s = supervised;
    const size_t M = (size_t)most_items(s);
    struct supervised_room room = {0}, *kept;
    room.order = arena_take(a, MEM_HOST, (size_t)s->task.n_train * sizeof *room.order);
    room.item = arena_take(a, MEM_HOST, M * sizeof *room.item);
    room.length = arena_take(a, MEM_HOST, M * sizeof *room.length);
    room.rank = arena_take(a, MEM_HOST, M * sizeof *room.rank);
    room.mine = arena_take(a, MEM_HOST, M * sizeof *room.mine);
    room.deal.entry = arena_take(a, MEM_HOST, M * sizeof *room.deal.entry);
    room.deal.load = arena_take(a, MEM_HOST, (size_t)comm_size(s->comm) * sizeof *room.deal.load);
    kept = arena_take(a, MEM_HOST, sizeof room);
    if (kept)
        *kept = room;
    s->room = kept;
    s->task.layout(s->task.context, a);
}

int supervised_plan(struct supervised *s, const struct engine_need *need)
{
    struct engine_need with_loop = *need;
    with_loop.layout = layout;
    with_loop.context = s;
    TRY(comm_agree(s->comm, engine_plan(s->engine, &with_loop)));
    banner_print(s->engine);
    return 0;
}

/* Records and lines: after it, a step does not allocate. */
static void reserve(struct supervised *s)
{
    const int64_t M = most_items(s);
    const size_t bytes = (size_t)M * (s->task.record_bytes + 7);
    records_reserve(&s->mine, M, bytes);
    records_reserve(&s->all, M, bytes);
    text_reserve(&s->metrics.lines, METRICS_LINE_MAX);
    text_reserve(&s->events.records, METRICS_LINE_MAX); /* fewer bytes than the same metrics as text */
}

/* ---- batches ---- */

/* The example of a sample: a new permutation each time through them. */
static int64_t example_of(struct supervised *s, int64_t sample)
{
    const int64_t n = s->task.n_train;
    if (n == 0)
        return sample;
    if (s->epoch != sample / n) {
        s->epoch = sample / n;
        rng_permutation(s->room->order, n, rng_key((uint64_t)s->settings->run.seed, RNG_ORDER, 3, 0), (uint32_t)s->epoch);
    }
    return s->room->order[sample % n];
}

static void count_tokens(struct supervised *s, struct supervised_batch *b)
{
    b->n_tokens = 0;
    for (int i = 0; i < b->n; i++) {
        s->room->length[i] = s->task.tokens(s->task.context, &b->item[i], b->train);
        b->n_tokens += s->room->length[i];
    }
}

static void deal(struct supervised *s, struct supervised_batch *b)
{
    struct supervised_room *room = s->room;
    batch_deal(room->rank, &room->deal, room->length, b->n, comm_size(s->comm));
    b->n_mine = batch_share(room->mine, room->rank, b->n, comm_rank(s->comm));
    b->mine = room->mine;
}

/* The examples of a step, with their tokens. */
static struct supervised_batch step_batch(struct supervised *s, int64_t step)
{
    const int64_t first = step * s->task.batch_size, left = s->task.n_samples - first;
    struct supervised_batch b = {.train = true,
                                 .update = (uint32_t)s->optimizer.n_updates,
                                 .n = (int)(left < s->task.batch_size ? left : s->task.batch_size),
                                 .item = s->room->item};
    for (int i = 0; i < b.n; i++)
        s->room->item[i] = (struct supervised_item){first + i, example_of(s, first + i)};
    count_tokens(s, &b);
    return b;
}

static struct supervised_batch eval_batch(struct supervised *s)
{
    struct supervised_batch b = {.n = (int)s->task.n_eval, .item = s->room->item};
    for (int i = 0; i < b.n; i++)
        s->room->item[i] = (struct supervised_item){i, i};
    count_tokens(s, &b);
    return b;
}

/* That each key comes once, and all come, proves that every example was trained by exactly one rank. */
static void gather(struct supervised *s, const struct supervised_batch *b)
{
    comm_gather_records(s->comm, &s->all, &s->mine);
    timing_add_bytes(&s->run->timing, (int64_t)s->all.bytes_used);
    CHECK(s->all.n == b->n, "records of %lld examples, of a batch of %d", (long long)s->all.n, b->n);
}

/* ---- a step ---- */

static double learning_rate(const struct supervised *s, int64_t step)
{
    const struct settings_optim *o = &s->settings->optim;
    return schedule_rate(s->schedule, o->learning_rate, step, o->warmup_steps, s->total_steps);
}

/* Gradients and records of all ranks. */
static int train(struct supervised *s, struct supervised_batch *b)
{
    struct model *m = &s->engine->model;
    struct timing *t = &s->run->timing;
    records_clear(&s->mine);
    gradient_begin(m, (int64_t)b->n * s->task.sequences);
    deal(s, b);
    int rc = s->task.share(s->task.context, b, &s->mine);
    timing_begin(t, PHASE_REDUCE); /* waiting for the slowest rank is part of it */
    rc = comm_agree(s->comm, rc);
    if (!rc) {
        gradient_sum_start(&s->engine->gradient);
        gather(s, b);
        gradient_sum_finish(&s->engine->gradient);
        timing_add_bytes(t, m->trainable.n * (int64_t)sizeof(int64_t));
    }
    timing_end(t, 0);
    return rc;
}

static int update(struct supervised *s, double loss, int64_t step, double *norm)
{
    struct model *m = &s->engine->model;
    const int skip = guard_update(&s->engine->gradient, loss, s->settings->run.on_nan, step + 1);
    *norm = 0;
    if (skip)
        return skip < 0 ? -1 : 0;
    timing_begin(&s->run->timing, PHASE_OPTIMIZE);
    optimizer_update(&s->optimizer, m, learning_rate(s, step), norm);
    timing_end(&s->run->timing, 0);
    return comm_hash_equal(s->comm, m->be->ops->hash(m->be, m->trainable.value, (size_t)m->trainable.n * sizeof(float)),
                           "the trainable parameters");
}

/* A line a second at most, and the last. */
static void log_step(struct supervised *s, const struct metrics *m, int64_t step)
{
    const double now = timing_now();
    if (now < s->logged + 1 && step + 1 < s->total_steps)
        return;
    s->logged = now;
    log_line("step %*lld/%lld  loss %.4f  grad %.3f  %.0f tok/s  %.2f s  eta %.0f s",
             snprintf(NULL, 0, "%lld", (long long)s->total_steps), (long long)step + 1, (long long)s->total_steps,
             metrics_get(m, "loss"), metrics_get(m, "grad_norm"), metrics_get(m, "perf/tokens_per_sec"),
             metrics_get(m, "time/total"), timing_left(&s->run->timing, s->total_steps - step - 1));
}

static int train_step(struct supervised *s, struct metrics *m, int64_t step)
{
    double norm;
    timing_step_begin(&s->run->timing);
    struct supervised_batch b = step_batch(s, step);
    TRY(train(s, &b));
    s->n_tokens += b.n_tokens;
    metrics_set(m, "step", (double)(step + 1));
    if (s->task.n_train)
        metrics_set(m, "epoch", (double)(step * s->task.batch_size + b.n) / (double)s->task.n_train);
    const double loss = s->task.describe(s->task.context, m, &b, &s->all);
    TRY(update(s, loss, step, &norm));
    metrics_set(m, "grad_norm", norm);
    metrics_set(m, "lr", learning_rate(s, step));
    metrics_set(m, "num_tokens", (double)s->n_tokens);
    metrics_set_times(m, &s->run->timing, b.n_tokens);
    log_step(s, m, step);
    return 0;
}

/* ---- evaluations ---- */

/* The metrics "eval/..": all examples of data.eval_path after `step` steps. */
static int evaluate(struct supervised *s, struct metrics *m, int64_t step)
{
    struct timing *t = &s->run->timing;
    timing_begin(t, PHASE_EVALUATE);
    records_clear(&s->mine);
    struct supervised_batch b = eval_batch(s);
    deal(s, &b);
    int rc = comm_agree(s->comm, s->task.share(s->task.context, &b, &s->mine));
    double loss = 0;
    if (!rc) {
        gather(s, &b);
        loss = s->task.describe(s->task.context, m, &b, &s->all);
    }
    timing_end(t, 0);
    TRY(rc);
    log_line("evaluation of %d examples after step %lld  loss %.4f", b.n, (long long)step, loss);
    return s->engine->need.adapters ? best_consider(&s->best, -loss, step, s->comm, &s->engine->model, &s->engine->peft,
                                                    s->settings->run.output_dir)
                                    : 0;
}

static bool is_due(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

/* metrics.jsonl and the TensorBoard file; on ranks that have not opened them nothing. */
static int write_metrics(struct supervised *s, const struct metrics *m)
{
    int rc = metrics_write_line(&s->metrics, m);
    if (!rc)
        rc = metrics_write_event(&s->events, m);
    return comm_agree(s->comm, rc);
}

/* Before the first step: what there is to improve on. */
static int evaluate_start(struct supervised *s)
{
    struct metrics m = {0};
    if (!s->task.n_eval)
        return 0;
    metrics_set(&m, "step", 0);
    TRY(evaluate(s, &m, 0));
    return write_metrics(s, &m);
}

/* ---- the run ---- */

static struct state state_of(struct supervised *s)
{
    const bool adapters = s->engine->need.adapters;
    return (struct state){.settings = s->settings,
                          .comm = s->comm,
                          .model = &s->engine->model,
                          .optimizer = &s->optimizer,
                          .best = adapters ? &s->best : NULL,
                          .peft = adapters ? &s->engine->peft : NULL,
                          .timing = &s->run->timing};
}

static int save(struct supervised *s, int64_t step)
{
    struct state state = state_of(s);
    return state_write(&state, step);
}

static int steps(struct supervised *s, int64_t first)
{
    const struct settings_run *r = &s->settings->run;
    int64_t saved = first;
    for (int64_t step = first; step < s->total_steps; step++) {
        struct metrics m = {0};
        const char *why = run_should_stop(s->run, step);
        if (why) {
            if (saved != step)
                TRY(save(s, step));
            return run_stopped(step, why);
        }
        TRY(train_step(s, &m, step));
        if (s->task.n_eval && (is_due(r->eval_steps, step + 1) || step + 1 == s->total_steps))
            TRY(evaluate(s, &m, step + 1));
        TRY(write_metrics(s, &m));
        if (is_due(r->save_steps, step + 1)) {
            TRY(save(s, step + 1));
            saved = step + 1;
        }
    }
    return saved >= s->total_steps ? 0 : save(s, s->total_steps);
}

/* What the steps before the first have trained on: a checkpoint does not hold it. */
static void count_trained(struct supervised *s, int64_t first)
{
    for (int64_t step = 0; step < first && step < s->total_steps; step++)
        s->n_tokens += step_batch(s, step).n_tokens;
}

/* metrics.jsonl, cut back to the step from which the run goes on; a new TensorBoard file. */
static int open_files(struct supervised *s, int64_t first)
{
    char *path = run_path(s->run, "metrics.jsonl");
    int rc = comm_agree(s->comm, step_file_open(&s->metrics, path, first, comm_rank(s->comm) == 0));
    free(path);
    TRY(rc);
    return comm_agree(s->comm, comm_rank(s->comm) == 0 ? event_open(&s->events, s->settings->run.output_dir, first + 1) : 0);
}

int supervised_run(struct supervised *s, bool resume)
{
    int64_t first = 0;
    timing_begin(&s->run->timing, PHASE_LOAD);
    int rc = engine_load(s->engine);
    timing_end(&s->run->timing, 0);
    TRY(rc);
    s->engine->model.progress = &s->run->progress;
    struct state state = state_of(s);
    if (resume)
        TRY(state_read(&state, &first));
    TRY(run_write_settings(s->run));
    TRY(open_files(s, first));
    reserve(s);
    count_trained(s, first);
    TRY(run_watch(s->run));
    if (first == 0)
        TRY(evaluate_start(s));
    return steps(s, first);
}

int supervised_finish(struct supervised *s)
{
    char *path = run_path(s->run, "adapter");
    int rc = 0;
    if (s->engine->need.adapters && comm_rank(s->comm) == 0)
        rc = lora_write(&s->engine->model, &s->engine->peft, path);
    free(path);
    TRY(comm_agree(s->comm, rc));
    return run_report(s->run, s->engine);
}

void supervised_free(struct supervised *s)
{
    step_file_close(&s->metrics);
    event_close(&s->events);
    records_free(&s->mine);
    records_free(&s->all);
}
