/* Each pass runs through the functions that training calls; decode is what a longer generation takes more than a shorter one. */
#include "bench_pass.h"

#include "error.h"
#include "log.h"
#include "optimizer.h"
#include "timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPEATS = 3, DECODE_STEPS_MAX = 16 };

struct pass_cost {
    int64_t tokens;
    double sec, bytes, operations;
};

struct bencher {
    struct engine *e;
    struct device_rates rates;
    json_t *json;
    int32_t *ids;  /* [longest] made up, the same for all sequences */
    float *floats; /* [4][longest] log-probs, entropies, values, derivatives */
};

static double least(double a, double b)
{
    return a < b ? a : b;
}

/* Weights of the linear layers. */
static double linear_weights(const struct model *m)
{
    double n = 0;
    for (int j = 0; j < ARCH_LINEARS_MAX; j++)
        n += (double)m->arch->linear[j].out * m->arch->linear[j].in;
    return n * m->arch->layers;
}

static double head_weights(const struct model *m)
{
    return (double)m->arch->vocab * m->arch->embedding_width;
}

static double weight_bytes(const struct model *m)
{
    size_t element = m->dtype == DTYPE_I8 ? 1 : dtype_bytes(m->be->ops->act);
    return linear_weights(m) * (double)element + head_weights(m) * (double)dtype_bytes(m->be->ops->act);
}

/* Query-key pairs of n sequences of T tokens, times channels and layers. */
static double attention_pairs(const struct model *m, int n, int T)
{
    return 0.5 * n * T * (T + 1.0) * m->arch->heads * m->arch->head_dim * m->arch->layers;
}

static void add_pass(struct bencher *b, const char *name, const struct pass_cost *c)
{
    const struct device_rates *r = &b->rates;
    double bandwidth = c->bytes / c->sec, rate = c->operations / c->sec;
    double of_copy = r->copy_bytes_per_sec > 0 ? bandwidth / r->copy_bytes_per_sec : 0;
    double of_matrix = r->matrix_per_sec > 0 ? rate / r->matrix_per_sec : 0;
    log_line("%-14s %7lld %10.3f %9.3f %8.1f %6.1f%% %10.4f %9.3f %6.1f%%", name, (long long)c->tokens, 1e3 * c->sec, 1e-9 * c->bytes,
             1e-9 * bandwidth, 100 * of_copy, 1e-12 * c->operations, 1e-12 * rate, 100 * of_matrix);
    json_object_set_new(b->json, name,
                        json_pack("{s:I,s:f,s:f,s:f,s:f,s:f}", "tokens", (json_int_t)c->tokens, "sec", c->sec, "bytes", c->bytes,
                                  "operations", c->operations, "of_copy", of_copy, "of_matrix", of_matrix));
}

/* Seconds of generating max_new tokens for n prompts of n_prompt tokens, at best. */
static int time_generation(struct bencher *b, int n, int n_prompt, int max_new, double *sec)
{
    struct engine *e = b->e;
    struct generate_options o = {.sampling = {.temperature = 1, .top_p = 1}, .seed = 1};
    struct generate_request *r = calloc((size_t)n, sizeof *r);
    int32_t *response = calloc((size_t)n * (size_t)max_new, sizeof *response);
    float *logprob = calloc((size_t)n * (size_t)max_new, sizeof *logprob);
    CHECK(r && response && logprob, "out of memory");
    int rc = 0;
    for (int i = 0; i < n; i++)
        r[i] = (struct generate_request){.sample = i,
                                         .prompt = b->ids,
                                         .n_prompt = n_prompt,
                                         .max_new = max_new,
                                         .response = response + (size_t)i * (size_t)max_new,
                                         .logprob = logprob + (size_t)i * (size_t)max_new};
    *sec = HUGE_VAL;
    for (int i = 0; !rc && i <= REPEATS; i++) {
        double since = timing_now();
        rc = generate_run(&e->generator, r, n, &o);
        if (i > 0) /* the first records programs and warms up */
            *sec = least(*sec, timing_now() - since);
    }
    free(r);
    free(response);
    free(logprob);
    return rc;
}

/* Prefill of n prompts that fit one pass, and a decode step of n sequences. */
static int bench_generation(struct bencher *b, int n, bool with_prefill)
{
    struct model *m = &b->e->model;
    const int longest = m->shape.cache_tokens, more = longest / 2 < DECODE_STEPS_MAX ? longest / 2 : DECODE_STEPS_MAX;
    int n_prompt = longest - more - 1 < m->shape.batch_tokens / n ? longest - more - 1 : m->shape.batch_tokens / n;
    double prefill, all;
    char name[32];
    if (n_prompt < 1 || more < 1)
        return 0;
    TRY(time_generation(b, n, n_prompt, 1, &prefill));
    TRY(time_generation(b, n, n_prompt, 1 + more, &all));
    struct pass_cost c = {.tokens = (int64_t)n * n_prompt,
                          .sec = prefill,
                          .bytes = weight_bytes(m),
                          .operations = 2.0 * n * n_prompt * linear_weights(m) + 2.0 * n * head_weights(m) +
                                        4 * attention_pairs(m, n, n_prompt)};
    if (with_prefill)
        add_pass(b, "prefill", &c);
    const double keys = (double)n * (n_prompt + 0.5 * more), channels = (double)m->arch->head_dim * m->arch->layers;
    c = (struct pass_cost){.tokens = n,
                           .sec = (all - prefill) / more,
                           .bytes = weight_bytes(m) + 2 * keys * m->arch->kv_heads * channels * (double)dtype_bytes(m->be->ops->act),
                           .operations = 2.0 * n * (linear_weights(m) + head_weights(m)) + 4 * keys * m->arch->heads * channels};
    snprintf(name, sizeof name, "decode %d", n);
    add_pass(b, name, &c);
    return 0;
}

