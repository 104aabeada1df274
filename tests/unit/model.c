/* The model against values recorded from transformers, peft and torch in float64 (tests/reference): forward of both families,
 * decoding, the gradients of a PPO mini-batch and those of all weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gradient.h"
#include "policy_loss.h"
#include "support/model_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* train_all: every weight; else with adapter, the recorded one and its value head. */
static void bench_open(struct bench *b, const char *name, bool adapter, bool train_all)
{
    const struct bench_options o = {.train_all = train_all};
    bench_describe(b, name, &o);
    if (adapter) {
        bench_done(peft_open(&b->adapter, bench_file(b, "adapter"), &b->folder.arch));
        bench_done(lora_attach(&b->model, &b->adapter.config, 1));
        assert_int_equal(lora_attach_frozen(&b->model, &b->adapter), 1);
        model_add_value_head(&b->model);
    }
    bench_load(b, &o);
    if (adapter)
        bench_done(lora_read(&b->model, &b->adapter, bench_file(b, "adapter")));
    if (adapter)
        bench_done(lora_read_frozen(&b->model, &b->adapter, 1));
}

static void check_forward(const char *name)
{
    struct bench b;
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST], row[TOKENS];
    int length[SEQUENCES], N = 0;
    bench_open(&b, name, false, false);
    bench_done(safetensors_open(&expected, bench_file(&b, "expected.safetensors")));
    json_t *root = bench_json(&b, "expected.json");
    int n = bench_ids(root, ids, length), H = b.folder.arch.hidden, V = b.folder.arch.vocab;
    struct sequence s[SEQUENCES];
    float logprob[TOKENS];
    for (int i = 0; i < n; N += length[i++])
        s[i] = (struct sequence){.sample = i, .ids = ids[i], .n = length[i], .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = -1};
    bench_done(micro_batch_forward(&b.mb, s, n, &pass, 1.0f));
    for (int i = 0; i < N; i++)
        row[i] = i;
    struct head_rows rows = model_rows(&b.model, N, row, NULL);
    model_send(&b.model);
    const size_t bytes = (size_t)N * (size_t)V * sizeof(float);
    float *logits = malloc(bytes), *on_device = b.be.ops->region_alloc(&b.be, "logits", bytes),
          *hidden = bench_acts(&b, b.model.hidden, (int64_t)N * H), *want = bench_floats(&expected, "hidden.norm", (int64_t)N * H);
    assert_non_null(logits);
    bench_expect(&b, "hidden", hidden, want, (int64_t)N * H);
    free(hidden);
    free(want);
    want = bench_floats(&expected, "logits", (int64_t)N * V);
    b.be.ops->head_logits(&b.be, on_device, &b.model.head, b.model.hidden, H, &rows);
    b.be.ops->copy_out(&b.be, logits, on_device, bytes);
    bench_expect(&b, "logits", logits, want, (int64_t)N * V);
    free(want);
    free(logits);
    json_decref(root);
    safetensors_close(&expected);
    bench_close(&b);
}

static void test_forward_neox_parallel(void **state)
{
    (void)state;
    check_forward("neox-parallel");
}

static void test_forward_neox_sequential(void **state)
{
    (void)state;
    check_forward("neox-sequential");
}

static void test_forward_llama_grouped_query(void **state)
{
    (void)state;
    check_forward("llama-gqa");
}

static void test_forward_llama_untied_rope_scaling(void **state)
{
    (void)state;
    check_forward("llama-untied");
}

/* Token by token through the cache: the hidden states of the training pass, bit for bit. */
static void check_decode(const char *name)
{
    struct bench b;
    int32_t ids[SEQUENCES][LONGEST];
    int length[SEQUENCES];
    bench_open(&b, name, false, false);
    json_t *root = bench_json(&b, "expected.json");
    bench_ids(root, ids, length);
    int N = length[0], H = b.folder.arch.hidden;
    float logprob[TOKENS];
    struct sequence s = {.ids = ids[0], .n = N, .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = -1};
    bench_done(micro_batch_forward(&b.mb, &s, 1, &pass, 1.0f));
    float *whole = bench_acts(&b, b.model.hidden, (int64_t)N * H);
    const int32_t start[] = {0, 1}, sequence[] = {0}, slot[] = {2};
    const int64_t sample[] = {0};
    pass.decode = true;
    for (int t = 0; t < N; t++) {
        struct batch one = {1, 1, &ids[0][t], &t, sequence, start, slot, sample};
        model_batch(&b.model, &one);
        model_send(&b.model);
        model_forward(&b.model, &pass);
        float *hidden = bench_acts(&b, b.model.hidden, H);
        assert_memory_equal(hidden, whole + (int64_t)t * H, (size_t)H * sizeof *whole);
        free(hidden);
    }
    free(whole);
    json_decref(root);
    bench_close(&b);
}

