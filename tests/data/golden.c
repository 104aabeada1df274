/* The trained models of the data folder against values computed in float64 by other code: log-probabilities of every token
 * and the last logits of whole sequences, greedy continuations, class logits. Needs RLHF_HPC_DATA (else exit code 77). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine.h"
#include "error.h"
#include "file.h"
#include "support/model_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 256, SLOTS = 3 };

static const double ABSOLUTE = 1e-4, RELATIVE = 1e-5;

/* What a file of golden values has shown so far. */
struct verdict {
    int64_t texts, logprobs, logits, greedy;
    double worst; /* largest error, 1: as large as allowed */
    double worst_logprob;
    double least_margin; /* of the greedy tokens */
    int legitimate;      /* greedy sequences that went on differently where the margin allows it */
};

static struct comm *comm;

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

static const char *in_data(const char *folder, const char *name, const char *suffix)
{
    static char path[2048];
    snprintf(path, sizeof path, "%s/%s/%s%s", getenv("RLHF_HPC_DATA"), folder, name, suffix);
    return path;
}

/* A model as a task opens it, nothing quantised. */
static void open_model(struct engine *e, struct settings *s, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "model.path=%s", in_data("models", name, ""));
    const char *overrides[] = {"task=generate", path, "model.quantization=none", "data.path=-",
                               "run.output_dir=unused", "run.threads=2"};
    done(settings_load(s, "golden", "", 0, overrides, sizeof overrides / sizeof *overrides));
    done(engine_open(e, s, comm, false));
    struct engine_need need = {.longest = CONTEXT, .longest_targets = CONTEXT, .micro_batch = 2, .slots = SLOTS};
    done(engine_plan(e, &need));
    done(engine_load(e));
}

