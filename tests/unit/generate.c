/* Generation by every family of policies on the backend of RLHF_TEST_DEVICE, greedily: tokens are the largest logits of the training
 * pass over prompt and response, log-probabilities have its bits, whichever adapter the pass has, and with a second model on the same
 * backend. More prompts than slots, so sequences start and end beside each other; on CUDA decode steps are recorded, then replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "generate.h"
#include "support/model_bench.h"
#include "weights.h"

#include <stdlib.h>
#include <string.h>

static const char *const policies[] = {
    "neox-parallel",         "llama-untied",           "families/gpt2",    "families/gpt-neo",
    "families/opt",          "families/opt-post-norm", "families/mistral", "families/qwen2",
    "families/qwen2-window", "families/qwen3"};
enum { POLICIES = sizeof policies / sizeof *policies, PROMPTS = 5, NEW = 16 };

static const int prompt_tokens[PROMPTS] = {3, 9, 1, 12, 5};

/* A model that generates, and what it has written. */
struct writer {
    struct bench b;
    struct generator g;
    float *logits; /* of the device, [NEW][V] */
    int32_t ids[PROMPTS][LONGEST]; /* prompt, then response */
    float logprob[PROMPTS][NEW];
};

static void describe(struct writer *w, const char *name)
{
    memset(w, 0, sizeof *w);
    bench_describe(&w->b, name, &(struct bench_options){0});
}

static void generate(struct writer *w, int adapter)
{
    struct generate_request r[PROMPTS];
    const struct generate_options o = {.sampling = {.temperature = 0, .top_p = 1}, .adapter = adapter};
    for (int i = 0; i < PROMPTS; i++) {
        for (int t = 0; t < prompt_tokens[i]; t++)
            w->ids[i][t] = (7 * i + 3 * t * t + 1) % w->b.folder.arch.vocab;
        r[i] = (struct generate_request){.sample = i,
                                         .prompt = w->ids[i],
                                         .n_prompt = prompt_tokens[i],
                                         .max_new = NEW - i,
                                         .response = w->ids[i] + prompt_tokens[i],
                                         .logprob = w->logprob[i]};
    }
    bench_done(generate_run(&w->g, r, PROMPTS, &o));
    for (int i = 0; i < PROMPTS; i++)
        assert_int_equal(r[i].n_response, NEW - i);
}

/* Of one response, by the training pass. */
static void expect_response(struct writer *w, int i, int adapter)
{
    struct bench *b = &w->b;
    const int n = NEW - i, V = b->folder.arch.vocab;
    float logprob[NEW], logits[NEW * 128];
    int32_t row[NEW];
    struct sequence s = {.sample = i, .ids = w->ids[i], .n = prompt_tokens[i] + n, .first = prompt_tokens[i], .logprob = logprob};
    const struct model_pass pass = {.adapter = adapter};
    assert_in_range(V, 1, 128);
    bench_done(micro_batch_forward(&b->mb, &s, 1, &pass, 1.0f));
    assert_memory_equal(logprob, w->logprob[i], (size_t)n * sizeof *logprob);
    for (int k = 0; k < n; k++)
        row[k] = prompt_tokens[i] - 1 + k;
    const struct head_rows rows = model_rows(&b->model, n, row, NULL);
    model_send(&b->model);
    b->be.ops->head_logits(&b->be, w->logits, &b->model.head, b->model.hidden, b->folder.arch.embedding_width, &rows);
    b->be.ops->copy_out(&b->be, logits, w->logits, (size_t)(n * V) * sizeof *logits);
    for (int k = 0; k < n; k++)
        for (int v = 0; v < V; v++)
            assert_true(logits[k * V + v] <= logits[k * V + s.ids[s.first + k]]);
}

static void check(struct writer *w, int adapter)
{
    generate(w, adapter);
    for (int i = 0; i < PROMPTS; i++)
        expect_response(w, i, adapter);
}

static void layout(struct writer *w, struct arena *a)
{
    struct bench *b = &w->b;
    const int rows = decode_rows(&b->be, SEQUENCES);
    const struct model_shape shape = {
        .batch_tokens = TOKENS, .batch_seqs = rows, .head_rows = TOKENS, .slots = SEQUENCES, .cache_tokens = LONGEST};
    model_layout(&b->model, a, &shape);
    micro_batch_layout(&b->mb, &b->model, a);
    generator_layout(&w->g, &b->model, a);
    w->logits = arena_take(a, MEM_BATCH, (size_t)(NEW * b->folder.arch.vocab) * sizeof *w->logits);
}

/* n models in one arena, with their weights. */
static void load(struct writer **w, int n, struct arena *a)
{
    *a = (struct arena){0};
    for (int i = 0; i < n; i++)
        layout(w[i], a);
    bench_done(arena_place(a, &w[0]->b.be, NULL));
    for (int i = 0; i < n; i++)
        layout(w[i], a);
    arena_freeze(a);
    for (int i = 0; i < n; i++) {
        model_fill_tables(&w[i]->b.model);
        bench_done(weights_read(&w[i]->b.model, &w[i]->b.folder));
    }
}

static void test_policies(void **state)
{
    (void)state;
    for (int i = 0; i < POLICIES; i++) {
        struct writer w, *one = &w;
        struct arena arena;
        describe(&w, policies[i]);
        load(&one, 1, &arena);
        check(&w, -1);
        bench_close(&w.b);
    }
}

/* The recorded adapter, once as the trained one and once frozen beside it; then the trained one is another. */
static void test_adapters(void **state)
{
    (void)state;
    struct writer w, *one = &w;
    struct arena arena;
    struct peft_adapter adapter;
    float logprob[PROMPTS][NEW];
    describe(&w, "neox-parallel");
    struct model *m = &w.b.model;
    bench_done(peft_open(&adapter, bench_file(&w.b, "adapter"), &w.b.folder.arch));
    bench_done(lora_attach(m, &adapter.config, 1));
    assert_int_equal(lora_attach_frozen(m, &adapter), 1);
    load(&one, 1, &arena);
    bench_done(lora_read(m, &adapter, bench_file(&w.b, "adapter")));
    bench_done(lora_read_frozen(m, &adapter, 1));
    check(&w, 1);
    memcpy(logprob, w.logprob, sizeof logprob);
    check(&w, 0);
    assert_memory_equal(w.logprob, logprob, sizeof logprob);
    lora_init(m, 1); /* B is zero */
    for (int again = 0; again < 2; again++) {
        check(&w, 1);
        assert_memory_equal(w.logprob, logprob, sizeof logprob);
        check(&w, 0);
        assert_memory_not_equal(w.logprob, logprob, sizeof logprob);
        check(&w, -1);
        assert_memory_not_equal(w.logprob, logprob, sizeof logprob);
    }
    peft_close(&adapter);
    bench_close(&w.b);
}

/* Two models take turns on one backend. */
static void test_two_models(void **state)
{
    (void)state;
    struct writer w[2], *both[] = {&w[0], &w[1]};
    struct arena arena;
    describe(&w[0], "neox-parallel");
    describe(&w[1], "families/gpt-neo");
    w[1].b.be.ops->close(&w[1].b.be);
    w[1].b.be = w[0].b.be;
    load(both, 2, &arena);
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < 2; i++)
            check(&w[i], -1);
    model_free(&w[1].b.model);
    hf_folder_close(&w[1].b.folder);
    bench_close(&w[0].b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_two_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