static void test_decode_equals_training_pass(void **state)
{
    (void)state;
    check_decode("neox-parallel");
    check_decode("llama-gqa");
}

/* The frozen adapter is the trained one's equal, bit for bit, and stays when that one is trained. */
static void check_frozen_adapter(const char *name)
{
    struct bench b;
    int32_t ids[SEQUENCES][LONGEST];
    int length[SEQUENCES];
    float logprob[4][LONGEST];
    bench_open(&b, name, true, false);
    json_t *root = bench_json(&b, "expected.json");
    bench_ids(root, ids, length);
    const size_t bytes = (size_t)(length[0] - 1) * sizeof(float);
    const int adapter[] = {0, 1, -1, 1};
    for (int i = 0; i < 4; i++) {
        struct sequence s = {.ids = ids[0], .n = length[0], .first = 1, .logprob = logprob[i]};
        struct model_pass pass = {.adapter = adapter[i]};
        bench_done(micro_batch_forward(&b.mb, &s, 1, &pass, 1.0f));
        if (i == 2) {
            b.be.ops->zero(&b.be, b.model.trainable.value, (size_t)b.model.trainable.n * sizeof(float));
            model_refresh(&b.model);
        }
    }
    assert_memory_equal(logprob[0], logprob[1], bytes);
    assert_memory_not_equal(logprob[0], logprob[2], bytes);
    assert_memory_equal(logprob[0], logprob[3], bytes);
    for (int i = 2; i < LINEAR_ADAPTERS; i++)
        assert_int_equal(lora_attach_frozen(&b.model, &b.adapter), i);
    assert_int_equal(lora_attach_frozen(&b.model, &b.adapter), -1);
    json_decref(root);
    bench_close(&b);
}

static void test_frozen_adapter_beside_the_trained_one(void **state)
{
    (void)state;
    check_frozen_adapter("neox-parallel");
    check_frozen_adapter("llama-gqa");
}

static void check_ppo_tokens(const struct bench *b, const struct policy_loss_tokens *x, const struct safetensors *expected, const json_t *root,
                             const struct policy_loss_settings *how)
{
    struct policy_loss loss;
    float *logprob = bench_floats(expected, "logprob", x->n), *entropy = bench_floats(expected, "entropy", x->n),
          *value = bench_floats(expected, "value", x->n);
    bench_expect(b, "logprob", x->logprob, logprob, x->n);
    bench_expect(b, "entropy", x->entropy, entropy, x->n);
    bench_expect(b, "value", x->value, value, x->n);
    policy_loss_ppo(&loss, x, how);
    const json_t *want = json_object_get(root, "expected");
    const double bound = bench_rounded(b) ? 2e-2 : 1e-4;
    const double size = bench_rounded(b) ? 1 : fabs(bench_number(want, "loss")); /* a sum of parts of about 1 that cancel */
    assert_true(fabs(loss.total - bench_number(want, "loss")) <= bound * size);
    assert_true(fabs(loss.policy - bench_number(want, "policy_loss")) <= bound);
    assert_true(fabs(loss.value - bench_number(want, "value_loss")) <= bound);
    free(logprob);
    free(entropy);
    free(value);
}

static void check_ppo_gradients(struct bench *b, const struct safetensors *expected)
{
    const struct trainable *t = &b->model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        const struct trainable_entry *e = &t->entry[i];
        char name[256];
        if (!strncmp(e->name, "v_head", 6))
            snprintf(name, sizeof name, "grad.%s", e->name);
        else
            snprintf(name, sizeof name, "grad.base_model.model.%s.weight", e->name);
        float *want = bench_floats(expected, name, e->rows * e->cols);
        bench_expect_gradient(b, name, e->offset, want, e->rows * e->cols);
        free(want);
    }
}