static int read_ids(int32_t *ids, const json_t *list)
{
    int n = (int)json_array_size(list);
    assert_in_range(n, 1, CONTEXT);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static void compare(struct verdict *v, const char *what, double got, double want, int64_t at)
{
    double error = fabs(got - want), share = error / (ABSOLUTE + RELATIVE * fabs(want));
    v->worst = share > v->worst ? share : v->worst;
    if (!(share <= 1))
        fail_msg("%s %lld of text %lld: %.7g, golden value %.7g", what, (long long)at, (long long)v->texts, got, want);
}

static void check_score(struct engine *e, struct verdict *v, const json_t *row)
{
    const json_t *logprobs = json_object_get(row, "logprobs"), *logits = json_object_get(row, "last_logits");
    int32_t ids[CONTEXT];
    float logprob[CONTEXT];
    struct sequence s = {.ids = ids, .n = read_ids(ids, json_object_get(row, "ids")), .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = -1};
    done(micro_batch_forward(&e->micro_batch, &s, 1, &pass, 1.0f));
    assert_int_equal(json_array_size(logprobs), s.n - 1);
    for (int i = 0; i < s.n - 1; i++) {
        double want = json_number_value(json_array_get(logprobs, (size_t)i)), error = fabs((double)logprob[i] - want);
        compare(v, "log-probability", (double)logprob[i], want, i);
        v->worst_logprob = error > v->worst_logprob ? error : v->worst_logprob;
    }
    int vocab = e->folder.arch.vocab;
    const int32_t last[] = {s.n - 1};
    struct head_rows rows = model_rows(&e->model, 1, last, NULL);
    model_send(&e->model);
    float *got = malloc((size_t)vocab * sizeof *got);
    assert_non_null(got);
    e->be.ops->head_logits(&e->be, got, &e->model.head, e->model.hidden, e->folder.arch.hidden, &rows);
    assert_int_equal(json_array_size(logits), vocab);
    for (int i = 0; i < vocab; i++)
        compare(v, "logit", (double)got[i], json_number_value(json_array_get(logits, (size_t)i)), i);
    free(got);
    v->logprobs += s.n - 1;
    v->logits += vocab;
}

/* Two logits, each with the error that is allowed, may change places where they are closer than this. */
static bool may_differ(double margin)
{
    return margin <= 2 * ABSOLUTE;
}

static void check_greedy(struct engine *e, struct verdict *v, const json_t *row)
{
    const json_t *margins = json_object_get(row, "margin");
    int32_t prompt[CONTEXT], want[CONTEXT], got[CONTEXT];
    float logprob[CONTEXT];
    int n = read_ids(want, json_object_get(row, "new_ids"));
    struct generate_request ask = {.prompt = prompt, .n_prompt = read_ids(prompt, json_object_get(row, "prompt_ids")),
                                   .max_new = n, .response = got, .logprob = logprob};
    assert_true(ask.n_prompt + n <= CONTEXT);
    struct generate_options options = {.sampling = {.temperature = 0, .top_p = 1}, .eos = e->folder.arch.eos,
                                       .n_eos = e->folder.arch.n_eos, .adapter = -1};
    done(generate_run(&e->generator, &ask, 1, &options));
    for (int i = 0; i < n; i++) {
        double margin = json_number_value(json_array_get(margins, (size_t)i));
        if (i >= ask.n_response || got[i] != want[i]) {
            if (!may_differ(margin))
                fail_msg("greedy token %d of text %lld: %d of %d, golden value %d with a margin of %g", i, (long long)v->texts,
                         i < ask.n_response ? got[i] : -1, ask.n_response, want[i], margin);
            v->legitimate++;
            return; /* what follows continues another text */
        }
        v->least_margin = margin < v->least_margin ? margin : v->least_margin;
        v->greedy++;
    }
}

static void check_model(const char *name, int64_t min_logprobs, int64_t min_greedy)
{
    struct engine e;
    struct settings settings;
    struct verdict v = {.least_margin = INFINITY};
    struct text file = {0};
    open_model(&e, &settings, name);
    done(file_read(&file, in_data("golden", name, ".jsonl")));
    for (char *line = file.bytes, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        const char *kind = json_string_value(json_object_get(row, "kind"));
        assert_non_null(kind);
        if (!strcmp(kind, "score"))
            check_score(&e, &v, row);
        else if (!strcmp(kind, "greedy"))
            check_greedy(&e, &v, row);
        v.texts++;
        json_decref(row);
    }
    printf("%s: %lld log-probabilities, largest error %.2g; with %lld logits at most %.2f of what is allowed; %lld greedy tokens "
           "equal, the least margin %g, %d texts continued otherwise within the error\n",
           name, (long long)v.logprobs, v.worst_logprob, (long long)v.logits, v.worst, (long long)v.greedy, v.least_margin,
           v.legitimate);
    assert_true(v.logprobs >= min_logprobs);
    assert_true(v.greedy >= min_greedy);
    text_free(&file);
    engine_close(&e);
    settings_free(&settings);
}

static void test_llama(void **state)
{
    (void)state;
    check_model("stories260K", 5000, 1500);
}

static void test_neox_half_precision_file(void **state)
{
    (void)state;
    check_model("mini-gpt-neox-imdb", 2200, 440);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_model("mini-gpt2-imdb", 2300, 500);
}

static void test_distilbert_classifier(void **state)
{
    (void)state;
    const struct bench_options options = {.use = ARCH_CLASSIFIER};
    struct bench b;
    struct verdict v = {0};
    struct text file = {0};
    char folder[2048];
    snprintf(folder, sizeof folder, "%s", in_data("models", "mini-distilbert-sentiment", ""));
    bench_describe(&b, folder, &options);
    model_add_score_head(&b.model, b.folder.arch.n_labels, b.folder.arch.bidirectional, false, "classifier");
    bench_load(&b, &options);
    done(file_read(&file, in_data("golden", "mini-distilbert-sentiment", ".jsonl")));
    for (char *line = file.bytes, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL), *logits = json_object_get(row, "logits");
        int32_t ids[CONTEXT];
        float score[2];
        struct model_pass pass = {.adapter = -1};
        if (logits) {
            const struct sequence s = {.ids = ids, .n = read_ids(ids, json_object_get(row, "ids"))};
            done(micro_batch_scores(&b.mb, &s, 1, &pass, score));
            assert_true(json_array_size(logits) == 2 && b.folder.arch.n_labels == 2);
            for (int i = 0; i < 2; i++)
                compare(&v, "class logit", (double)score[i], json_number_value(json_array_get(logits, (size_t)i)), i);
            v.texts++;
        }
        json_decref(row);
    }
    printf("mini-distilbert-sentiment: %lld texts, class logits at most %.2f of what is allowed\n", (long long)v.texts, v.worst);
    assert_true(v.texts >= 120);
    text_free(&file);
    bench_close(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_neox_half_precision_file),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_distilbert_classifier),
    };
    if (!getenv("RLHF_HPC_DATA")) {
        printf("RLHF_HPC_DATA is not set: no trained models and golden values\n");
        return 77;
    }
    if (comm_open(&comm, &argc, &argv)) {
        fprintf(stderr, "%s\n", error_message());
        return 99;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failed;
}
