/* One batch of preference pairs and one of labelled texts against values recorded from transformers, peft and TRL in float64
 * (tests/reference/record_scores.py): scores, loss, metrics, every gradient, and the trainables after two clipped AdamW updates.
 * Through the calls that the supervised loop makes, with the examples on one rank or dealt to two. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gradient.h"
#include "score_task.h"
#include "support/model_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMPLES_MOST = 4, CLASSES_MOST = 3, ROOM = 6 };

struct scored {
    struct bench bench;
    struct peft_adapter adapter;
    struct settings settings;
    struct engine engine; /* what the task uses of one */
    struct timing timing;
    struct score_examples train, none;
    struct score_task score;
    struct supervised_task task;
    struct safetensors expected;
    json_t *root;
    char folder[64];
    struct score_example example[EXAMPLES_MOST];
    struct sequence sequence[ROOM];
    float scores[ROOM * CLASSES_MOST], dscores[ROOM * CLASSES_MOST];
    double derivative[CLASSES_MOST];
};

/* A file of the folder of this kind of batch. */
static const char *file_of(struct scored *s, const char *file)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", s->folder, file);
    return bench_file(&s->bench, path);
}

static void read_examples(struct scored *s, bool pairs)
{
    const json_t *ids = json_object_get(s->root, "ids"), *margins = json_object_get(s->root, "margins"),
                 *labels = json_object_get(s->root, "labels");
    const int width = pairs ? 2 : 1;
    s->train = (struct score_examples){.example = s->example, .n = (int64_t)json_array_size(ids) / width, .pairs = pairs};
    assert_true(s->train.n > 1 && s->train.n <= EXAMPLES_MOST);
    for (int64_t i = 0; i < s->train.n; i++) {
        struct score_example *e = &s->example[i];
        e->label = (int)json_integer_value(json_array_get(labels, (size_t)i));
        e->margin = json_number_value(json_array_get(margins, (size_t)i));
        for (int k = 0; k < width; k++) {
            const json_t *list = json_array_get(ids, (size_t)(width * i + k));
            e->start[k] = s->train.tokens.n;
            e->n[k] = (int)json_array_size(list);
            for (int t = 0; t < e->n[k]; t++)
                token_list_add(&s->train.tokens, (int32_t)json_integer_value(json_array_get(list, (size_t)t)));
        }
    }
}

static void scored_open(struct scored *s, const char *model, bool pairs, int micro_batch)
{
    struct bench *b = &s->bench;
    const struct bench_options o = {.use = ARCH_BACKBONE};
    memset(s, 0, sizeof *s);
    timing_init(&s->timing);
    snprintf(s->folder, sizeof s->folder, "%s", pairs ? "pairs" : "classes");
    bench_describe(b, model, &o);
    bench_done(peft_open(&s->adapter, bench_file(b, s->folder), &b->folder.arch));
    bench_done(lora_attach(&b->model, &s->adapter.config, 1));
    model_add_score_head(&b->model, pairs ? 1 : CLASSES_MOST, b->folder.arch.bidirectional, true, arch_head_module(&b->folder.arch));
    bench_load(b, &o);
    bench_done(lora_read(&b->model, &s->adapter, bench_file(b, s->folder)));
    s->root = bench_json(b, pairs ? "pairs/expected.json" : "classes/expected.json");
    bench_done(safetensors_open(&s->expected, file_of(s, "expected.safetensors")));
    bench_bounds(b, s->root);
    read_examples(s, pairs);
    s->engine.settings = &s->settings;
    s->engine.micro_batch = b->mb;
    s->engine.shape = b->model.shape;
    s->score = (struct score_task){.engine = &s->engine,
                                   .timing = &s->timing,
                                   .train = &s->train,
                                   .eval = &s->none,
                                   .micro_batch_size = micro_batch,
                                   .n_scores = b->model.score.n,
                                   .center = pairs ? bench_number(s->root, "center") : 0,
                                   .sequence = s->sequence,
                                   .score = s->scores,
                                   .dscore = s->dscores,
                                   .derivative = s->derivative};
    s->task = score_task_of(&s->score);
}

static void scored_close(struct scored *s)
{
    token_list_free(&s->train.tokens);
    safetensors_close(&s->expected);
    peft_close(&s->adapter);
    json_decref(s->root);
    bench_close(&s->bench);
}

/* As one vector: on CUDA a single score may be small beside what its rounded terms cancel. */
static void check_scores(const struct scored *s, const struct record_list *all)
{
    const int64_t numbers = (int64_t)(s->task.record_bytes / sizeof(float)), n = all->n * numbers;
    float got[EXAMPLES_MOST * ROOM];
    float *want = bench_floats(&s->expected, "score", n);
    for (int64_t i = 0; i < all->n; i++)
        memcpy(got + i * numbers, records_bytes(all, i), s->task.record_bytes);
    bench_expect(&s->bench, "scores", got, want, n);
    free(want);
}

/* Gradients and records of the batch, dealt to so many ranks, which this process is one after the other; first: the scores are the
 * recorded ones. Returns the loss. */
