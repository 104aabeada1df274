/* The model against values recorded from transformers, peft and torch in float64 (tests/reference): forward of both families,
 * decoding, the gradients of a PPO mini-batch and those of all weights. With RLHF_TEST_DEVICE=cuda on that backend, where
 * activations are bf16: bounds are then of an error's norm, and those of some ten roundings of 2^-9 in a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "document.h"
#include "error.h"
#include "hf_folder.h"
#include "gradient.h"
#include "lora.h"
#include "micro_batch.h"
#include "optimizer.h"
#include "policy_loss.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 80, SEQUENCES = 3, TOKENS = 128 };

struct bench {
    char path[512];
    struct hf_folder folder;
    struct backend be;
    struct model model;
    struct micro_batch mb;
    struct arena arena;
    struct peft_adapter adapter;
};

static const char *in_folder(struct bench *b, const char *file)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", b->path, file);
    return path;
}

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

static bool rounded(const struct bench *b)
{
    return b->be.ops->act == DTYPE_BF16;
}

static void open_backend(struct backend *be)
{
    const char *device = getenv("RLHF_TEST_DEVICE");
    struct backend_choice choice = {.device = device ? device : "cpu", .threads = 2};
    done(backend_open(be, &choice));
}

/* n activations of the device as floats, the caller's to free */
static float *activations(struct bench *b, const act_t *x, int64_t n)
{
    const enum dtype type = b->be.ops->act;
    void *raw = malloc((size_t)n * dtype_bytes(type));
    float *floats = malloc((size_t)n * sizeof *floats);
    assert_non_null(raw);
    assert_non_null(floats);
    b->be.ops->copy_out(&b->be, raw, x, (size_t)n * dtype_bytes(type));
    floats_from(floats, raw, type, n);
    free(raw);
    return floats;
}

static void layout(struct bench *b)
{
    struct model_shape shape = {TOKENS, SEQUENCES, TOKENS, SEQUENCES, LONGEST, b->folder.arch.layers};
    model_layout(&b->model, &b->arena, &shape);
    micro_batch_layout(&b->mb, &b->model, &b->arena);
}

static void bench_open(struct bench *b, const char *name, bool adapter, bool train_all)
{
    const char *srcdir = getenv("srcdir");
    memset(b, 0, sizeof *b);
    snprintf(b->path, sizeof b->path, "%s/tests/reference/%s", srcdir ? srcdir : ".", name);
    done(hf_folder_open(&b->folder, b->path, ARCH_LANGUAGE_MODEL));
    open_backend(&b->be);
    enum dtype file = (enum dtype)hf_folder_find(&b->folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
    struct model_options o = {.dtype = train_all ? DTYPE_F32 : file, .file_dtype = train_all ? DTYPE_F32 : file, .train_all = train_all};
    model_init(&b->model, &b->folder.arch, &b->be, &o);
    if (adapter) {
        done(peft_open(&b->adapter, in_folder(b, "adapter"), &b->folder.arch));
        done(lora_attach(&b->model, &b->adapter.config, 1));
        assert_int_equal(lora_attach_frozen(&b->model, &b->adapter), 1);
        model_add_value_head(&b->model);
    }
    layout(b);
    done(arena_place(&b->arena, &b->be, NULL));
    layout(b);
    model_fill_tables(&b->model);
    done(weights_read(&b->model, &b->folder));
    if (adapter)
        done(lora_read(&b->model, &b->adapter, in_folder(b, "adapter")));
    if (adapter)
        done(lora_read_frozen(&b->model, &b->adapter, 1));
    arena_freeze(&b->arena);
}

static void bench_close(struct bench *b)
{
    model_free(&b->model);
    b->be.ops->close(&b->be);
    peft_close(&b->adapter);
    hf_folder_close(&b->folder);
}

static json_t *read_json(struct bench *b, const char *file)
{
    json_t *root = document_read(in_folder(b, file));
    assert_non_null(root);
    return root;
}

/* The sequences of a file's "ids". Returns their number. */
static int read_ids(const json_t *root, int32_t ids[SEQUENCES][LONGEST], int n[SEQUENCES])
{
    const json_t *list = json_object_get(root, "ids");
    int sequences = (int)json_array_size(list);
    for (int s = 0; s < sequences; s++) {
        n[s] = (int)json_array_size(json_array_get(list, (size_t)s));
        for (int t = 0; t < n[s]; t++)
            ids[s][t] = (int32_t)json_integer_value(json_array_get(json_array_get(list, (size_t)s), (size_t)t));
    }
    return sequences;
}

static float *read_floats(const struct safetensors *s, const char *name, int64_t n)
{
    const struct safetensors_entry *e = safetensors_find(s, name);
    if (!e)
        fail_msg("no tensor %s", name);
    assert_int_equal(e->n, n);
    float *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    done(safetensors_floats(values, e, 0, n));
    return values;
}

/* The error's norm in units of the values'. */
static double distance(const float *got, const float *want, int64_t n)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return sqrt(difference / norm);
}

