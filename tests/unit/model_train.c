/* Training passes of every family against values recorded from transformers, peft and torch in float64 (tests/reference/families):
 * outputs of a policy and scores of a classifier, the gradients of a weighted sum of them in adapters on all of the layers'
 * linears and in the head. And what decides nothing: threads, micro-batches, recomputation, decoding instead of the pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gradient.h"
#include "support/model_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3 };

static const char *const policies[] = {"gpt2", "gpt-neo", "opt", "opt-post-norm", "mistral", "qwen2", "qwen2-window", "qwen3"};
static const char *const classifiers[] = {"gpt2-classifier", "llama-classifier", "distilbert", "bert", "roberta"};
enum { POLICIES = sizeof policies / sizeof *policies, CLASSIFIERS = sizeof classifiers / sizeof *classifiers };

/* A recorded folder and its model, with what the record says of it. */
struct train {
    struct bench b;
    struct safetensors recorded;
    json_t *root;
    int32_t ids[SEQUENCES][LONGEST];
    int n, length[SEQUENCES], first[SEQUENCES], rows; /* first: of the response; rows: response tokens in all */
    int classes;                                      /* of a classifier; 0: a policy */
    float *score;                                     /* [n][classes] */
    float *logprob, *entropy, *value;                 /* [rows] */
    float *given[3];                                  /* derivatives of the outputs: [rows] each, or the scores' in the first */
};

static const float *output(const struct train *t, int which)
{
    return which == 0 ? (t->classes ? t->score : t->logprob) : which == 1 ? t->entropy : t->value;
}

/* Which modules have adapters: all of the layers' linears, or those of the last layer. */
static void attach(struct train *t, bool last_layer)
{
    struct model *m = &t->b.model;
    struct peft_config config = {.r = 2, .lora_alpha = 4};
    const int last = m->arch->layers - 1;
    peft_targets_set_string(&config.target_modules, "all-linear");
    for (int j = 0; last_layer && j < ARCH_LINEARS_MAX; j++) {
        char module[ARCH_NAME_MAX];
        if (!m->arch->linear[j].out)
            continue;
        arch_module_name(module, sizeof module, m->arch, last, (enum arch_slot)j);
        peft_targets_add(&config.target_modules, module);
    }
    bench_done(lora_attach(m, &config, 1));
    peft_config_free(&config);
}

/* Recorded values of the adapters and of the head into the trainable vector. */
static void fill_trainables(struct train *t)
{
    struct model *m = &t->b.model;
    for (int i = 0; i < m->trainable.n_entries; i++) {
        const struct trainable_entry *e = &m->trainable.entry[i];
        char name[256];
        if (strstr(e->name, ".lora_"))
            snprintf(name, sizeof name, "adapter.%s", e->name);
        else
            snprintf(name, sizeof name, "head%s", strrchr(e->name, '.'));
        float *values = bench_floats(&t->recorded, name, e->rows * e->cols);
        t->b.be.ops->copy_in(&t->b.be, m->trainable.value + e->offset, values, (size_t)(e->rows * e->cols) * sizeof *values);
        free(values);
    }
    model_refresh(m);
}

static void read_record(struct train *t)
{
    const json_t *prompts = json_object_get(t->root, "prompt_tokens");
    t->n = bench_ids(t->root, t->ids, t->length);
    for (int i = 0; i < t->n; t->rows += t->length[i] - t->first[i], i++)
        t->first[i] = (int)json_integer_value(json_array_get(prompts, (size_t)i));
    if (t->classes) {
        t->given[0] = bench_floats(&t->recorded, "dscore", t->n * t->classes);
        t->score = calloc(SEQUENCES * CLASSES, sizeof *t->score);
        return;
    }
    static const char *const names[] = {"dlogprob", "dentropy", "dvalue"};
    float **outputs[] = {&t->logprob, &t->entropy, &t->value};
    for (int i = 0; i < 3; i++) {
        t->given[i] = bench_floats(&t->recorded, names[i], t->rows);
        *outputs[i] = calloc(TOKENS, sizeof(float));
    }
}

static void train_open(struct train *t, const char *name, struct bench_options o, bool last_layer)
{
    char folder[256];
    snprintf(folder, sizeof folder, "families/%s", name);
    *t = (struct train){0};
    bench_locate(&t->b, folder);
    t->root = bench_json(&t->b, "train.json");
    bench_done(safetensors_open(&t->recorded, bench_file(&t->b, "train.safetensors")));
    const struct safetensors_entry *scores = safetensors_find(&t->recorded, "dscore");
    t->classes = scores ? (int)scores->shape[1] : 0;
    o.use = scores ? ARCH_BACKBONE : ARCH_LANGUAGE_MODEL;
    bench_describe(&t->b, folder, &o);
    bench_bounds(&t->b, t->root);
    attach(t, last_layer);
    if (t->classes)
        model_add_score_head(&t->b.model, t->classes, safetensors_find(&t->recorded, "head.bias") != NULL, true, "score");
    else
        model_add_value_head(&t->b.model);
    bench_load(&t->b, &o);
    fill_trainables(t);
    read_record(t);
}

