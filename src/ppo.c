/* The PPO step. Rank-local work is the forward and backward of a rank's own samples; losses, guards and statistics come from
 * arrays that all ranks have gathered, in global order and in double. */
#include "ppo.h"

#include "advantage.h"
#include "batch.h"
#include "engine.h"
#include "error.h"
#include "guard.h"
#include "log.h"
#include "policy_loss.h"
#include "stats.h"

#include <math.h>
#include <string.h>

/* Means over the mini-batches of a step. */
struct update_sums {
    double policy, value, total, entropy, approxkl, policykl, clipfrac, value_clipfrac, ratio, ratio_var, value_error, norm;
    int64_t n, n_updates;
    bool stopped;
};

/* One mini-batch: samples order[0 .. n-1] of the step. */
struct mini_batch {
    int n;
    int64_t n_tokens;
    struct sample **sample; /* [n] */
    int *rank;              /* [n] who trains it */
    int64_t *length;        /* [n] tokens of prompt and response */
    int64_t *offset;        /* [n] of its tokens in the arrays below */
    float *logprob, *entropy, *value, *old_logprob, *old_value, *advantage, *ret; /* [n_tokens] */
    float *dlogprob, *dentropy, *dvalue;                                          /* [n_tokens] of this rank's samples */
};

/* Arrays of the largest step there may be: B samples with T response tokens in all. */
struct ppo_room {
    int64_t *order; /* [B] */
    double *score;  /* [B] */
    bool *finished; /* [B] */
    float *reward, *advantage; /* [T] */
    double *number;            /* [T] any quantity of the tokens */
    struct mini_batch mini;
    struct batch_deal deal;
    int *place;                /* [mini.n] of this rank's samples in the mini-batch, and in the same order: */
    struct sequence *sequence; /* [mini.n] */
    int32_t *ids;              /* [mini.n][longest] */
    int longest;               /* tokens of prompt and response */
};

/* Of a sample in a mini-batch's gathering: log-probs, entropies, values. */
static size_t token_bytes(int32_t n_response)
{
    return 3 * (size_t)n_response * sizeof(float);
}

static void mini_batch_layout(struct mini_batch *b, struct arena *a, size_t n, size_t tokens)
{
    b->sample = arena_take(a, MEM_HOST, n * sizeof *b->sample);
    b->rank = arena_take(a, MEM_HOST, n * sizeof *b->rank);
    b->length = arena_take(a, MEM_HOST, n * sizeof *b->length);
    b->offset = arena_take(a, MEM_HOST, n * sizeof *b->offset);
    float **array[] = {&b->logprob,   &b->entropy, &b->value,    &b->old_logprob, &b->old_value,
                       &b->advantage, &b->ret,     &b->dlogprob, &b->dentropy,    &b->dvalue};
    for (size_t i = 0; i < sizeof array / sizeof *array; i++)
        *array[i] = arena_take(a, MEM_HOST, tokens * sizeof(float));
}

void ppo_need(struct ppo *p, struct engine_need *need)
{
    const struct settings *s = p->rollout.settings;
    const struct rollout_shape *shape = &p->rollout.shape;
    int size = comm_size(p->rollout.comm);
    int64_t share = (s->ppo.batch_size + size - 1) / size;
    int64_t micro = s->ppo.micro_batch_size > 0 ? s->ppo.micro_batch_size : 16;
    int64_t slots = s->generate.slots > 0 ? s->generate.slots : share < 64 ? share : 64;
    *need = (struct engine_need){.longest = shape->n_prompt + shape->n_response,
                                 .longest_targets = shape->n_response,
                                 .micro_batch = (int)(micro < s->ppo.mini_batch_size ? micro : s->ppo.mini_batch_size),
                                 .slots = (int)slots,
                                 .train = true,
                                 .adapters = true,
                                 .value_head = true,
                                 .layout = ppo_layout,
                                 .context = p};
}

