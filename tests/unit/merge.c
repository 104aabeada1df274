/* Merging: every tensor of every shard against a float64 reference, what is refused, and the memory that it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { R = 3, PATH_BYTES = 128, PAIRS_MAX = 16 };

static const char llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":20,\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"intermediate_size\":24}";
static const char gpt2[] = "{\"model_type\":\"gpt2\",\"vocab_size\":20,\"n_embd\":16,\"n_layer\":2,\"n_head\":2,\"n_positions\":8}";
static const char wide[] =
    "{\"model_type\":\"llama\",\"vocab_size\":8192,\"hidden_size\":1024,\"num_hidden_layers\":1,\"num_attention_heads\":8,"
    "\"intermediate_size\":2048}";
static const char buffer_name[] = "model.layers.0.self_attn.rotary_emb.inv_freq"; /* a tensor of old files, here of a type that */
static const char buffer_type[] = "U8";                                           /* the program does not compute with */

static char root[] = "/tmp/rlhf-hpc-test-XXXXXX";

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return file_remove_tree(root);
}

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

static float number(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 16777216.0f - 0.5f;
}

/* n numbers of a type, below 1/2 in magnitude */
static void *numbers(int64_t n, enum dtype type, uint32_t seed)
{
    void *out = malloc((size_t)n * dtype_bytes(type));
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        const float x = number(&seed);
        if (type == DTYPE_F32)
            ((float *)out)[i] = x;
        else
            ((uint16_t *)out)[i] = type == DTYPE_F16 ? half_from_float(x) : bf16_from_float(x);
    }
    return out;
}

/* ---- a case: a model in shards, an adapter, and what merging makes of them ---- */

struct bench {
    char source[PATH_BYTES], adapter_path[PATH_BYTES], result[PATH_BYTES];
    int n_shards;
    struct hf_folder folder;
    struct peft_adapter adapter;
    struct merge merge;
    struct safetensors merged;
};

static void put_text(const char *folder, const char *name, const char *text, size_t n)
{
    char *path = file_join(folder, name);
    done(file_make_folders(folder));
    done(file_write_atomic(path, text, n));
    free(path);
}