static void train_close(struct train *t)
{
    float *owned[] = {t->score, t->logprob, t->entropy, t->value, t->given[0], t->given[1], t->given[2]};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    safetensors_close(&t->recorded);
    json_decref(t->root);
    bench_close(&t->b);
}

/* Forward and backward of the record's sequences, at most `together` in a micro-batch. */
static void pass(struct train *t, int together)
{
    struct sequence s[SEQUENCES];
    const struct model_pass pass = {.adapter = 0, .keep = true, .entropy_gradient = !t->classes};
    const float temperature = (float)bench_number(t->root, "temperature");
    struct micro_batch *mb = &t->b.mb;
    for (int i = 0, R = 0; i < t->n; R += t->length[i] - t->first[i], i++) {
        s[i] = (struct sequence){.sample = i, .ids = t->ids[i], .n = t->length[i], .first = t->classes ? t->length[i] : t->first[i]};
        if (t->classes)
            continue;
        s[i].logprob = t->logprob + R;
        s[i].entropy = t->entropy + R;
        s[i].value = t->value + R;
        s[i].dlogprob = t->given[0] + R;
        s[i].dentropy = t->given[1] + R;
        s[i].dvalue = t->given[2] + R;
    }
    gradient_begin(&t->b.model, t->n);
    for (int i = 0; i < t->n; i += together) {
        const int k = t->n - i < together ? t->n - i : together, at = i * t->classes;
        if (t->classes) {
            bench_done(micro_batch_scores(mb, s + i, k, &pass, t->score + at));
            bench_done(micro_batch_backward_scores(mb, t->given[0] + at, &pass));
        } else {
            bench_done(micro_batch_forward(mb, s + i, k, &pass, temperature));
            bench_done(micro_batch_backward(mb, s + i, k, &pass, temperature));
        }
    }
    int64_t overflow = -1;
    t->b.be.ops->copy_out(&t->b.be, &overflow, t->b.model.trainable.grads.overflow, sizeof overflow);
    assert_int_equal(overflow, 0);
}

static void expect_outputs(struct train *t)
{
    static const char *const names[] = {"logprob", "entropy", "value"};
    for (int i = 0; i < (t->classes ? 1 : 3); i++) {
        const char *name = t->classes ? "score" : names[i];
        const int64_t n = t->classes ? t->n * t->classes : t->rows;
        float *want = bench_floats(&t->recorded, name, n);
        bench_expect(&t->b, name, output(t, i), want, n);
        free(want);
    }
}

static void expect_gradients(struct train *t)
{
    const struct trainable *trainable = &t->b.model.trainable;
    for (int i = 0; i < trainable->n_entries; i++) {
        const struct trainable_entry *e = &trainable->entry[i];
        char name[256];
        if (strstr(e->name, ".lora_"))
            snprintf(name, sizeof name, "grad.%s", e->name);
        else
            snprintf(name, sizeof name, "grad.head%s", strrchr(e->name, '.'));
        float *want = bench_floats(&t->recorded, name, e->rows * e->cols);
        bench_expect_gradient(&t->b, name, e->offset, want, e->rows * e->cols);
        free(want);
    }
}

static void check_recorded(const char *name)
{
    struct train t;
    train_open(&t, name, (struct bench_options){0}, false);
    pass(&t, SEQUENCES);
    expect_outputs(&t);
    expect_gradients(&t);
    train_close(&t);
}

static void test_policies(void **state)
{
    (void)state;
    for (int i = 0; i < POLICIES; i++)
        check_recorded(policies[i]);
}

static void test_classifiers(void **state)
{
    (void)state;
    for (int i = 0; i < CLASSIFIERS; i++)
        check_recorded(classifiers[i]);
}

/* [n] int64, the caller's to free */
static int64_t *sums(struct train *t)
{
    const struct grads *g = &t->b.model.trainable.grads;
    int64_t *sum = malloc((size_t)g->n * sizeof *sum);
    assert_non_null(sum);
    t->b.be.ops->copy_out(&t->b.be, sum, g->sum, (size_t)g->n * sizeof *sum);
    return sum;
}

