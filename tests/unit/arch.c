/* config.json of both families: values, parameter counts, what is refused, and what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch.h"
#include "error.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rlhf-hpc-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static void write_file(const char *name, const char *text)
{
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
    free(path);
}

static void read_text(struct arch *a, const char *config)
{
    write_file("config.json", config);
    error_clear();
    if (arch_read(a, folder, ARCH_LANGUAGE_MODEL) != 0)
        fail_msg("%s", error_message());
}

static void assert_refused(const char *config, const char *part)
{
    struct arch a;
    write_file("config.json", config);
    error_clear();
    if (arch_read(&a, folder, ARCH_LANGUAGE_MODEL) == 0)
        fail_msg("read, should say: %s", part);
    if (!strstr(error_message(), part) || !strstr(error_message(), folder))
        fail_msg("'%s' does not say '%s'", error_message(), part);
}

static const char neox_20b[] =
    "{\"model_type\":\"gpt_neox\",\"vocab_size\":50432,\"hidden_size\":6144,\"num_hidden_layers\":"
    "44,"
    "\"num_attention_heads\":64,\"intermediate_size\":24576,\"rotary_pct\":0.25,\"rotary_emb_"
    "base\":10000,"
    "\"max_position_embeddings\":2048,\"layer_norm_eps\":1e-05,\"use_parallel_residual\":true,"
    "\"hidden_act\":\"gelu_fast\",\"tie_word_embeddings\":false,\"bos_token_id\":0,\"eos_token_"
    "id\":0}";
static const char tinyllama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":32000,\"hidden_size\":2048,\"num_hidden_layers\":22,"
    "\"num_attention_heads\":32,\"num_key_value_heads\":4,\"intermediate_size\":5632,\"rms_norm_"
    "eps\":1e-05,"
    "\"max_position_embeddings\":2048,\"hidden_act\":\"silu\",\"rope_theta\":10000.0,\"bos_token_"
    "id\":1,"
    "\"eos_token_id\":2}";

#define LLAMA(rest)                                                                                \
    "{\"model_type\":\"llama\",\"vocab_size\":100,\"hidden_size\":64,\"num_hidden_layers\":2,"     \
    "\"num_attention_heads\":4,\"intermediate_size\":96" rest "}"
#define NEOX(rest)                                                                                 \
    "{\"model_type\":\"gpt_neox\",\"vocab_size\":100,\"hidden_size\":64,\"num_hidden_layers\":2,"  \
    "\"num_attention_heads\":4,\"intermediate_size\":256" rest "}"

static void test_neox_20b(void **state)
{
    (void)state;
    struct arch a;
    char name[ARCH_NAME_MAX];
    read_text(&a, neox_20b);
    assert_string_equal(arch_model_type(&a), "gpt_neox");
    assert_int_equal(arch_parameters(&a), 20554567680);
    assert_true(a.head_dim == 96 && a.rotary_dims == 24 && a.kv_heads == 64 &&
                a.norm == NORM_LAYER && a.norm_bias);
    assert_true(a.residual == RESIDUAL_PARALLEL && !a.tied_head && !a.gated_mlp && a.qkv == QKV_INTERLEAVED);
    assert_true(a.activation == ACT_GELU_TANH && a.norm_eps == 1e-5f && a.rope.theta == 10000);
    assert_true(a.bos == 0 && a.n_eos == 1 && a.eos[0] == 0 && a.pad == -1);
    assert_true(a.linear[LIN_QKV].out == 18432 && a.linear[LIN_QKV].in == 6144 &&
                a.linear[LIN_QKV].bias);
    assert_true(a.linear[LIN_QKV].default_lora && !a.linear[LIN_ATTN_OUT].default_lora);
    assert_true(a.linear[LIN_Q].out == 0 && !a.linear[LIN_Q].module &&
                a.linear[LIN_MLP_DOWN].in == 24576);
    assert_int_equal(arch_tensors(&a), 1 + 44 * 12 + 2 + 1);
    arch_tensor_name(name, sizeof name, &a, ROLE_LINEAR, 43, LIN_QKV, true);
    assert_string_equal(name, "gpt_neox.layers.43.attention.query_key_value.bias");
    arch_module_name(name, sizeof name, &a, 7, LIN_MLP_UP);
    assert_string_equal(name, "gpt_neox.layers.7.mlp.dense_h_to_4h");
    arch_tensor_name(name, sizeof name, &a, ROLE_HEAD, 0, 0, false);
    assert_string_equal(name, "embed_out.weight");
}

static void test_tinyllama(void **state)
{
    (void)state;
    struct arch a;
    struct arch_tensor t;
    read_text(&a, tinyllama);
    assert_int_equal(arch_parameters(&a), 1100048384);
    assert_true(a.head_dim == 64 && a.rotary_dims == 64 && a.kv_heads == 4 && a.norm == NORM_RMS &&
                !a.norm_bias);
    assert_true(a.residual == RESIDUAL_SEQUENTIAL && a.gated_mlp && a.qkv == QKV_SPLIT &&
                a.activation == ACT_SILU);
    assert_true(a.linear[LIN_K].out == 256 && a.linear[LIN_Q].out == 2048 && !a.linear[LIN_Q].bias);
    assert_true(a.linear[LIN_Q].default_lora && !a.linear[LIN_K].default_lora &&
                a.linear[LIN_V].default_lora);
    arch_tensor(&t, &a, 0);
    assert_string_equal(t.name, "model.embed_tokens.weight");
    arch_tensor(&t, &a, 2);
    assert_string_equal(t.name, "model.layers.0.post_attention_layernorm.weight");
    arch_tensor(&t, &a, arch_tensors(&a) - 2);
    assert_string_equal(t.name, "model.norm.weight");
    arch_tensor(&t, &a, arch_tensors(&a) - 1);
    assert_string_equal(t.name, "lm_head.weight");
    assert_true(t.role == ROLE_HEAD && t.shape[0] == 32000 && t.shape[1] == 2048);
}

static void test_other_counts(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, "{\"model_type\":\"gpt_neox\",\"vocab_size\":50304,\"hidden_size\":512,\"num_"
                  "hidden_layers\":6,"
                  "\"num_attention_heads\":8,\"intermediate_size\":2048}"); /* Pythia-70m */
    assert_int_equal(arch_parameters(&a), 70426624);
    read_text(&a, "{\"model_type\":\"gpt_neox\",\"vocab_size\":50304,\"hidden_size\":2048,\"num_"
                  "hidden_layers\":16,"
                  "\"num_attention_heads\":8,\"intermediate_size\":8192}"); /* Pythia-1b */
    assert_int_equal(arch_parameters(&a), 1011781632);
    read_text(&a, "{\"model_type\":\"llama\",\"vocab_size\":32000,\"hidden_size\":4096,\"num_"
                  "hidden_layers\":32,"
                  "\"num_attention_heads\":32,\"intermediate_size\":11008}"); /* LLaMA-2-7B */
    assert_int_equal(arch_parameters(&a), 6738415616);
    read_text(&a, LLAMA(",\"tie_word_embeddings\":true"));
    const int64_t tied = arch_parameters(&a);
    char name[ARCH_NAME_MAX];
    arch_tensor_name(name, sizeof name, &a, ROLE_HEAD, 0, 0, false);
    assert_string_equal(name, "model.embed_tokens.weight");
    read_text(&a, LLAMA(""));
    assert_int_equal(arch_parameters(&a), tied + 6400);
    read_text(&a, LLAMA(",\"attention_bias\":true,\"mlp_bias\":true"));
    assert_int_equal(arch_parameters(&a), tied + 6400 + 2 * (4 * 64 + 2 * 96 + 64));
}