static double train(struct scored *s, int ranks, bool first, struct metrics *m)
{
    const int n = (int)s->train.n;
    struct supervised_item item[EXAMPLES_MOST];
    struct record_list part = {0}, all = {0};
    int mine[EXAMPLES_MOST];
    for (int i = 0; i < n; i++)
        item[i] = (struct supervised_item){100 + i, i};
    struct supervised_batch batch = {.train = true, .n = n, .item = item, .mine = mine};
    gradient_begin(&s->bench.model, n * s->task.sequences);
    for (int r = 0; r < ranks; r++) {
        batch.n_mine = 0;
        for (int i = r; i < n; i += ranks)
            mine[batch.n_mine++] = i;
        bench_done(s->task.share(s->task.context, &batch, &part));
    }
    for (int64_t key = 0; key < n; key++)
        for (int64_t i = 0; i < part.n; i++)
            if (part.records[i].key == key)
                records_add(&all, key, records_bytes(&part, i), part.records[i].n);
    assert_int_equal(all.n, n);
    if (first)
        check_scores(s, &all);
    const double loss = s->task.describe(s->task.context, m, &batch, &all);
    records_free(&part);
    records_free(&all);
    return loss;
}

static void check_gradients(struct scored *s)
{
    const struct trainable *t = &s->bench.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        const bool lora = strstr(e->name, ".lora_") != NULL;
        char name[256];
        snprintf(name, sizeof name, "grad.base_model.model.%s%s", e->name, lora ? ".weight" : "");
        float *want = bench_floats(&s->expected, name, e->rows * e->cols);
        bench_expect_gradient(&s->bench, e->name, e->offset, want, e->rows * e->cols);
        free(want);
    }
}

/* By how far the updates moved each tensor. */
static void check_updated(struct scored *s, const float *before)
{
    const struct trainable *t = &s->bench.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        const bool lora = strstr(e->name, ".lora_") != NULL;
        double off = 0, moved = 0;
        char name[256];
        snprintf(name, sizeof name, "updated.base_model.model.%s%s", e->name, lora ? ".weight" : "");
        float *want = bench_floats(&s->expected, name, e->rows * e->cols);
        for (int64_t k = 0; k < e->rows * e->cols; k++) {
            const double d = (double)t->value[e->offset + k] - want[k], step = (double)want[k] - before[e->offset + k];
            off += d * d;
            moved += step * step;
        }
        if (!(off <= 1e-6 * moved))
            fail_msg("%s: the updates differ by %.3g of their norm", e->name, sqrt(off / moved));
        free(want);
    }
}

static void check_metrics(const struct scored *s, const struct metrics *m, double loss)
{
    const double want = bench_number(json_object_get(s->root, "expected"), "loss");
    assert_true(metrics_get(m, "loss") == loss);
    if (!(fabs(loss - want) <= (bench_rounded(&s->bench) ? 3e-2 : 1e-5) * want))
        fail_msg("loss %.9g, not %.9g", loss, want);
    assert_true(metrics_get(m, "accuracy") >= 0 && metrics_get(m, "accuracy") <= 1);
    if (s->train.pairs)
        assert_true(metrics_get(m, "min_reward") <= metrics_get(m, "mean_reward") &&
                    metrics_get(m, "mean_reward") <= metrics_get(m, "max_reward"));
}

/* Updates are compared where the trainables lie in memory that can be read here, and activations are not rounded. */
static void check_batch(const char *model, bool pairs, int ranks, int micro_batch)
{
    static struct scored s;
    scored_open(&s, model, pairs, micro_batch);
    struct model *m = &s.bench.model;
    const json_t *how = json_object_get(s.root, "settings"), *want = json_object_get(s.root, "expected");
    struct optimizer o = {.beta1 = bench_number(how, "adam_beta1"), .beta2 = bench_number(how, "adam_beta2"),
                          .epsilon = bench_number(how, "adam_epsilon"), .weight_decay = bench_number(how, "weight_decay"),
                          .max_grad_norm = bench_number(how, "max_grad_norm")};
    const size_t bytes = (size_t)m->trainable.n * sizeof(float);
    float *before = malloc(bytes);
    assert_non_null(before);
    m->be->ops->copy_out(m->be, before, m->trainable.value, bytes);
    for (int update = 0; update < (int)bench_number(how, "updates"); update++) {
        struct metrics metrics = {0};
        char key[32];
        double norm;
        const double loss = train(&s, ranks, update == 0, &metrics);
        if (update == 0) {
            check_metrics(&s, &metrics, loss);
            check_gradients(&s);
        }
        if (bench_rounded(&s.bench))
            break;
        optimizer_update(&o, m, bench_number(how, "learning_rate"), &norm);
        snprintf(key, sizeof key, "grad_norm_%d", update);
        assert_true(fabs(norm - bench_number(want, key)) <= 1e-4 * bench_number(want, key));
    }
    if (!bench_rounded(&s.bench))
        check_updated(&s, before);
    free(before);
    scored_close(&s);
}

static void test_pairs_equal_reference(void **state)
{
    (void)state;
    check_batch("neox-parallel", true, 1, 0);
    check_batch("neox-parallel", true, 2, 1);
    check_batch("llama-gqa", true, 1, 1);
}

static void test_classes_equal_reference(void **state)
{
    (void)state;
    check_batch("neox-parallel", false, 1, 0);
    check_batch("llama-gqa", false, 2, 1);
    check_batch("families/distilbert", false, 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_equal_reference),
        cmocka_unit_test(test_classes_equal_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