static void shard_name(char out[64], int shard, int n)
{
    if (n == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", shard + 1, n);
}

static int64_t elements(const struct safetensors_out *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* Tensors in reverse order over the shards, the buffer in the first. spoil: the tensor whose element 5 is not a number. */
static void write_model(const struct bench *b, const struct arch *a, enum dtype type, const char *spoil)
{
    struct arch_tensor *names;
    struct safetensors_out *list = hf_folder_list(a, type, &names), *some = calloc((size_t)arch_tensors(a) + 1, sizeof *some);
    const int n = arch_tensors(a);
    struct text index = {0};
    text_add_string(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (int shard = 0; shard < b->n_shards; shard++) {
        char name[64];
        int count = 0;
        shard_name(name, shard, b->n_shards);
        for (int i = n - 1; i >= 0; i--)
            if (i * b->n_shards / n == shard)
                some[count++] = list[i];
        if (shard == 0)
            some[count++] =
                (struct safetensors_out){.name = buffer_name, .type = buffer_type, .n_dims = 1, .shape = {16}, .data = "sixteen letters."};
        for (int i = 0; i < count; i++) {
            if (!some[i].data)
                some[i].data = numbers(elements(&some[i]), type, (uint32_t)(100 * shard + i));
            if (spoil && !strcmp(some[i].name, spoil))
                ((uint16_t *)some[i].data)[5] = 0x7e00;
            text_format(&index, "%s\"%s\": \"%s\"", index.n > 60 ? ", " : "", some[i].name, name);
        }
        char *path = file_join(b->source, name);
        done(safetensors_write(path, some, count));
        free(path);
        for (int i = 0; i < count; i++)
            if (some[i].name != buffer_name)
                free((void *)some[i].data);
    }
    text_add_string(&index, "}}");
    if (b->n_shards > 1)
        put_text(b->source, "model.safetensors.index.json", text_string(&index), index.n);
    text_free(&index);
    free(some);
    free(names);
    free(list);
}

/* On the attention's output layer and the MLP's, alpha 5, factors of `size`; heads: "score.weight" [2][H]. */
static void write_adapter(const struct bench *b, const struct arch *a, float size, bool head)
{
    struct peft_config c = {.r = R, .lora_alpha = 5};
    struct peft_out out[PAIRS_MAX];
    bool match[PAIRS_MAX * ARCH_LINEARS_MAX];
    int n = 0;
    peft_targets_add(&c.target_modules, a->transposed ? "c_proj" : "o_proj");
    peft_targets_add(&c.target_modules, a->transposed ? "c_fc" : "down_proj");
    done(peft_match_all(match, &c, a) > 0 ? 0 : -1);
    for (int k = 0; k < a->layers * ARCH_LINEARS_MAX; k++) {
        const struct arch_linear *l = &a->linear[k % ARCH_LINEARS_MAX];
        if (!match[k])
            continue;
        float *factor[] = {numbers((int64_t)R * l->in, DTYPE_F32, (uint32_t)k), numbers((int64_t)R * l->out, DTYPE_F32, (uint32_t)k + 50)};
        for (int i = 0; i < R * l->out; i++)
            factor[1][i] *= size;
        out[n++] = (struct peft_out){k / ARCH_LINEARS_MAX, (enum arch_slot)(k % ARCH_LINEARS_MAX), factor[0], factor[1]};
    }
    float *score = numbers(2 * a->hidden, DTYPE_F32, 9);
    const struct safetensors_out saved = {.name = "score.weight", .dtype = DTYPE_F32, .n_dims = 2, .shape = {2, a->hidden}, .data = score};
    done(peft_write(b->adapter_path, &c, a, out, n, &saved, head));
    for (int i = 0; i < n; i++) {
        free((void *)out[i].a);
        free((void *)out[i].b);
    }
    free(score);
    peft_config_free(&c);
}

static void bench_make(struct bench *b, const char *config, enum dtype type, int n_shards, const char *spoil, float size, bool head)
{
    static int count;
    struct arch a;
    *b = (struct bench){.n_shards = n_shards};
    snprintf(b->source, sizeof b->source, "%s/%d-source", root, count);
    snprintf(b->adapter_path, sizeof b->adapter_path, "%s/%d-adapter", root, count);
    snprintf(b->result, sizeof b->result, "%s/%d-result", root, count++);
    put_text(b->source, "config.json", config, strlen(config));
    put_text(b->result, "config.json", config, strlen(config));
    done(arch_read(&a, b->source, ARCH_LANGUAGE_MODEL));
    write_model(b, &a, type, spoil);
    write_adapter(b, &a, size, head);
    done(hf_folder_open(&b->folder, b->source, ARCH_LANGUAGE_MODEL));
    done(peft_open(&b->adapter, b->adapter_path, &b->folder.arch));
}

/* Writes all shards. Returns the last error. */
static int bench_merge(struct bench *b, const struct merge_options *o)
{
    int rc = 0;
    done(merge_open(&b->merge, &b->folder, &b->adapter, o));
    for (int i = 0; !rc && i < b->n_shards; i++)
        rc = merge_write_shard(&b->merge, i, b->result);
    return rc;
}

/* Opens what was written, the source's index beside it. */
static void bench_read(struct bench *b)
{
    if (b->n_shards > 1) {
        char *from = file_join(b->source, "model.safetensors.index.json"), *to = file_join(b->result, "model.safetensors.index.json");
        done(file_copy(to, from));
        free(from);
        free(to);
    }
    done(safetensors_open(&b->merged, b->result));
}

static void bench_close(struct bench *b)
{
    safetensors_close(&b->merged);
    merge_close(&b->merge);
    peft_close(&b->adapter);
    hf_folder_close(&b->folder);
}

/* ---- the reference ---- */

static double *doubles(const struct safetensors_entry *e)
{
    float *x = malloc((size_t)e->n * sizeof *x);
    double *y = malloc((size_t)e->n * sizeof *y);
    assert_non_null(x);
    assert_non_null(y);
    done(safetensors_floats(x, e, 0, e->n));
    for (int64_t i = 0; i < e->n; i++)
        y[i] = x[i];
    free(x);
    return y;
}

/* w [out][in], or [in][out] where turned: int8 codes by absmax of each output's weights, and back. */
static void dequantise(double *w, int64_t out, int64_t in, bool turned)
{
    for (int64_t o = 0; o < out; o++) {
        double most = 0;
        for (int64_t i = 0; i < in; i++)
            most = fmax(most, fabs(w[turned ? i * out + o : o * in + i]));
        for (int64_t i = 0; i < in && most > 0; i++) {
            double *x = &w[turned ? i * out + o : o * in + i];
            *x = rint(127 * *x / most) * most / 127;
        }
    }
}

static void add_delta(double *w, const struct peft_pair *p, int64_t out, int64_t in, bool turned)
{
    double *a = doubles(p->a), *b = doubles(p->b);
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++)
            for (int k = 0; k < R; k++)
                w[turned ? i * out + o : o * in + i] += 5.0 / R * b[o * R + k] * a[k * in + i];
    free(a);
    free(b);
}

static double unit(enum dtype type)
{
    return type == DTYPE_F32 ? 0x1p-21 : type == DTYPE_F16 ? 0x1p-11 : 0x1p-8;
}

/* One tensor: as it was, or the formula rounded once. Returns whether it changed. */
static bool expect_tensor(const struct bench *b, const struct arch_tensor *t, bool dequantized)
{
    const struct arch *a = &b->folder.arch;
    const struct safetensors_entry *from = hf_folder_tensor(&b->folder, t), *e = safetensors_find(&b->merged, from->name);
    const struct peft_pair *pair = NULL;
    const bool linear = t->role == ROLE_LINEAR && !t->bias;
    assert_non_null(e);
    for (int i = 0; linear && i < b->adapter.n; i++)
        if (b->adapter.pair[i].layer == t->layer && b->adapter.pair[i].slot == t->slot)
            pair = &b->adapter.pair[i];
    if (e->dtype == from->dtype && !pair && !(linear && dequantized)) {
        assert_int_equal(e->n_bytes, from->n_bytes);
        assert_memory_equal(e->bytes, from->bytes, e->n_bytes);
        return false;
    }
    double *want = doubles(from), *got = doubles(e);
    const int out = linear ? a->linear[t->slot].out : 0, in = linear ? a->linear[t->slot].in : 0;
    if (linear && dequantized)
        dequantise(want, out, in, t->transposed);
    if (pair)
        add_delta(want, pair, out, in, t->transposed);
    for (int64_t i = 0; i < e->n; i++)
        if (!(fabs(got[i] - want[i]) <= unit((enum dtype)e->dtype) * fabs(want[i]) + 1e-7))
            fail_msg("%s: element %lld is %.9g, must be %.9g", t->name, (long long)i, got[i], want[i]);
    free(want);
    free(got);
    return true;
}

/* Every tensor, in the source's order, and nothing else. Returns how many changed. */
static int expect_merged(const struct bench *b, bool dequantized)
{
    const struct safetensors *s = &b->folder.weights, *m = &b->merged;
    int changed = 0;
    for (int i = 0; i < arch_tensors(&b->folder.arch); i++) {
        struct arch_tensor t;
        arch_tensor(&t, &b->folder.arch, i);
        changed += expect_tensor(b, &t, dequantized);
    }
    assert_int_equal(m->n, s->n + b->merge.n_added);
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->n; k++) {
            const struct safetensors_entry *x = safetensors_find(m, s->entry[i].name), *y = safetensors_find(m, s->entry[k].name);
            assert_string_equal(strrchr(x->file, '/'), strrchr(s->entry[i].file, '/'));
            if (!strcmp(s->entry[i].file, s->entry[k].file))
                assert_int_equal(s->entry[i].bytes < s->entry[k].bytes, x->bytes < y->bytes);
        }
    const struct safetensors_entry *buffer = safetensors_find(m, buffer_name);
    assert_string_equal(buffer->type, buffer_type);
    assert_memory_equal(buffer->bytes, "sixteen letters.", 16);
    return changed;
}

/* ---- tests ---- */

static void check(const char *config, enum dtype type, int n_shards, const struct merge_options *o, int changed)
{
    struct bench b;
    bench_make(&b, config, type, n_shards, NULL, 1, false);
    done(bench_merge(&b, o));
    bench_read(&b);
    assert_int_equal(expect_merged(&b, o->dequantized), changed);
    bench_close(&b);
}

static void test_original_weights_in_shards(void **state)
{
    (void)state;
    const struct merge_options o = {.dtype = -1, .threads = 2};
    check(llama, DTYPE_F16, 3, &o, 4);
    check(llama, DTYPE_BF16, 1, &o, 4);
    check(llama, DTYPE_F32, 2, &o, 4);
}

static void test_dequantized_weights(void **state)
{
    (void)state;
    const struct merge_options o = {.dequantized = true, .dtype = -1, .threads = 2};
    check(llama, DTYPE_F32, 2, &o, 14);
    check(llama, DTYPE_BF16, 1, &o, 14);
}

static void test_conv1d_weights(void **state)
{
    (void)state;
    check(gpt2, DTYPE_F32, 2, &(struct merge_options){.dtype = -1, .threads = 2}, 6);
    check(gpt2, DTYPE_F32, 1, &(struct merge_options){.dequantized = true, .dtype = -1, .threads = 2}, 8);
}

static void test_another_type(void **state)
{
    (void)state;
    struct bench b;
    const struct merge_options o = {.dtype = DTYPE_F32, .threads = 1};
    bench_make(&b, llama, DTYPE_F16, 2, NULL, 1, false);
    done(bench_merge(&b, &o));
    bench_read(&b);
    expect_merged(&b, false);
    for (int i = 0; i < b.merged.n; i++)
        assert_true(b.merged.entry[i].dtype == DTYPE_F32 || !strcmp(b.merged.entry[i].name, buffer_name));
    assert_int_equal(merge_shard_bytes(&b.merge, 0) + merge_shard_bytes(&b.merge, 1),
                     4 * arch_parameters(&b.folder.arch) + 16);
    bench_close(&b);
}

static void test_threads_do_not_change_the_bytes(void **state)
{
    (void)state;
    struct text file[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        struct bench b;
        const struct merge_options o = {.dequantized = true, .dtype = -1, .threads = i ? 4 : 1};
        bench_make(&b, llama, DTYPE_F16, 1, NULL, 1, false);
        done(bench_merge(&b, &o));
        char *path = file_join(b.result, "model.safetensors");
        done(file_read(&file[i], path));
        free(path);
        bench_close(&b);
    }
    assert_int_equal(file[0].n, file[1].n);
    assert_memory_equal(file[0].bytes, file[1].bytes, file[0].n);
    text_free(&file[0]);
    text_free(&file[1]);
}

/* A head of modules_to_save lies behind the last shard's tensors; in a model that has one, in its place. */
static void test_heads(void **state)
{
    (void)state;
    struct bench b, again;
    const struct merge_options o = {.dtype = -1, .threads = 1};
    bench_make(&b, llama, DTYPE_F16, 2, NULL, 1, true);
    done(bench_merge(&b, &o));
    assert_int_equal(b.merge.n_added, 1);
    char *path = file_join(b.result, "model-00002-of-00002.safetensors");
    struct safetensors s;
    done(safetensors_open(&s, path));
    const struct safetensors_entry *e = safetensors_find(&s, "score.weight"),
                                   *want = peft_find_saved(&b.adapter, "score.weight");
    assert_non_null(e);
    assert_non_null(want);
    assert_true(e->dtype == DTYPE_F16 && e->shape[0] == 2 && e->shape[1] == 16);
    double *x = doubles(e), *y = doubles(want);
    for (int i = 0; i < e->n; i++)
        assert_true(fabs(x[i] - y[i]) <= 0x1p-11 * fabs(y[i]) + 1e-7);
    free(x);
    free(y);
    safetensors_close(&s);
    /* the same adapter over a folder that has the head */
    bench_make(&again, llama, DTYPE_F16, 1, NULL, 1, true);
    char *single = file_join(again.source, "model.safetensors");
    done(safetensors_open(&s, single));
    struct safetensors_out *list = calloc((size_t)s.n + 1, sizeof *list);
    const uint16_t old[48] = {0};
    for (int i = 0; i < s.n; i++) {
        list[i] = (struct safetensors_out){.name = s.entry[i].name, .dtype = DTYPE_F16, .n_dims = s.entry[i].n_dims, .data = s.entry[i].bytes};
        list[i].type = s.entry[i].type;
        memcpy(list[i].shape, s.entry[i].shape, sizeof list[i].shape);
    }
    list[s.n] = (struct safetensors_out){.name = "score.weight", .dtype = DTYPE_F16, .n_dims = 2, .shape = {3, 16}, .data = old};
    done(safetensors_write(single, list, s.n + 1));
    free(list);
    safetensors_close(&s);
    hf_folder_close(&again.folder);
    done(hf_folder_open(&again.folder, again.source, ARCH_LANGUAGE_MODEL));
    done(bench_merge(&again, &o));
    assert_int_equal(again.merge.n_added, 0);
    bench_read(&again);
    e = safetensors_find(&again.merged, "score.weight");
    assert_true(e->shape[0] == 2 && e->dtype == DTYPE_F16);
    free(single);
    free(path);
    bench_close(&again);
    bench_close(&b);
}

/* The line names tensor and element; nothing is left of the shard. */
static void expect_refused(struct bench *b, const struct merge_options *o, const char *text)
{
    assert_int_equal(bench_merge(b, o), -1);
    if (!strstr(error_message(), text))
        fail_msg("'%s' does not say '%s'", error_message(), text);
    assert_int_equal(error_kind(), ERR_FILE);
    char *path = file_join(b->result, "model.safetensors");
    assert_false(file_exists(path));
    free(path);
    bench_close(b);
}

static void test_what_is_not_finite(void **state)
{
    (void)state;
    struct bench b;
    const struct merge_options o = {.dtype = -1, .threads = 2};
    bench_make(&b, llama, DTYPE_F16, 1, "model.layers.1.self_attn.o_proj.weight", 1, false);
    expect_refused(&b, &o, "tensor model.layers.1.self_attn.o_proj.weight: element 5 is not a finite number");
    bench_make(&b, llama, DTYPE_F16, 1, "model.norm.weight", 1, false);
    expect_refused(&b, &o, "tensor model.norm.weight: element 5 is not a finite number");
    bench_make(&b, llama, DTYPE_F16, 1, NULL, 1e6f, false);
    expect_refused(&b, &o, "is not a finite number of type F16 once merged; merge.dtype = \"bfloat16\" reaches further");
    bench_make(&b, llama, DTYPE_F16, 1, NULL, INFINITY, false);
    expect_refused(&b, &o, "lora_B.weight: element 0 is not a finite number");
}

/* VmHWM in bytes; 0 where the system does not say */
static size_t peak_memory(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmHWM: %llu kB", &kib);
    if (f)
        fclose(f);
    return (size_t)kib * 1024;
}

/* Starts the peak anew. */
static bool reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    const bool could = f && fputs("5", f) >= 0;
    return (f ? fclose(f) == 0 : false) && could;
}

static void test_memory_is_bounded(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own memory is counted too */
#endif
    struct bench b;
    bench_make(&b, wide, DTYPE_F16, 1, NULL, 1, false);
    const struct merge_options o = {.dtype = -1, .threads = 2};
    if (!reset_peak())
        skip();
    const size_t before = peak_memory();
    done(bench_merge(&b, &o));
    const size_t took = peak_memory() - before, shard = merge_shard_bytes(&b.merge, 0), planned = merge_memory_bytes(&b.merge);
    print_message("a shard of %zu bytes: planned %zu, took %zu\n", shard, planned, took);
    assert_true(shard > 50u << 20);
    assert_true(took <= planned + (4u << 20));
    assert_true(planned < shard / 2);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_original_weights_in_shards),
        cmocka_unit_test(test_dequantized_weights),
        cmocka_unit_test(test_conv1d_weights),
        cmocka_unit_test(test_another_type),
        cmocka_unit_test(test_threads_do_not_change_the_bytes),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_what_is_not_finite),
        cmocka_unit_test(test_memory_is_bounded),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