static void test_rope_keys_old_and_new(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, NEOX(",\"rotary_pct\":0.5,\"rotary_emb_base\":500"));
    assert_true(a.rotary_dims == 8 && a.rope.theta == 500 && a.rope.scaling == ROPE_PLAIN);
    read_text(&a, NEOX(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":700,"
                       "\"partial_rotary_factor\":1.0}"));
    assert_true(a.rotary_dims == 16 && a.rope.theta == 700 && a.rope.scaling == ROPE_PLAIN);
    read_text(&a, NEOX(""));
    assert_true(a.rotary_dims == 4 && a.rope.theta == 10000);
    read_text(&a,
              LLAMA(",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"));
    assert_true(a.rope.theta == 5e5 && a.rope.scaling == ROPE_LINEAR && a.rope.factor == 2 &&
                a.rotary_dims == 16);
    read_text(
        &a,
        LLAMA(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":8.0,"
              "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_"
              "embeddings\":8192}"));
    assert_true(a.rope.scaling == ROPE_LLAMA3 && a.rope.original_max_positions == 8192 &&
                a.rope.theta == 5e5);
}

static void test_eos_comes_from_the_generation_config(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, LLAMA(",\"eos_token_id\":[5,6]"));
    assert_true(a.n_eos == 2 && a.eos[0] == 5 && a.eos[1] == 6);
    write_file("generation_config.json", "{\"eos_token_id\":[7,8,9]}");
    read_text(&a, LLAMA(",\"eos_token_id\":5"));
    assert_true(a.n_eos == 3 && a.eos[2] == 9);
    write_file("generation_config.json", "{\"eos_token_id\":null}");
    read_text(&a, LLAMA(",\"eos_token_id\":5"));
    assert_true(a.n_eos == 1 && a.eos[0] == 5);
    write_file("generation_config.json", "{\"eos_token_id\":100}");
    assert_refused(LLAMA(""), "generation_config.json: eos_token_id 100 is outside");
    write_file("generation_config.json", "[]");
    assert_refused(LLAMA(""), "generation_config.json: not a JSON object");
    char *path = file_join(folder, "generation_config.json");
    unlink(path);
    free(path);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "not JSON"},
        {"[]", "not a JSON object"},
        {"{}", "no model_type"},
        {"{\"model_type\":\"bloom\"}", "bloom is not supported; language models are gpt_neox, gpt2, gpt_neo, opt, llama, mistral, qwen2, qwen3; "
                                      "classifiers these and distilbert, bert, roberta"},
        {"{\"model_type\":\"llama\"}", "hidden_size is missing"},
        {LLAMA(",\"vocab_size\":7"), "not JSON"}, /* twice */
        {"{\"model_type\":\"llama\",\"vocab_size\":0,\"hidden_size\":\"64\",\"num_hidden_layers\":"
         "2.5,"
         "\"num_attention_heads\":4294967296,\"intermediate_size\":-1}",
         "vocab_size is 0"},
        {"{\"model_type\":\"llama\",\"vocab_size\":2000000,\"hidden_size\":64,\"num_hidden_"
         "layers\":2,"
         "\"num_attention_heads\":3,\"intermediate_size\":9}",
         "not a multiple of num_attention_heads 3"},
        {LLAMA(",\"num_key_value_heads\":3"), "num_key_value_heads 3"},
        {LLAMA(",\"head_dim\":15"), "15 rotary dimensions"},
        {LLAMA(",\"head_dim\":1000000"), "head_dim is 1000000"},
        {LLAMA(",\"hidden_act\":\"mish\""), "hidden_act mish"},
        {LLAMA(",\"hidden_act\":3"), "hidden_act (not a string)"},
        {LLAMA(",\"rms_norm_eps\":-1"), "rms_norm_eps"},
        {LLAMA(",\"rms_norm_eps\":\"x\""), "rms_norm_eps is not a number"},
        {LLAMA(",\"tie_word_embeddings\":1"), "tie_word_embeddings is not true or false"},
        {LLAMA(",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}"),
         "rope scaling longrope is not supported (default, linear, dynamic, llama3, yarn are)"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"mscale\":1.0}"), "yarn with mscale is not supported"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false}"), "truncate false"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"beta_fast\":1}"), "beta_slow is not below"},
        {LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":0.5}"), "factor is 0.5"},
        {LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), "linear needs factor"},
        {LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}"), "needs low_freq_factor"},
        {LLAMA(",\"rope_scaling\":3"), "rope_scaling is not an object"},
        {LLAMA(",\"rope_parameters\":{\"full_attention\":{}}"), "differ by kind of layer"},
        {LLAMA(",\"rope_parameters\":{\"partial_rotary_factor\":0.5}"),
         "partial_rotary_factor 0.5"},
        {LLAMA(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), "already quantised"},
        {LLAMA(",\"eos_token_id\":100"), "eos_token_id 100 is outside"},
        {LLAMA(",\"eos_token_id\":[1,\"a\"]"), "eos_token_id is not a whole number"},
        {LLAMA(",\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), "lists 17"},
        {LLAMA(",\"bos_token_id\":-2"), "bos_token_id -2"},
        {NEOX(",\"rotary_pct\":0.2"), "3 rotary dimensions"},
        {NEOX(",\"rotary_pct\":0"), "0 rotary dimensions"},
        {NEOX(",\"rotary_pct\":2"), "rotary_pct is 2"},
        {NEOX(",\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
              "]]]]]]]]]]]]]]]"),
         "deeper"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i][0], cases[i][1]);
    /* all problems at once */
    assert_refused(cases[6][0], "num_hidden_layers is not a whole number");
    assert_refused(cases[6][0], "intermediate_size is -1");
    struct arch a;
    assert_int_equal(arch_read(&a, "/nonexistent", ARCH_LANGUAGE_MODEL), -1);
    assert_non_null(strstr(error_message(), "/nonexistent"));
}