static void expect_close(const struct bench *b, const char *what, const float *got, const float *want, int64_t n)
{
    if (rounded(b) && !(distance(got, want, n) <= 2e-2))
        fail_msg("%s: differs by %.3g of its norm", what, distance(got, want, n));
    for (int64_t i = 0; i < n && !rounded(b); i++)
        if (!(fabs((double)got[i] - want[i]) <= 1e-4 + 1e-5 * fabs((double)want[i])))
            fail_msg("%s[%lld]: %.7g, reference %.7g", what, (long long)i, (double)got[i], (double)want[i]);
}

static void check_forward(const char *name)
{
    struct bench b;
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST], row[TOKENS];
    int length[SEQUENCES], N = 0;
    bench_open(&b, name, false, false);
    done(safetensors_open(&expected, in_folder(&b, "expected.safetensors")));
    json_t *root = read_json(&b, "expected.json");
    int n = read_ids(root, ids, length), H = b.folder.arch.hidden, V = b.folder.arch.vocab;
    struct sequence s[SEQUENCES];
    float logprob[TOKENS];
    for (int i = 0; i < n; N += length[i++])
        s[i] = (struct sequence){.sample = i, .ids = ids[i], .n = length[i], .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = -1};
    done(micro_batch_forward(&b.mb, s, n, &pass, 1.0f));
    for (int i = 0; i < N; i++)
        row[i] = i;
    struct head_rows rows = model_rows(&b.model, N, row, NULL);
    model_send(&b.model);
    const size_t bytes = (size_t)N * (size_t)V * sizeof(float);
    float *logits = malloc(bytes), *on_device = b.be.ops->region_alloc(&b.be, "logits", bytes),
          *hidden = activations(&b, b.model.hidden, (int64_t)N * H), *want = read_floats(&expected, "hidden.norm", (int64_t)N * H);
    assert_non_null(logits);
    expect_close(&b, "hidden", hidden, want, (int64_t)N * H);
    free(hidden);
    free(want);
    want = read_floats(&expected, "logits", (int64_t)N * V);
    b.be.ops->head_logits(&b.be, on_device, &b.model.head, b.model.hidden, H, &rows);
    b.be.ops->copy_out(&b.be, logits, on_device, bytes);
    expect_close(&b, "logits", logits, want, (int64_t)N * V);
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
    json_t *root = read_json(&b, "expected.json");
    read_ids(root, ids, length);
    int N = length[0], H = b.folder.arch.hidden;
    float logprob[TOKENS];
    struct sequence s = {.ids = ids[0], .n = N, .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = -1};
    done(micro_batch_forward(&b.mb, &s, 1, &pass, 1.0f));
    float *whole = activations(&b, b.model.hidden, (int64_t)N * H);
    const int32_t start[] = {0, 1}, sequence[] = {0}, slot[] = {2};
    const int64_t sample[] = {0};
    pass.decode = true;
    for (int t = 0; t < N; t++) {
        struct batch one = {1, 1, &ids[0][t], &t, sequence, start, slot, sample};
        model_batch(&b.model, &one);
        model_send(&b.model);
        model_forward(&b.model, &pass);
        float *hidden = activations(&b, b.model.hidden, H);
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
    json_t *root = read_json(&b, "expected.json");
    read_ids(root, ids, length);
    const size_t bytes = (size_t)(length[0] - 1) * sizeof(float);
    const int adapter[] = {0, 1, -1, 1};
    for (int i = 0; i < 4; i++) {
        struct sequence s = {.ids = ids[0], .n = length[0], .first = 1, .logprob = logprob[i]};
        struct model_pass pass = {.adapter = adapter[i]};
        done(micro_batch_forward(&b.mb, &s, 1, &pass, 1.0f));
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

/* |got - want| <= 1e-4 |want|, by the norm of the tensor: PyTorch sums in float32 too */
static void expect_gradient(struct bench *b, const char *name, int64_t offset, const float *want, int64_t n)
{
    int64_t *sum = malloc((size_t)n * sizeof *sum);
    float *got = malloc((size_t)n * sizeof *got);
    assert_non_null(sum);
    assert_non_null(got);
    b->be.ops->copy_out(&b->be, sum, b->model.trainable.grads.sum + offset, (size_t)n * sizeof *sum);
    for (int64_t i = 0; i < n; i++)
        got[i] = (float)((double)sum[i] * 0x1p-48);
    if (!(distance(got, want, n) <= (rounded(b) ? 5e-2 : 1e-4)))
        fail_msg("%s: gradient differs by %.3g of its norm", name, distance(got, want, n));
    free(sum);
    free(got);
}

static double number(const json_t *root, const char *key)
{
    return json_number_value(json_object_get(root, key));
}

static void check_ppo_tokens(const struct bench *b, const struct policy_loss_tokens *x, const struct safetensors *expected, const json_t *root,
                             const struct policy_loss_settings *how)
{
    struct policy_loss loss;
    float *logprob = read_floats(expected, "logprob", x->n), *entropy = read_floats(expected, "entropy", x->n),
          *value = read_floats(expected, "value", x->n);
    expect_close(b, "logprob", x->logprob, logprob, x->n);
    expect_close(b, "entropy", x->entropy, entropy, x->n);
    expect_close(b, "value", x->value, value, x->n);
    policy_loss_ppo(&loss, x, how);
    const json_t *want = json_object_get(root, "expected");
    const double bound = rounded(b) ? 2e-2 : 1e-4;
    const double size = rounded(b) ? 1 : fabs(number(want, "loss")); /* a sum of parts of about 1 that cancel */
    assert_true(fabs(loss.total - number(want, "loss")) <= bound * size);
    assert_true(fabs(loss.policy - number(want, "policy_loss")) <= bound);
    assert_true(fabs(loss.value - number(want, "value_loss")) <= bound);
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
        float *want = read_floats(expected, name, e->rows * e->cols);
        expect_gradient(b, name, e->offset, want, e->rows * e->cols);
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
    done(safetensors_open(&expected, in_folder(&b, "ppo.safetensors")));
    json_t *root = read_json(&b, "ppo.json");
    const json_t *settings = json_object_get(root, "settings"), *prompts = json_object_get(root, "prompt_tokens");
    struct policy_loss_settings how = {number(settings, "cliprange"), number(settings, "cliprange_value"),
                                       number(settings, "vf_coef"), number(settings, "ent_coef")};
    float temperature = (float)number(settings, "temperature");
    int n = read_ids(root, ids, length), first[SEQUENCES], R = 0;
    float logprob[TOKENS], entropy[TOKENS], value[TOKENS], d[3][TOKENS];
    struct sequence s[SEQUENCES];
    for (int i = 0; i < n; R += length[i] - first[i], i++) {
        first[i] = (int)json_integer_value(json_array_get(prompts, (size_t)i));
        s[i] = (struct sequence){i, ids[i], length[i], first[i], logprob + R, entropy + R, value + R, d[0] + R, d[1] + R, d[2] + R};
    }
    struct model_pass pass = {.adapter = 0, .keep = true};
    gradient_begin(&b.model, n);
    done(micro_batch_forward(&b.mb, s, n, &pass, temperature));
    float *old_logprob = read_floats(&expected, "old_logprob", R), *old_value = read_floats(&expected, "old_value", R),
          *advantage = read_floats(&expected, "advantage", R), *ret = read_floats(&expected, "return", R);
    struct policy_loss_tokens x = {R, logprob, value, entropy, old_logprob, old_value, advantage, ret};
    check_ppo_tokens(&b, &x, &expected, root, &how);
    float *recorded[] = {read_floats(&expected, "logprob", R), read_floats(&expected, "value", R), read_floats(&expected, "entropy", R)};
    if (rounded(&b)) { /* the losses' derivatives at the recorded values: what is clipped is the same then */
        x.logprob = recorded[0];
        x.value = recorded[1];
        x.entropy = recorded[2];
    }
    policy_loss_ppo_backward(d[0], d[1], d[2], &x, R, &how);
    for (int i = 0; i < 3; i++)
        free(recorded[i]);
    done(micro_batch_backward(&b.mb, s, n, &pass, temperature));
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
    open_backend(&be);
    const bool offered = be.ops->trains_weights;
    be.ops->close(&be);
    if (!offered)
        skip();
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST];
    int length[SEQUENCES], N = 0;
    bench_open(&b, name, false, true);
    done(safetensors_open(&expected, in_folder(&b, "pretrain.safetensors")));
    json_t *root = read_json(&b, "pretrain.json");
    int n = read_ids(root, ids, length);
    float logprob[TOKENS], d[TOKENS];
    struct sequence s[SEQUENCES];
    for (int i = 0; i < n; N += length[i++] - 1)
        s[i] = (struct sequence){.sample = i, .ids = ids[i], .n = length[i], .first = 1, .logprob = logprob + N, .dlogprob = d + N};
    for (int t = 0; t < N; t++)
        d[t] = (float)(-1.0 / N);
    struct model_pass pass = {.adapter = -1, .keep = true};
    gradient_begin(&b.model, n);
    done(micro_batch_forward(&b.mb, s, n, &pass, 1.0f));
    double loss = 0;
    for (int t = 0; t < N; t++)
        loss -= logprob[t] / (double)N;
    assert_true(fabs(loss - number(root, "loss")) <= 1e-4);
    done(micro_batch_backward(&b.mb, s, n, &pass, 1.0f));
    const struct trainable *t = &b.model.trainable;
    for (int i = 0; i < t->n_entries; i++) {
        char tensor[256];
        snprintf(tensor, sizeof tensor, "grad.%s", t->entry[i].name);
        float *want = read_floats(&expected, tensor, t->entry[i].rows * t->entry[i].cols);
        expect_gradient(&b, tensor, t->entry[i].offset, want, t->entry[i].rows * t->entry[i].cols);
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