void ppo_layout(void *ppo, struct arena *a)
{
    struct ppo *p = ppo;
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    const struct rollout_shape *shape = &p->rollout.shape;
    size_t B = (size_t)s->batch_size, T = B * (size_t)shape->n_response, M = (size_t)s->mini_batch_size;
    struct ppo_room room = {.longest = shape->n_prompt + shape->n_response}, *kept;
    rollout_layout(&p->rollout, a);
    room.order = arena_take(a, MEM_HOST, B * sizeof *room.order);
    room.score = arena_take(a, MEM_HOST, B * sizeof *room.score);
    room.finished = arena_take(a, MEM_HOST, B * sizeof *room.finished);
    room.reward = arena_take(a, MEM_HOST, T * sizeof *room.reward);
    room.advantage = arena_take(a, MEM_HOST, T * sizeof *room.advantage);
    room.number = arena_take(a, MEM_HOST, T * sizeof *room.number);
    mini_batch_layout(&room.mini, a, M, M * (size_t)shape->n_response);
    room.deal.entry = arena_take(a, MEM_HOST, M * sizeof *room.deal.entry);
    room.deal.load = arena_take(a, MEM_HOST, (size_t)comm_size(p->rollout.comm) * sizeof *room.deal.load);
    room.place = arena_take(a, MEM_HOST, M * sizeof *room.place);
    room.sequence = arena_take(a, MEM_HOST, M * sizeof *room.sequence);
    room.ids = arena_take(a, MEM_HOST, M * (size_t)room.longest * sizeof *room.ids);
    kept = arena_take(a, MEM_HOST, sizeof room);
    if (kept)
        *kept = room;
    p->room = kept;
}

void ppo_reserve(struct ppo *p)
{
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    struct sample_size size = rollout_sample_size(&p->rollout);
    int64_t M = s->mini_batch_size;
    size_t bytes = (size_t)M * (token_bytes(size.n_response) + 7);
    rollout_reserve(&p->rollout);
    sample_list_reserve(&p->samples, s->batch_size, &size);
    records_reserve(&p->mine, M, bytes);
    records_reserve(&p->all, M, bytes);
}

void ppo_init(struct ppo *p, const struct rollout *rollout, struct gradient *gradient, int64_t total_steps)
{
    const struct settings *s = rollout->settings;
    *p = (struct ppo){
        .rollout = *rollout,
        .gradient = gradient,
        .estimator = kl_find(settings_kl_names[s->ppo.kl_penalty]),
        .schedule = schedule_find(settings_scheduler_names[s->optim.lr_scheduler_type]),
        .kl = {s->ppo.adap_kl_ctrl, s->ppo.init_kl_coef, s->ppo.target, s->ppo.horizon},
        .optimizer = {.beta1 = s->optim.adam_beta1,
                      .beta2 = s->optim.adam_beta2,
                      .epsilon = s->optim.adam_epsilon,
                      .weight_decay = s->optim.weight_decay,
                      .max_grad_norm = s->optim.max_grad_norm.set ? s->optim.max_grad_norm.value : 0},
        .total_steps = total_steps,
    };
    CHECK(p->estimator && p->schedule, "names in settings and tables differ");
}

void ppo_free(struct ppo *p)
{
    rollout_free(&p->rollout);
    sample_list_free(&p->samples);
    records_free(&p->mine);
    records_free(&p->all);
}

