/* Every family against values recorded from transformers in float64 (tests/reference): hidden states and logits, class logits,
 * decoding token by token. With RLHF_TEST_DEVICE on that backend. Arguments: folders (absolute) instead of those. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/model_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Folders below tests/reference. */
static const char *const recorded_folders[] = {
    "neox-parallel",
    "neox-sequential",
    "llama-gqa",
    "llama-untied",
    "families/gpt2",
    "families/gpt-neo",
    "families/opt",
    "families/opt-post-norm",
    "families/llama-linear",
    "families/llama-yarn",
    "families/mistral",
    "families/qwen2",
    "families/qwen2-window",
    "families/qwen3",
    "families/gpt2-classifier",
    "families/llama-classifier",
    "families/distilbert",
    "families/bert",
    "families/roberta",
};

struct folders {
    const char *const *path;
    int n;
};

/* Opens a folder and its expected values, and describes its sequences. */
struct recorded {
    struct bench bench;
    struct safetensors expected;
    int32_t ids[SEQUENCES][LONGEST];
    float logprob[TOKENS];
    struct sequence sequence[SEQUENCES];
    int n, n_tokens;
};

static void recorded_open(struct recorded *r, const char *name)
{
    struct bench *b = &r->bench;
    bench_locate(b, name);
    bench_done(safetensors_open(&r->expected, bench_file(b, "expected.safetensors")));
    const bool classifier = !safetensors_find(&r->expected, "hidden.norm"); /* it has no states of every token */
    const struct bench_options options = {.use = classifier ? ARCH_CLASSIFIER : ARCH_LANGUAGE_MODEL};
    int length[SEQUENCES];
    bench_describe(b, name, &options);
    if (classifier)
        model_add_score_head(&b->model, b->folder.arch.n_labels, b->folder.arch.bidirectional, false, "score");
    bench_load(b, &options);
    json_t *root = bench_json(b, "expected.json");
    r->n = bench_ids(root, r->ids, length);
    bench_bounds(b, root);
    r->n_tokens = 0;
    for (int i = 0; i < r->n; r->n_tokens += length[i++])
        r->sequence[i] = (struct sequence){.sample = i, .ids = r->ids[i], .n = length[i], .first = 1, .logprob = r->logprob};
    json_decref(root);
}

static void recorded_close(struct recorded *r)
{
    safetensors_close(&r->expected);
    bench_close(&r->bench);
}

static void expect_recorded(struct recorded *r, const char *name, const float *got, int64_t n)
{
    float *want = bench_floats(&r->expected, name, n);
    bench_expect(&r->bench, name, got, want, n);
    free(want);
}

/* The hidden states that the head reads, and the logits of every token. */
static void check_logits(struct recorded *r)
{
    struct bench *b = &r->bench;
    const int N = r->n_tokens, W = b->folder.arch.embedding_width, V = b->folder.arch.vocab;
    const size_t bytes = (size_t)N * (size_t)V * sizeof(float);
    int32_t row[TOKENS];
    struct model_pass pass = {.adapter = -1};
    bench_done(micro_batch_forward(&b->mb, r->sequence, r->n, &pass, 1.0f));
    float *hidden = bench_acts(b, b->model.hidden, (int64_t)N * W);
    expect_recorded(r, "hidden.norm", hidden, (int64_t)N * W);
    free(hidden);
    for (int i = 0; i < N; i++)
        row[i] = i;
    struct head_rows rows = model_rows(&b->model, N, row, NULL);
    model_send(&b->model);
    float *logits = malloc(bytes), *on_device = b->be.ops->region_alloc(&b->be, "logits", bytes);
    assert_non_null(logits);
    b->be.ops->head_logits(&b->be, on_device, &b->model.head, b->model.hidden, W, &rows);
    b->be.ops->copy_out(&b->be, logits, on_device, bytes);
    expect_recorded(r, "logits", logits, (int64_t)N * V);
    free(logits);
}

/* Token by token through the cache: the hidden states of the training pass, bit for bit. */
static void check_decode(struct recorded *r)
{
    struct bench *b = &r->bench;
    const int N = r->sequence[0].n, W = b->folder.arch.embedding_width;
    struct model_pass pass = {.adapter = -1};
    bench_done(micro_batch_forward(&b->mb, r->sequence, 1, &pass, 1.0f));
    float *whole = bench_acts(b, b->model.hidden, (int64_t)N * W);
    const int32_t start[] = {0, 1}, sequence[] = {0}, slot[] = {2};
    const int64_t sample[] = {0};
    pass.decode = true;
    for (int t = 0; t < N; t++) {
        struct batch one = {1, 1, &r->ids[0][t], &t, sequence, start, slot, sample};
        model_batch(&b->model, &one);
        model_send(&b->model);
        model_forward(&b->model, &pass);
        float *hidden = bench_acts(b, b->model.hidden, W);
        assert_memory_equal(hidden, whole + (int64_t)t * W, (size_t)W * sizeof *whole);
        free(hidden);
    }
    free(whole);
}

static void check_scores(struct recorded *r)
{
    float score[SEQUENCES * 8];
    const int labels = r->bench.folder.arch.n_labels;
    struct model_pass pass = {.adapter = -1};
    assert_in_range(labels, 1, 8);
    bench_done(micro_batch_scores(&r->bench.mb, r->sequence, r->n, &pass, score));
    expect_recorded(r, "logits", score, (int64_t)r->n * labels);
}

static void test_logits_equal_those_of_transformers(void **state)
{
    const struct folders *folders = *state;
    for (int i = 0; i < folders->n; i++) {
        struct recorded r;
        printf("%s\n", folders->path[i]);
        recorded_open(&r, folders->path[i]);
        if (r.bench.folder.arch.use == ARCH_CLASSIFIER) {
            check_scores(&r);
        } else {
            check_logits(&r);
            check_decode(&r);
        }
        recorded_close(&r);
    }
}

int main(int argc, char **argv)
{
    struct folders folders = {recorded_folders, sizeof recorded_folders / sizeof *recorded_folders};
    if (argc > 1)
        folders = (struct folders){(const char *const *)argv + 1, argc - 1};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_logits_equal_those_of_transformers, &folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