/* How a pass may be run without changing a bit. */
static const struct {
    struct bench_options options;
    int together;
} ways[] = {{{.threads = 1}, SEQUENCES}, {{.threads = 4}, SEQUENCES}, {{.threads = 2}, 1}, {{.kept_layers = 1}, 2}};

static void check_ways(const char *name)
{
    struct train one;
    train_open(&one, name, (struct bench_options){0}, false);
    pass(&one, SEQUENCES);
    int64_t *want = sums(&one);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct train other;
        train_open(&other, name, ways[i].options, false);
        pass(&other, ways[i].together);
        int64_t *got = sums(&other);
        assert_memory_equal(got, want, (size_t)one.b.model.trainable.n * sizeof *got);
        for (int k = 0; k < (one.classes ? 1 : 3); k++)
            assert_memory_equal(output(&other, k), output(&one, k), (size_t)(one.classes ? one.n * one.classes : one.rows) * sizeof(float));
        free(got);
        train_close(&other);
    }
    free(want);
    train_close(&one);
}

static void test_the_way_a_pass_is_run_changes_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < POLICIES; i++)
        check_ways(policies[i]);
    for (int i = 0; i < CLASSIFIERS; i++)
        check_ways(classifiers[i]);
}

/* Adapters of the last layer alone, while the recorded ones of the others are left out: gradients end there, and the recomputed
 * pass agrees. Against the same model with adapters everywhere whose other B are zero. */
static void check_last_layer(const char *name)
{
    struct train last, all;
    train_open(&last, name, (struct bench_options){0}, true);
    train_open(&all, name, (struct bench_options){0}, false);
    const struct trainable *t = &all.b.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        if (strstr(e->name, ".lora_B") && !trainable_find(&last.b.model.trainable, e->name))
            all.b.be.ops->zero(&all.b.be, t->value + e->offset, (size_t)(e->rows * e->cols) * sizeof(float));
    }
    model_refresh(&all.b.model);
    pass(&last, SEQUENCES);
    pass(&all, SEQUENCES);
    int64_t *got = sums(&last), *want = sums(&all);
    for (int i = 0; i < last.b.model.trainable.n_entries; i++) {
        const struct trainable_entry *e = &last.b.model.trainable.entry[i], *same = trainable_find(t, e->name);
        assert_non_null(same);
        assert_memory_equal(got + e->offset, want + same->offset, (size_t)(e->rows * e->cols) * sizeof *got);
    }
    free(got);
    free(want);
    train_close(&last);
    train_close(&all);
}

static void test_gradients_end_at_the_lowest_adapter(void **state)
{
    (void)state;
    check_last_layer("gpt2");
    check_last_layer("opt-post-norm");
    check_last_layer("bert");
}

/* Token by token through the cache, with the adapter: the states of the training pass, bit for bit. */
static void check_decode(const char *name)
{
    struct train t;
    train_open(&t, name, (struct bench_options){0}, false);
    pass(&t, 1);
    struct bench *b = &t.b;
    const int N = t.length[0], W = b->folder.arch.embedding_width;
    struct sequence s = {.ids = t.ids[0], .n = N, .first = 1, .logprob = t.logprob};
    struct model_pass how = {.adapter = 0};
    bench_done(micro_batch_forward(&b->mb, &s, 1, &how, 1.0f));
    float *whole = bench_acts(b, b->model.hidden, (int64_t)N * W);
    int32_t start[33], sequence[32], slot[32];
    int64_t sample[32] = {0};
    const int rows = decode_rows(&b->be, 1);
    how.decode = true;
    for (int k = 0; k < N; k++) {
        int32_t id[32] = {t.ids[0][k]}, position[32] = {k};
        for (int i = 0; i <= rows; i++) {
            start[i] = i;
            if (i < rows) {
                sequence[i] = i;
                slot[i] = i == 0 ? 1 : b->model.layer[0].cache.slots - 1;
            }
        }
        struct batch one = {rows, rows, id, position, sequence, start, slot, sample};
        model_batch(&b->model, &one);
        model_send(&b->model);
        model_forward(&b->model, &how);
        float *hidden = bench_acts(b, b->model.hidden, W);
        assert_memory_equal(hidden, whole + (int64_t)k * W, (size_t)W * sizeof *whole);
        free(hidden);
    }
    free(whole);
    train_close(&t);
}

static void test_decode_equals_the_training_pass(void **state)
{
    (void)state;
    for (int i = 0; i < POLICIES; i++)
        check_decode(policies[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_classifiers),
        cmocka_unit_test(test_the_way_a_pass_is_run_changes_no_bit),
        cmocka_unit_test(test_gradients_end_at_the_lowest_adapter),
        cmocka_unit_test(test_decode_equals_the_training_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