/* Scores to per-token rewards to advantages, over the whole batch. Returns mean KL; non_score: mean of -coef * KL. */
static void advantages(struct ppo *p, double *kl_mean, double *non_score)
{
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    int64_t n = p->samples.n, tokens = sample_list_tokens(&p->samples), at = 0;
    double *score = p->room->score, kl_sum = 0;
    bool *finished = p->room->finished;
    float *reward = p->room->reward, *advantage = p->room->advantage;
    for (int64_t i = 0; i < n; i++) {
        score[i] = p->samples.sample[i].raw_score;
        finished[i] = p->samples.sample[i].finished;
    }
    if (s->missing_eos_penalty.set)
        score_missing_eos(score, finished, n, s->missing_eos_penalty.value);
    struct score_settings how = {s->use_score_scaling, s->use_score_norm, s->score_clip.set ? s->score_clip.value : 0};
    score_process(score, n, &p->moments, &how);
    for (int64_t i = 0; i < n; at += p->samples.sample[i++].n_response) {
        struct sample *x = &p->samples.sample[i];
        x->score = score[i];
        kl_sum += kl_rewards(reward + at, x->array[SAMPLE_LOGPROB], x->array[SAMPLE_REF_LOGPROB], x->n_response, p->estimator,
                             p->kl.coef, score[i]);
    }
    if (s->whiten_rewards)
        stats_whiten(reward, tokens, false);
    at = 0;
    for (int64_t i = 0; i < n; at += p->samples.sample[i++].n_response) {
        struct sample *x = &p->samples.sample[i];
        memcpy(sample_array(x, SAMPLE_REWARD), reward + at, (size_t)x->n_response * sizeof *reward);
        advantage_gae(advantage + at, sample_array(x, SAMPLE_RETURN), reward + at, x->array[SAMPLE_VALUE], x->n_response,
                      s->gamma, s->lam);
    }
    stats_whiten(advantage, tokens, true);
    at = 0;
    for (int64_t i = 0; i < n; at += p->samples.sample[i++].n_response)
        memcpy(sample_array(&p->samples.sample[i], SAMPLE_ADVANTAGE), advantage + at,
               (size_t)p->samples.sample[i].n_response * sizeof *advantage);
    *kl_mean = kl_sum / (double)n;
    *non_score = -p->kl.coef * *kl_mean;
}

/* Samples order[0 .. n-1] of the step, dealt to the ranks. */
static struct mini_batch *mini_batch_begin(struct ppo *p, const int64_t *order, int n)
{
    struct mini_batch *b = &p->room->mini;
    b->n = n;
    b->n_tokens = 0;
    for (int i = 0; i < n; i++) {
        struct sample *s = b->sample[i] = &p->samples.sample[order[i]];
        size_t bytes = (size_t)s->n_response * sizeof(float);
        int64_t at = b->offset[i] = b->n_tokens;
        b->length[i] = s->n_prompt + s->n_response;
        b->n_tokens += s->n_response;
        memcpy(b->old_logprob + at, s->array[SAMPLE_LOGPROB], bytes);
        memcpy(b->old_value + at, s->array[SAMPLE_VALUE], bytes);
        memcpy(b->advantage + at, s->array[SAMPLE_ADVANTAGE], bytes);
        memcpy(b->ret + at, s->array[SAMPLE_RETURN], bytes);
    }
    batch_deal(b->rank, &p->room->deal, b->length, n, comm_size(p->rollout.comm));
    return b;
}

static struct policy_loss_settings loss_settings(const struct ppo *p)
{
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    return (struct policy_loss_settings){s->cliprange, s->cliprange_value, s->vf_coef, s->ent_coef};
}

/* Forward and backward of one micro-batch of this rank: samples place[0 .. n-1] of the mini-batch. */
static int train_micro_batch(struct ppo *p, struct mini_batch *b, struct sequence *seq, const int *place, int n,
                             const struct model_pass *pass)
{
    struct policy_loss_settings how = loss_settings(p);
    struct timing *t = p->rollout.timing;
    float temperature = (float)p->rollout.settings->generate.temperature;
    int64_t tokens = 0;
    for (int i = 0; i < n; i++)
        tokens += seq[i].n;
    timing_begin(t, PHASE_FORWARD);
    int rc = micro_batch_forward(p->rollout.micro_batch, seq, n, pass, temperature);
    timing_end(t, tokens);
    if (rc)
        return rc;
    for (int i = 0; i < n; i++) {
        int64_t at = b->offset[place[i]];
        struct policy_loss_tokens x = {b->sample[place[i]]->n_response, b->logprob + at,   b->value + at, b->entropy + at,
                                       b->old_logprob + at,             b->old_value + at, b->advantage + at, b->ret + at};
        policy_loss_ppo_backward(b->dlogprob + at, b->dentropy + at, b->dvalue + at, &x, b->n_tokens, &how);
        seq[i].dlogprob = b->dlogprob + at;
        seq[i].dentropy = how.ent_coef != 0 ? b->dentropy + at : NULL;
        seq[i].dvalue = b->dvalue + at;
    }
    timing_begin(t, PHASE_BACKWARD);
    rc = micro_batch_backward(p->rollout.micro_batch, seq, n, pass, temperature);
    timing_end(t, tokens);
    return rc;
}