static void test_written_config_reads_back(void **state)
{
    (void)state;
    static const char *const configs[] = {
        neox_20b,
        tinyllama,
        NEOX(",\"rotary_pct\":0.375,\"hidden_act\":\"gelu_new\",\"use_parallel_residual\":false,"
             "\"pad_token_id\":3,"
             "\"attention_bias\":false,\"eos_token_id\":[4,5],\"rope_scaling\":{\"type\":"
             "\"linear\",\"factor\":2.5}"),
        LLAMA(
            ",\"head_dim\":32,\"mlp_bias\":true,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,"
            "\"bos_token_id\":null,\"eos_token_id\":null,\"rope_scaling\":{\"rope_type\":"
            "\"llama3\",\"factor\":8.0,"
            "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":"
            "8192}"),
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct arch a, b;
        read_text(&a, configs[i]);
        assert_int_equal(arch_write_config(&a, folder, DTYPE_BF16), 0);
        assert_int_equal(arch_read(&b, folder, ARCH_LANGUAGE_MODEL), 0);
        /* every field, through the names and numbers that a reader uses */
        assert_memory_equal(&a.hidden, &b.hidden,
                            offsetof(struct arch, norm) - offsetof(struct arch, hidden));
        assert_true(a.norm == b.norm && a.norm_eps == b.norm_eps &&
                    a.residual == b.residual);
        assert_true(a.rotary_dims == b.rotary_dims && a.rope.theta == b.rope.theta);
        assert_true(a.rope.scaling == b.rope.scaling && a.rope.factor == b.rope.factor);
        assert_true(a.rope.original_max_positions == b.rope.original_max_positions);
        assert_true(a.rope.low_freq_factor == b.rope.low_freq_factor);
        assert_true(a.activation_name == b.activation_name && a.tied_head == b.tied_head);
        assert_true(a.bos == b.bos && a.pad == b.pad && a.n_eos == b.n_eos);
        assert_memory_equal(a.eos, b.eos, sizeof a.eos);
        for (int s = 0; s < ARCH_LINEARS_MAX; s++)
            assert_true(a.linear[s].module == b.linear[s].module &&
                        a.linear[s].out == b.linear[s].out && a.linear[s].in == b.linear[s].in &&
                        a.linear[s].bias == b.linear[s].bias);
        char *path = file_join(folder, "generation_config.json");
        unlink(path);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neox_20b),
        cmocka_unit_test(test_tinyllama),
        cmocka_unit_test(test_other_counts),
        cmocka_unit_test(test_rope_keys_old_and_new),
        cmocka_unit_test(test_eos_comes_from_the_generation_config),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_written_config_reads_back),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
