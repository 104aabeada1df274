/* Forward and backward of this rank's examples; the loss from the records of all. */
#include "causal_lm.h"

#include "error.h"
#include "fmath.h"

/* Of an example: sums over its targets. */
struct causal_lm_record {
    double nll, entropy;
};

static struct causal_lm_example example_of(const struct causal_lm *lm, const struct supervised_item *item, bool train)
{
    return lm->example(lm->source, item->example, train);
}

static int64_t tokens(void *causal_lm, const struct supervised_item *item, bool train)
{
    return example_of(causal_lm, item, train).n;
}

static void layout(void *causal_lm, struct arena *a)
{
    struct causal_lm *lm = causal_lm;
    const size_t S = (size_t)lm->engine->shape.batch_seqs, T = (size_t)lm->engine->need.longest_targets;
    lm->sequence = arena_take(a, MEM_HOST, S * sizeof *lm->sequence);
    lm->logprob = arena_take(a, MEM_HOST, S * T * sizeof *lm->logprob);
    lm->entropy = arena_take(a, MEM_HOST, S * T * sizeof *lm->entropy);
    lm->derivative = arena_take(a, MEM_HOST, T * sizeof *lm->derivative);
}

/* Targets of all ranks. */
static int64_t count_targets(const struct causal_lm *lm, const struct supervised_batch *b)
{
    int64_t targets = 0;
    for (int i = 0; i < b->n; i++) {
        const struct causal_lm_example x = example_of(lm, &b->item[i], b->train);
        targets += x.n - x.first;
    }
    return targets;
}

/* The next sequences of this rank, from mine[done] on, as many as one pass takes. */
static int fill(struct causal_lm *lm, const struct supervised_batch *b, int done)
{
    const int S = lm->engine->shape.batch_seqs, T = lm->engine->need.longest_targets, left = b->n_mine - done;
    const int n = left < S ? left : S;
    for (int k = 0; k < n; k++) {
        const struct supervised_item *item = &b->item[b->mine[done + k]];
        const struct causal_lm_example x = example_of(lm, item, b->train);
        lm->sequence[k] = (struct sequence){.sample = item->sample,
                                            .ids = x.ids,
                                            .n = x.n,
                                            .first = x.first,
                                            .logprob = lm->logprob + (int64_t)k * T,
                                            .entropy = lm->entropy + (int64_t)k * T,
                                            .dlogprob = lm->derivative};
    }
    return micro_batch_take(&lm->engine->micro_batch, lm->sequence, n, (int)lm->micro_batch_size);
}

static int pass_over(struct causal_lm *lm, int n, const struct model_pass *pass)
{
    struct micro_batch *mb = &lm->engine->micro_batch;
    int64_t tokens = 0;
    for (int k = 0; k < n; k++)
        tokens += lm->sequence[k].n;
    timing_begin(lm->timing, PHASE_FORWARD);
    int rc = micro_batch_forward(mb, lm->sequence, n, pass, 1.0f);
    timing_end(lm->timing, tokens);
    if (rc || !pass->keep)
        return rc;
    timing_begin(lm->timing, PHASE_BACKWARD);
    rc = micro_batch_backward(mb, lm->sequence, n, pass, 1.0f);
    timing_end(lm->timing, tokens);
    return rc;
}

static void record(struct record_list *mine, int place, const struct sequence *s)
{
    struct causal_lm_record r = {0};
    for (int t = 0; t < s->n - s->first; t++) {
        r.nll -= s->logprob[t];
        r.entropy += s->entropy[t];
    }
    records_add(mine, place, &r, sizeof r);
}

static int share(void *causal_lm, const struct supervised_batch *b, struct record_list *mine)
{
    struct causal_lm *lm = causal_lm;
    const struct engine *e = lm->engine;
    const struct model_pass pass = {.adapter = e->need.adapters ? 0 : -1,
                                    .dropout = b->train && e->need.adapters && e->settings->lora.lora_dropout > 0,
                                    .step = b->update,
                                    .keep = b->train};
    const double targets = (double)count_targets(lm, b);
    for (int t = 0; t < e->need.longest_targets; t++)
        lm->derivative[t] = (float)(-1.0 / targets);
    for (int done = 0, n; done < b->n_mine; done += n) {
        n = fill(lm, b, done);
        TRY(pass_over(lm, n, &pass));
        for (int k = 0; k < n; k++)
            record(mine, b->mine[done + k], &lm->sequence[k]);
    }
    return 0;
}

static double describe(void *causal_lm, struct metrics *m, const struct supervised_batch *b, const struct record_list *all)
{
    const struct causal_lm *lm = causal_lm;
    const double targets = (double)count_targets(lm, b);
    double nll = 0, entropy = 0;
    for (int i = 0; i < b->n; i++) {
        const struct causal_lm_record *r = records_bytes(all, i);
        nll += r->nll;
        entropy += r->entropy;
    }
    metrics_set(m, b->train ? "loss" : "eval/loss", nll / targets);
    if (!b->train)
        metrics_set(m, "eval/perplexity", math_exp(nll / targets));
    metrics_set(m, b->train ? "entropy" : "eval/entropy", entropy / targets);
    return nll / targets;
}

struct supervised_task causal_lm_task(struct causal_lm *lm)
{
    return (struct supervised_task){.context = lm,
                                    .sequences = 1,
                                    .record_bytes = sizeof(struct causal_lm_record),
                                    .tokens = tokens,
                                    .share = share,
                                    .describe = describe,
                                    .layout = layout};
}