/* This rank's samples of the mini-batch, micro-batch by micro-batch. */
static int train_share(struct ppo *p, struct mini_batch *b)
{
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    int *place = p->room->place;
    struct sequence *seq = p->room->sequence;
    int n = batch_share(place, b->rank, b->n, comm_rank(p->rollout.comm));
    for (int i = 0; i < n; i++) {
        const struct sample *x = b->sample[place[i]];
        int64_t at = b->offset[place[i]];
        int32_t *ids = p->room->ids + (int64_t)i * p->room->longest;
        seq[i] = (struct sequence){.sample = x->index,
                                   .ids = ids,
                                   .n = sample_ids(ids, x),
                                   .first = x->n_prompt,
                                   .logprob = b->logprob + at,
                                   .entropy = b->entropy + at,
                                   .value = b->value + at};
    }
    struct model_pass pass = {.adapter = 0,
                              .dropout = p->rollout.settings->lora.lora_dropout > 0,
                              .step = (uint32_t)p->optimizer.n_updates,
                              .keep = true,
                              .entropy_gradient = s->ent_coef != 0};
    int rc = 0;
    for (int done = 0; !rc && done < n;) {
        int k = micro_batch_take(p->rollout.micro_batch, seq + done, n - done, (int)s->micro_batch_size);
        rc = train_micro_batch(p, b, seq + done, place + done, k, &pass);
        done += k;
    }
    p->n_trained += n;
    return rc;
}

/* New log-probs, values and entropies of all samples to all ranks; records are keyed by place in the mini-batch. That each
 * key comes once, and all come, proves that every sample was trained by exactly one rank. */
static void gather_tokens(struct ppo *p, struct mini_batch *b)
{
    records_clear(&p->mine);
    for (int i = 0; i < b->n; i++) {
        if (b->rank[i] != comm_rank(p->rollout.comm))
            continue;
        size_t n = (size_t)b->sample[i]->n_response;
        float *out = records_extend(&p->mine, i, token_bytes(b->sample[i]->n_response));
        memcpy(out, b->logprob + b->offset[i], n * sizeof(float));
        memcpy(out + n, b->entropy + b->offset[i], n * sizeof(float));
        memcpy(out + 2 * n, b->value + b->offset[i], n * sizeof(float));
    }
    comm_gather_records(p->rollout.comm, &p->all, &p->mine);
    timing_add_bytes(p->rollout.timing, (int64_t)p->all.bytes_used);
    CHECK(p->all.n == b->n, "%lld samples of a mini-batch of %d were trained", (long long)p->all.n, b->n);
    for (int i = 0; i < b->n; i++) {
        size_t n = (size_t)b->sample[i]->n_response;
        const float *in = records_bytes(&p->all, i);
        CHECK(p->all.records[i].key == i && p->all.records[i].n == token_bytes(b->sample[i]->n_response),
              "sample %d of a mini-batch was not trained as it was dealt", i);
        memcpy(b->logprob + b->offset[i], in, n * sizeof(float));
        memcpy(b->entropy + b->offset[i], in + n, n * sizeof(float));
        memcpy(b->value + b->offset[i], in + 2 * n, n * sizeof(float));
    }
}