/* As many sequences of the longest kind as a micro-batch holds. */
static int fill_sequences(struct bencher *b, struct sequence *s)
{
    const struct engine *e = b->e;
    const int T = e->need.longest, first = T - e->need.longest_targets, n = e->shape.batch_tokens / T;
    float *rows = b->floats;
    for (int i = 0; i < n; i++)
        s[i] = (struct sequence){.sample = i,
                                 .ids = b->ids,
                                 .n = T,
                                 .first = first > 1 ? first : 1,
                                 .logprob = rows,
                                 .entropy = rows + T,
                                 .value = rows + 2 * T,
                                 .dlogprob = rows + 3 * T,
                                 .dvalue = rows + 3 * T};
    return micro_batch_take(&e->micro_batch, s, n, 0);
}

static int bench_training(struct bencher *b)
{
    struct engine *e = b->e;
    struct model *m = &e->model;
    struct sequence *s = calloc((size_t)(e->shape.batch_tokens / e->need.longest), sizeof *s);
    CHECK(s, "out of memory");
    const int T = e->need.longest, n = fill_sequences(b, s);
    const double N = (double)n * T, rows = (double)n * (T - s[0].first), linear = 2 * N * linear_weights(m),
                 head = 2 * rows * head_weights(m), pairs = attention_pairs(m, n, T);
    const bool recomputed = m->shape.kept_layers < m->arch->layers;
    struct model_pass look = {.adapter = 0}, train = {.adapter = 0, .keep = true};
    double evaluate_sec = HUGE_VAL, train_sec = HUGE_VAL;
    int rc = 0;
    for (int i = 0; !rc && i <= REPEATS; i++) {
        double since = timing_now();
        rc = micro_batch_forward(&e->micro_batch, s, n, &look, 1);
        double middle = timing_now();
        gradient_begin(m, n);
        if (!rc)
            rc = micro_batch_forward(&e->micro_batch, s, n, &train, 1);
        if (!rc)
            rc = micro_batch_backward(&e->micro_batch, s, n, &train, 1);
        if (i > 0) {
            evaluate_sec = least(evaluate_sec, middle - since);
            train_sec = least(train_sec, timing_now() - middle);
        }
    }
    free(s);
    if (rc)
        return rc;
    struct pass_cost c = {(int64_t)N, evaluate_sec, weight_bytes(m), linear + head + 4 * pairs};
    add_pass(b, "log-probs", &c);
    /* forward with the slopes of the head's rows, recomputation, dX; what lies below the first layer's attention is not asked for */
    c = (struct pass_cost){(int64_t)N, train_sec, weight_bytes(m) * (recomputed ? 3 : 2),
                           linear * (recomputed ? 3 : 2) + 2 * head + pairs * (recomputed ? 18 : 14)};
    add_pass(b, "training", &c);
    return 0;
}

static int bench_update(struct bencher *b)
{
    struct model *m = &b->e->model;
    struct optimizer o = {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
    double sec = HUGE_VAL, norm;
    for (int i = 0; i <= REPEATS; i++) {
        double since = timing_now();
        optimizer_update(&o, m, 0, &norm);
        TRY(m->be->ops->sync(m->be));
        sec = least(sec, i > 0 ? timing_now() - since : sec);
    }
    const double n = (double)m->trainable.n;
    struct pass_cost c = {0, sec, n * (8 + 8 + 6 * 4.0), 0}; /* gradients twice; parameter and moments read and written */
    add_pass(b, "update", &c);
    return 0;
}

static int run_passes(struct bencher *b)
{
    const int most = b->e->shape.slots, sizes[] = {1, 4, 16, most};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < most || i == 3)
            TRY(bench_generation(b, sizes[i], i == 3));
    TRY(bench_training(b));
    return bench_update(b);
}

json_t *bench_passes(struct engine *e)
{
    struct bencher b = {.e = e, .json = json_object()};
    const size_t T = (size_t)e->need.longest;
    b.ids = calloc(T, sizeof *b.ids);
    b.floats = calloc(4 * T, sizeof *b.floats);
    CHECK(b.ids && b.floats && b.json, "out of memory");
    for (size_t t = 0; t < T; t++) {
        b.ids[t] = (int32_t)(t * 7919 % (size_t)e->folder.arch.vocab);
        b.floats[3 * T + t] = 1;
    }
    e->be.ops->measure(&e->be, &b.rates);
    log_line("measured: copy %.1f GB/s, products %.3f T/s, of int8 %.3f T/s", 1e-9 * b.rates.copy_bytes_per_sec,
             1e-12 * b.rates.matrix_per_sec, 1e-12 * b.rates.matrix_int8_per_sec);
    log_line("%-14s %7s %10s %9s %8s %7s %10s %9s %7s", "pass", "tokens", "ms", "GB", "GB/s", "of copy", "Tflop", "Tflop/s",
             "of best");
    int rc = run_passes(&b);
    json_object_set_new(b.json, "measured",
                        json_pack("{s:f,s:f,s:f}", "copy_bytes_per_sec", b.rates.copy_bytes_per_sec, "matrix_per_sec",
                                  b.rates.matrix_per_sec, "matrix_int8_per_sec", b.rates.matrix_int8_per_sec));
    free(b.ids);
    free(b.floats);
    if (rc)
        json_decref(b.json);
    return rc ? NULL : b.json;
}
