/* Forward and backward of this rank's examples; the loss from the scores of all. */
#include "score_task.h"

#include "error.h"
#include "score_loss.h"

#include <stdio.h>

static const struct score_example *example_of(const struct score_task *t, const struct supervised_item *item, bool train)
{
    return &(train ? t->train : t->eval)->example[item->example];
}

/* Sequences of an example. */
static int width(const struct score_task *t)
{
    return t->train->pairs ? 2 : 1;
}

/* Numbers that stay of an example: its scores. */
static int n_numbers(const struct score_task *t)
{
    return width(t) * t->n_scores;
}

static int64_t tokens(void *score_task, const struct supervised_item *item, bool train)
{
    const struct score_example *e = example_of(score_task, item, train);
    return e->n[0] + e->n[1];
}

static void layout(void *score_task, struct arena *a)
{
    struct score_task *t = score_task;
    const size_t S = (size_t)t->engine->shape.batch_seqs, K = (size_t)t->n_scores;
    t->sequence = arena_take(a, MEM_HOST, S * sizeof *t->sequence);
    t->score = arena_take(a, MEM_HOST, S * K * sizeof *t->score);
    t->dscore = arena_take(a, MEM_HOST, S * K * sizeof *t->dscore);
    t->derivative = arena_take(a, MEM_HOST, (size_t)n_numbers(t) * sizeof *t->derivative);
}

/* The loss of an example from its scores, with the derivatives in t->derivative. */
static double loss_of(struct score_task *t, const struct score_example *e, const float *score)
{
    return t->train->pairs ? score_loss_pair(t->derivative, score, e->margin, t->center)
                           : score_loss_class(t->derivative, score, t->n_scores, e->label);
}

/* The next examples of this rank, from mine[done] on, as many as one pass takes: sequences one behind the other. */
static int fill(struct score_task *t, const struct supervised_batch *b, int done)
{
    const struct score_examples *x = b->train ? t->train : t->eval;
    const int w = width(t), room = t->engine->shape.batch_seqs / w, left = b->n_mine - done;
    const int n = left < room ? left : room;
    CHECK(n > 0, "a pair needs a pass of two sequences");
    for (int k = 0; k < n; k++) {
        const struct supervised_item *item = &b->item[b->mine[done + k]];
        const struct score_example *e = example_of(t, item, b->train);
        for (int i = 0; i < w; i++)
            t->sequence[w * k + i] = (struct sequence){
                .sample = w * item->sample + i, .ids = x->tokens.ids + e->start[i], .n = e->n[i], .first = e->n[i]};
    }
    return micro_batch_take(&t->engine->micro_batch, t->sequence, w * n, w * (int)t->micro_batch_size) / w;
}

static int forward(struct score_task *t, int n, const struct model_pass *pass, int64_t *n_tokens)
{
    const int n_seqs = n * width(t);
    *n_tokens = 0;
    for (int k = 0; k < n_seqs; k++)
        *n_tokens += t->sequence[k].n;
    timing_begin(t->timing, PHASE_FORWARD);
    int rc = micro_batch_scores(&t->engine->micro_batch, t->sequence, n_seqs, pass, t->score);
    timing_end(t->timing, *n_tokens);
    return rc;
}

static int backward(struct score_task *t, const struct supervised_batch *b, int done, int n, const struct model_pass *pass,
                    int64_t n_tokens)
{
    const int numbers = n_numbers(t);
    for (int k = 0; k < n; k++) {
        const struct score_example *e = example_of(t, &b->item[b->mine[done + k]], b->train);
        loss_of(t, e, t->score + (int64_t)k * numbers);
        for (int i = 0; i < numbers; i++)
            t->dscore[(int64_t)k * numbers + i] = (float)(t->derivative[i] / b->n);
    }
    timing_begin(t->timing, PHASE_BACKWARD);
    int rc = micro_batch_backward_scores(&t->engine->micro_batch, t->dscore, pass);
    timing_end(t->timing, n_tokens);
    return rc;
}

static int share(void *score_task, const struct supervised_batch *b, struct record_list *mine)
{
    struct score_task *t = score_task;
    const bool adapters = !t->head_only;
    const struct model_pass pass = {.adapter = adapters ? 0 : -1,
                                    .dropout = b->train && adapters && t->engine->settings->lora.lora_dropout > 0,
                                    .step = b->update,
                                    .keep = b->train};
    const int numbers = n_numbers(t);
    for (int done = 0, n; done < b->n_mine; done += n) {
        int64_t n_tokens;
        n = fill(t, b, done);
        TRY(forward(t, n, &pass, &n_tokens));
        if (b->train)
            TRY(backward(t, b, done, n, &pass, n_tokens));
        for (int k = 0; k < n; k++)
            records_add(mine, b->mine[done + k], t->score + (int64_t)k * numbers, (size_t)numbers * sizeof *t->score);
    }
    return 0;
}

/* ---- what the scores of a batch say ---- */

struct totals {
    double loss, right, margin, reward, least, most;
};

static void add_pair(struct totals *s, const float score[2], bool first)
{
    s->right += score[0] > score[1];
    s->margin += (double)score[0] - score[1];
    s->reward += (double)score[0] + score[1];
    for (int i = 0; i < 2; i++) {
        s->least = (first && !i) || score[i] < s->least ? score[i] : s->least;
        s->most = (first && !i) || score[i] > s->most ? score[i] : s->most;
    }
}

static int highest(const float *score, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = score[i] > score[best] ? i : best;
    return best;
}

static void set(struct metrics *m, const struct supervised_batch *b, const char *name, double value)
{
    char full[METRIC_NAME_MAX];
    snprintf(full, sizeof full, "%s%s", b->train ? "" : "eval/", name);
    metrics_set(m, full, value);
}

static double describe(void *score_task, struct metrics *m, const struct supervised_batch *b, const struct record_list *all)
{
    struct score_task *t = score_task;
    struct totals s = {0};
    for (int i = 0; i < b->n; i++) {
        const struct score_example *e = example_of(t, &b->item[i], b->train);
        const float *score = records_bytes(all, i);
        s.loss += loss_of(t, e, score);
        if (t->train->pairs)
            add_pair(&s, score, i == 0);
        else
            s.right += highest(score, t->n_scores) == e->label;
    }
    set(m, b, "loss", s.loss / b->n);
    set(m, b, "accuracy", s.right / b->n);
    if (t->train->pairs) {
        set(m, b, "margin", s.margin / b->n);
        set(m, b, "min_reward", s.least);
        set(m, b, "mean_reward", s.reward / (2.0 * b->n));
        set(m, b, "max_reward", s.most);
    }
    return s.loss / b->n;
}

struct supervised_task score_task_of(struct score_task *t)
{
    return (struct supervised_task){.context = t,
                                    .n_train = t->train->n,
                                    .n_eval = t->eval->n,
                                    .sequences = width(t),
                                    .record_bytes = (size_t)n_numbers(t) * sizeof(float),
                                    .tokens = tokens,
                                    .share = share,
                                    .describe = describe,
                                    .layout = layout};
}