static int update_mini_batch(struct ppo *p, struct mini_batch *b, int64_t step, struct update_sums *sums)
{
    struct model *m = p->rollout.model;
    const struct settings *s = p->rollout.settings;
    struct timing *t = p->rollout.timing;
    struct policy_loss_settings how = loss_settings(p);
    struct policy_loss loss;
    gradient_begin(m, b->n);
    int rc = train_share(p, b);
    timing_begin(t, PHASE_REDUCE); /* waiting for the slowest rank is part of it */
    rc = comm_agree(p->rollout.comm, rc);
    if (!rc) {
        gradient_sum_start(p->gradient); /* a device sums, after its backward, while the host gathers */
        gather_tokens(p, b);
        gradient_sum_finish(p->gradient);
        timing_add_bytes(t, m->trainable.n * (int64_t)sizeof(int64_t));
    }
    timing_end(t, 0);
    TRY(rc);
    struct policy_loss_tokens x = {b->n_tokens,     b->logprob,   b->value,     b->entropy,
                                   b->old_logprob,  b->old_value, b->advantage, b->ret};
    policy_loss_ppo(&loss, &x, &how);
    int skip = guard_update(p->gradient, loss.total, s->run.on_nan, step);
    if (skip < 0)
        return -1;
    if (!skip && policy_loss_guard(&loss, s->ppo.ratio_threshold)) {
        log_line("step %lld: update skipped: the mean ratio %.3g exceeds ppo.ratio_threshold = %g; the policy has left the one "
                 "that sampled (lower optim.learning_rate or ppo.ppo_epochs)",
                 (long long)step, loss.ratio, s->ppo.ratio_threshold);
        skip = 1;
    }
    double norm = 0;
    if (!skip) {
        timing_begin(t, PHASE_OPTIMIZE);
        optimizer_update(&p->optimizer, m,
                         schedule_rate(p->schedule, s->optim.learning_rate, step, s->optim.warmup_steps, p->total_steps), &norm);
        timing_end(t, 0);
        sums->n_updates++;
    }
    sums->policy += loss.policy, sums->value += loss.value, sums->total += loss.total, sums->entropy += loss.entropy;
    sums->approxkl += loss.approxkl, sums->policykl += loss.policykl, sums->clipfrac += loss.clipfrac;
    sums->value_clipfrac += loss.value_clipfrac, sums->ratio += loss.ratio, sums->ratio_var += loss.ratio_var;
    sums->value_error += loss.value_error, sums->norm += norm;
    sums->n++;
    sums->stopped = s->ppo.early_stopping && s->ppo.target_kl.set && policy_loss_stop(&loss, s->ppo.target_kl.value);
    return 0;
}

static int update(struct ppo *p, int64_t step, struct update_sums *sums)
{
    const struct settings_ppo *s = &p->rollout.settings->ppo;
    struct rng_key key = rng_key((uint64_t)p->rollout.settings->run.seed, RNG_ORDER, 1, 0);
    int64_t *order = p->room->order;
    int rc = 0;
    for (int64_t epoch = 0; !rc && epoch < s->ppo_epochs && !sums->stopped; epoch++) {
        rng_permutation(order, p->samples.n, key, (uint32_t)(step * s->ppo_epochs + epoch));
        for (int64_t first = 0; !rc && first < p->samples.n; first += s->mini_batch_size) {
            int64_t left = p->samples.n - first;
            int n = (int)(left < s->mini_batch_size ? left : s->mini_batch_size);
            rc = update_mini_batch(p, mini_batch_begin(p, order + first, n), step, sums);
        }
        if (!rc && sums->stopped)
            log_line("step %lld: no further epochs after %lld: policykl exceeds 1.5 ppo.target_kl", (long long)step,
                     (long long)epoch + 1);
    }
    return rc;
}

