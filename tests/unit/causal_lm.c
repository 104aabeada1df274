/* One SFT batch against values recorded from transformers, peft and TRL in float64 (tests/reference): prompts that are masked and
 * a packed block; loss, log-probabilities, every gradient, and the adapters after two clipped AdamW updates. Through the calls
 * that the supervised loop makes, with the examples on one rank or dealt to two. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "causal_lm.h"
#include "document.h"
#include "error.h"
#include "gradient.h"
#include "lora.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMPLES = 3, LONGEST = 40, TARGETS = 32 };

struct bench {
    char path[512];
    struct settings settings;
    struct engine engine; /* as engine_load leaves it, without tokenizer and ranks */
    struct peft_adapter adapter;
    struct timing timing;
    struct causal_lm lm;
    struct supervised_task task;
    struct safetensors expected;
    json_t *root;
    int32_t ids[EXAMPLES][LONGEST];
    struct causal_lm_example example[EXAMPLES];
};

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

static const char *in_folder(const struct bench *b, const char *file)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", b->path, file);
    return path;
}

static double number(const json_t *root, const char *key)
{
    return json_number_value(json_object_get(root, key));
}

static struct causal_lm_example example(const void *bench, int64_t index, bool train)
{
    (void)train;
    return ((const struct bench *)bench)->example[index];
}

static void layout(struct bench *b)
{
    struct engine *e = &b->engine;
    model_layout(&e->model, &e->arena, &e->shape);
    micro_batch_layout(&e->micro_batch, &e->model, &e->arena);
    b->task.layout(b->task.context, &e->arena);
}

static void read_examples(struct bench *b)
{
    const json_t *list = json_object_get(b->root, "ids"), *prompts = json_object_get(b->root, "prompt_tokens");
    assert_int_equal(json_array_size(list), EXAMPLES);
    for (size_t i = 0; i < EXAMPLES; i++) {
        const json_t *ids = json_array_get(list, i);
        const int n = (int)json_array_size(ids);
        assert_true(n <= LONGEST);
        for (int t = 0; t < n; t++)
            b->ids[i][t] = (int32_t)json_integer_value(json_array_get(ids, (size_t)t));
        b->example[i] = (struct causal_lm_example){b->ids[i], n, (int)json_integer_value(json_array_get(prompts, i))};
    }
}

static void bench_open(struct bench *b, const char *name, int sequences)
{
    const char *srcdir = getenv("srcdir");
    struct engine *e = &b->engine;
    memset(b, 0, sizeof *b);
    timing_init(&b->timing);
    snprintf(b->path, sizeof b->path, "%s/tests/reference/%s", srcdir ? srcdir : ".", name);
    b->root = document_read(in_folder(b, "sft.json"));
    assert_non_null(b->root);
    read_examples(b);
    done(safetensors_open(&b->expected, in_folder(b, "sft.safetensors")));
    done(hf_folder_open(&e->folder, b->path, ARCH_LANGUAGE_MODEL));
    done(backend_open(&e->be, &(struct backend_choice){.device = "cpu", .threads = 2}));
    const enum dtype file = (enum dtype)hf_folder_find(&e->folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
    model_init(&e->model, &e->folder.arch, &e->be, &(struct model_options){.dtype = file, .file_dtype = file});
    done(peft_open(&b->adapter, in_folder(b, "adapter"), &e->folder.arch));
    done(lora_attach(&e->model, &b->adapter.config, 1));
    e->settings = &b->settings;
    e->need = (struct engine_need){.longest = LONGEST, .longest_targets = TARGETS, .train = true, .adapters = true};
    e->shape = (struct model_shape){.batch_tokens = sequences * LONGEST,
                                    .batch_seqs = sequences,
                                    .head_rows = sequences * TARGETS,
                                    .kept_layers = e->folder.arch.layers};
    b->lm = (struct causal_lm){.engine = e, .timing = &b->timing, .example = example, .source = b};
    b->task = causal_lm_task(&b->lm);
    layout(b);
    done(arena_place(&e->arena, &e->be, NULL));
    layout(b);
    model_fill_tables(&e->model);
    done(weights_read(&e->model, &e->folder));
    done(lora_read(&e->model, &b->adapter, in_folder(b, "adapter")));
    arena_freeze(&e->arena);
}

static void bench_close(struct bench *b)
{
    model_free(&b->engine.model);
    b->engine.be.ops->close(&b->engine.be);
    peft_close(&b->adapter);
    hf_folder_close(&b->engine.folder);
    safetensors_close(&b->expected);
    json_decref(b->root);
}

/* The gradients of the batch, dealt to so many ranks which this process is one after the other. Returns the loss. */
static double train(struct bench *b, int ranks, struct metrics *m)
{
    struct supervised_item item[EXAMPLES];
    struct record_list part = {0}, all = {0};
    int mine[EXAMPLES];
    for (int i = 0; i < EXAMPLES; i++)
        item[i] = (struct supervised_item){100 + i, i};
    struct supervised_batch batch = {.train = true, .n = EXAMPLES, .item = item, .mine = mine};
    gradient_begin(&b->engine.model, EXAMPLES);
    for (int r = 0; r < ranks; r++) {
        batch.n_mine = 0;
        for (int i = r; i < EXAMPLES; i += ranks)
            mine[batch.n_mine++] = i;
        done(b->task.share(b->task.context, &batch, &part));
    }
    for (int64_t key = 0; key < EXAMPLES; key++)
        for (int64_t i = 0; i < part.n; i++)
            if (part.records[i].key == key)
                records_add(&all, key, records_bytes(&part, i), part.records[i].n);
    assert_int_equal(all.n, EXAMPLES);
    const double loss = b->task.describe(b->task.context, m, &batch, &all);
    records_free(&part);
    records_free(&all);
    return loss;
}

/* The error's norm in units of the values' */
static double distance(const float *got, const float *want, const float *from, int64_t n)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = (double)want[i] - (from ? from[i] : 0);
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += size * size;
    }
    return sqrt(difference / norm);
}