static void check_ppo(const char *name)
{
    struct bench b;
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST];
    int length[SEQUENCES];
    bench_open(&b, name, true, false);
    bench_done(safetensors_open(&expected, bench_file(&b, "ppo.safetensors")));
    json_t *root = bench_json(&b, "ppo.json");
    const json_t *settings = json_object_get(root, "settings"), *prompts = json_object_get(root, "prompt_tokens");
    struct policy_loss_settings how = {bench_number(settings, "cliprange"), bench_number(settings, "cliprange_value"),
                                       bench_number(settings, "vf_coef"), bench_number(settings, "ent_coef")};
    float temperature = (float)bench_number(settings, "temperature");
    int n = bench_ids(root, ids, length), first[SEQUENCES], R = 0;
    float logprob[TOKENS], entropy[TOKENS], value[TOKENS], d[3][TOKENS];
    struct sequence s[SEQUENCES];
    for (int i = 0; i < n; R += length[i] - first[i], i++) {
        first[i] = (int)json_integer_value(json_array_get(prompts, (size_t)i));
        s[i] = (struct sequence){i, ids[i], length[i], first[i], logprob + R, entropy + R, value + R, d[0] + R, d[1] + R, d[2] + R};
    }
    struct model_pass pass = {.adapter = 0, .keep = true};
    gradient_begin(&b.model, n);
    bench_done(micro_batch_forward(&b.mb, s, n, &pass, temperature));
    float *old_logprob = bench_floats(&expected, "old_logprob", R), *old_value = bench_floats(&expected, "old_value", R),
          *advantage = bench_floats(&expected, "advantage", R), *ret = bench_floats(&expected, "return", R);
    struct policy_loss_tokens x = {R, logprob, value, entropy, old_logprob, old_value, advantage, ret};
    check_ppo_tokens(&b, &x, &expected, root, &how);
    float *recorded[] = {bench_floats(&expected, "logprob", R), bench_floats(&expected, "value", R), bench_floats(&expected, "entropy", R)};
    if (bench_rounded(&b)) { /* the losses' derivatives at the recorded values: what is clipped is the same then */
        x.logprob = recorded[0];
        x.value = recorded[1];
        x.entropy = recorded[2];
    }
    policy_loss_ppo_backward(d[0], d[1], d[2], &x, R, &how);
    for (int i = 0; i < 3; i++)
        free(recorded[i]);
    bench_done(micro_batch_backward(&b.mb, s, n, &pass, temperature));
    int64_t overflow = -1;
    b.be.ops->copy_out(&b.be, &overflow, b.model.trainable.grads.overflow, sizeof overflow);
    assert_int_equal(overflow, 0);
    check_ppo_gradients(&b, &expected);
    free(old_logprob);
    free(old_value);
    free(advantage);
    free(ret);
    json_decref(root);
    safetensors_close(&expected);
    bench_close(&b);
}

static void test_ppo_gradients_neox(void **state)
{
    (void)state;
    check_ppo("neox-parallel");
}

static void test_ppo_gradients_llama(void **state)
{
    (void)state;
    check_ppo("llama-gqa");
}

static void check_all_weights(const char *name)
{
    struct bench b;
    struct backend be;
    bench_backend(&be, 0);
    const bool offered = be.ops->trains_weights;
    be.ops->close(&be);
    if (!offered)
        skip();
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST];
    int length[SEQUENCES], N = 0;
    bench_open(&b, name, false, true);
    bench_done(safetensors_open(&expected, bench_file(&b, "pretrain.safetensors")));
    json_t *root = bench_json(&b, "pretrain.json");
    int n = bench_ids(root, ids, length);
    float logprob[TOKENS], d[TOKENS];
    struct sequence s[SEQUENCES];
    for (int i = 0; i < n; N += length[i++] - 1)
        s[i] = (struct sequence){.sample = i, .ids = ids[i], .n = length[i], .first = 1, .logprob = logprob + N, .dlogprob = d + N};
    for (int t = 0; t < N; t++)
        d[t] = (float)(-1.0 / N);
    struct model_pass pass = {.adapter = -1, .keep = true};
    gradient_begin(&b.model, n);
    bench_done(micro_batch_forward(&b.mb, s, n, &pass, 1.0f));
    double loss = 0;
    for (int t = 0; t < N; t++)
        loss -= logprob[t] / (double)N;
    assert_true(fabs(loss - bench_number(root, "loss")) <= 1e-4);
    bench_done(micro_batch_backward(&b.mb, s, n, &pass, 1.0f));
    const struct trainable *t = &b.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        char tensor[256];
        snprintf(tensor, sizeof tensor, "grad.%s", t->entry[i].name);
        float *want = bench_floats(&expected, tensor, t->entry[i].rows * t->entry[i].cols);
        bench_expect_gradient(&b, tensor, t->entry[i].offset, want, t->entry[i].rows * t->entry[i].cols);
        free(want);
    }
    json_decref(root);
    safetensors_close(&expected);
    bench_close(&b);
}

static void test_all_weights_neox(void **state)
{
    (void)state;
    check_all_weights("neox-parallel");
}

static void test_all_weights_llama(void **state)
{
    (void)state;
    check_all_weights("llama-gqa");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_neox_parallel),
        cmocka_unit_test(test_forward_neox_sequential),
        cmocka_unit_test(test_forward_llama_grouped_query),
        cmocka_unit_test(test_forward_llama_untied_rope_scaling),
        cmocka_unit_test(test_decode_equals_training_pass),
        cmocka_unit_test(test_frozen_adapter_beside_the_trained_one),
        cmocka_unit_test(test_ppo_gradients_neox),
        cmocka_unit_test(test_ppo_gradients_llama),
        cmocka_unit_test(test_all_weights_neox),
        cmocka_unit_test(test_all_weights_llama),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