/* Statistics of the rollouts. */
static void describe_samples(struct ppo *p, struct metrics *m, double kl_mean, double non_score)
{
    int64_t n = p->samples.n, tokens = sample_list_tokens(&p->samples), at = 0, ended = 0, shortest = INT64_MAX, longest = 0;
    double *score = p->room->score, *gap = p->room->number, entropy = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct sample *x = &p->samples.sample[i];
        score[i] = x->score;
        ended += x->finished;
        shortest = x->n_response < shortest ? x->n_response : shortest;
        longest = x->n_response > longest ? x->n_response : longest;
        for (int t = 0; t < x->n_response; t++) {
            entropy -= x->array[SAMPLE_LOGPROB][t];
            gap[at++] = fabs((double)x->array[SAMPLE_LOGPROB][t] - x->array[SAMPLE_DRAWN_LOGPROB][t]);
        }
    }
    double mean = stats_mean(score, n);
    metrics_set(m, "objective/kl", kl_mean);
    metrics_set(m, "objective/kl_coef", p->kl.coef);
    metrics_set(m, "objective/entropy", entropy / (double)n);
    metrics_set(m, "objective/non_score_reward", non_score);
    metrics_set(m, "objective/rlhf_reward", mean + non_score);
    metrics_set(m, "objective/scores", mean);
    metrics_set(m, "objective/scores_std", sqrt(stats_variance(score, n)));
    const struct settings *s = p->rollout.settings;
    for (int k = 0; k < s->n_rewards; k++) {
        char name[METRIC_NAME_MAX];
        for (int64_t i = 0; i < n; i++)
            score[i] = p->samples.sample[i].part[k];
        snprintf(name, sizeof name, "reward/%.32s", s->reward[k].name);
        metrics_set(m, name, stats_mean(score, n));
    }
    metrics_set(m, "val/num_eos_tokens", (double)ended);
    metrics_set(m, "response_length/mean", (double)tokens / (double)n);
    metrics_set(m, "response_length/min", (double)shortest);
    metrics_set(m, "response_length/max", (double)longest);
    metrics_set(m, "sampling/logprob_gap", stats_mean(gap, tokens));
}

static void describe_update(struct ppo *p, struct metrics *m, const struct update_sums *u)
{
    double n = u->n ? (double)u->n : 1;
    int64_t tokens = sample_list_tokens(&p->samples), at = 0;
    double *ret = p->room->number;
    for (int64_t i = 0; i < p->samples.n; i++)
        for (int t = 0; t < p->samples.sample[i].n_response; t++)
            ret[at++] = p->samples.sample[i].array[SAMPLE_RETURN][t];
    double variance = stats_variance(ret, tokens);
    metrics_set(m, "policy/approxkl_avg", u->approxkl / n);
    metrics_set(m, "policy/policykl_avg", u->policykl / n);
    metrics_set(m, "policy/clipfrac_avg", u->clipfrac / n);
    metrics_set(m, "policy/entropy_avg", u->entropy / n);
    metrics_set(m, "loss/policy_avg", u->policy / n);
    metrics_set(m, "loss/value_avg", u->value / n);
    metrics_set(m, "loss/total_avg", u->total / n);
    metrics_set(m, "val/clipfrac_avg", u->value_clipfrac / n);
    metrics_set(m, "val/ratio", u->ratio / n);
    metrics_set(m, "val/ratio_var", u->ratio_var / n);
    metrics_set(m, "val/explained_variance", variance > 0 ? 1 - u->value_error / n / variance : 0);
    metrics_set(m, "val/num_skipped_updates", (double)(u->n - u->n_updates));
    metrics_set(m, "grad_norm", u->n_updates ? u->norm / (double)u->n_updates : 0);
}

int ppo_step(struct ppo *p, struct metrics *metrics, int64_t step)
{
    const struct settings *s = p->rollout.settings;
    struct rollout_request ask = {.prompts = &p->rollout.prompts,
                                  .first = step * s->ppo.batch_size,
                                  .n = s->ppo.batch_size,
                                  .step = (uint32_t)step,
                                  .temperature = (float)s->generate.temperature,
                                  .with_logprobs = true};
    struct update_sums sums = {0};
    double kl_mean, non_score;
    TRY(rollout_run(&p->rollout, &p->samples, &ask));
    advantages(p, &kl_mean, &non_score);
    metrics_set(metrics, "step", (double)(step + 1));
    metrics_set(metrics, "episode", (double)((step + 1) * s->ppo.batch_size));
    describe_samples(p, metrics, kl_mean, non_score);
    TRY(update(p, step, &sums));
    describe_update(p, metrics, &sums);
    metrics_set(metrics, "lr", schedule_rate(p->schedule, s->optim.learning_rate, step, s->optim.warmup_steps, p->total_steps));
    kl_adapt(&p->kl, kl_mean, s->ppo.batch_size);
    struct trainable *t = &p->rollout.model->trainable;
    struct backend *be = p->rollout.model->be;
    return comm_hash_equal(p->rollout.comm, be->ops->hash(be, t->value, (size_t)t->n * sizeof(float)),
                           "the trainable parameters");
}