static float *read_floats(const struct bench *b, const char *kind, const struct trainable_entry *e)
{
    char name[256];
    snprintf(name, sizeof name, "%s.base_model.model.%s.weight", kind, e->name);
    const struct safetensors_entry *found = safetensors_find(&b->expected, name);
    if (!found)
        fail_msg("no tensor %s", name);
    assert_int_equal(found->n, e->rows * e->cols);
    float *values = malloc((size_t)found->n * sizeof *values);
    assert_non_null(values);
    done(safetensors_floats(values, found, 0, found->n));
    return values;
}

/* PyTorch sums in float32 too; 1e-3 is asked for. */
static void check_gradients(struct bench *b)
{
    const struct trainable *t = &b->engine.model.trainable;
    const int64_t *sum = t->grads.sum;
    float *got = malloc((size_t)t->n * sizeof *got);
    assert_non_null(got);
    for (int64_t i = 0; i < t->n; i++)
        got[i] = (float)((double)sum[i] * 0x1p-48);
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        float *want = read_floats(b, "grad", e);
        const double off = distance(got + e->offset, want, NULL, e->rows * e->cols);
        if (!(off <= 1e-4))
            fail_msg("%s: gradient differs by %.3g of its norm", e->name, off);
        free(want);
    }
    free(got);
}

/* By how far the updates moved each adapter. */
static void check_updated(struct bench *b, const float *before)
{
    const struct trainable *t = &b->engine.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        float *want = read_floats(b, "updated", e);
        const double off = distance(t->value + e->offset, want, before + e->offset, e->rows * e->cols);
        if (!(off <= 1e-3))
            fail_msg("%s: the updates differ by %.3g of their norm", e->name, off);
        free(want);
    }
}

static void check_batch(const char *name, int ranks, int sequences)
{
    static struct bench b;
    bench_open(&b, name, sequences);
    struct model *model = &b.engine.model;
    const json_t *how = json_object_get(b.root, "settings"), *want = json_object_get(b.root, "expected");
    struct optimizer o = {.beta1 = number(how, "adam_beta1"), .beta2 = number(how, "adam_beta2"),
                          .epsilon = number(how, "adam_epsilon"), .weight_decay = number(how, "weight_decay"),
                          .max_grad_norm = number(how, "max_grad_norm")};
    const size_t bytes = (size_t)model->trainable.n * sizeof(float);
    float *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, model->trainable.value, bytes);
    for (int update = 0; update < (int)number(how, "updates"); update++) {
        struct metrics m = {0};
        char key[32];
        double norm;
        const double loss = train(&b, ranks, &m);
        assert_true(metrics_get(&m, "loss") == loss);
        if (update == 0) {
            assert_true(fabs(loss - number(want, "loss")) <= 1e-5 * number(want, "loss"));
            check_gradients(&b);
        }
        optimizer_update(&o, model, number(how, "learning_rate"), &norm);
        snprintf(key, sizeof key, "grad_norm_%d", update);
        assert_true(fabs(norm - number(want, key)) <= 1e-4 * number(want, key));
    }
    check_updated(&b, before);
    free(before);
    bench_close(&b);
}

static void test_batch_of_neox_equals_reference(void **state)
{
    (void)state;
    check_batch("neox-parallel", 1, 3);
    check_batch("neox-parallel", 2, 1);
}

static void test_batch_of_llama_equals_reference(void **state)
{
    (void)state;
    check_batch("llama-gqa", 1, 2);
    check_batch("llama-gqa", 2, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_of_neox_equals_reference),
        cmocka_unit_test(test_batch_of_llama_equals_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
