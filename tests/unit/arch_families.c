/* The families' rows against what transformers has: parameter counts of published models, names and shapes of tensors, and the
 * keys that one family has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch.h"
#include "error.h"
#include "file.h"
#include "peft.h"
#include "rope_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int read_as(struct arch *a, const char *config, enum arch_use use)
{
    char *path = file_join(folder, "config.json");
    assert_int_equal(file_write_atomic(path, config, strlen(config)), 0);
    free(path);
    error_clear();
    return arch_read(a, folder, use);
}

static void read_text(struct arch *a, const char *config, enum arch_use use)
{
    if (read_as(a, config, use))
        fail_msg("%s", error_message());
}

static void expect_refused(const char *config, enum arch_use use, const char *part)
{
    struct arch a;
    if (read_as(&a, config, use) == 0)
        fail_msg("read, should say: %s", part);
    if (!strstr(error_message(), part))
        fail_msg("'%s' does not say '%s'", error_message(), part);
}

/* Small models of each family; what a test is about follows. */
#define SIZES "\"vocab_size\":100,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4"
#define GPT2(rest) "{\"model_type\":\"gpt2\",\"vocab_size\":100,\"n_embd\":64,\"n_layer\":2,\"n_head\":4" rest "}"
#define NEO(rest)                                                                                                              \
    "{\"model_type\":\"gpt_neo\",\"vocab_size\":100,\"hidden_size\":64,\"num_layers\":3,\"num_heads\":4" rest "}"
#define OPT(rest) "{\"model_type\":\"opt\"," SIZES ",\"ffn_dim\":96" rest "}"
#define LLAMA(type, rest) "{\"model_type\":\"" type "\"," SIZES ",\"intermediate_size\":96,\"num_key_value_heads\":2" rest "}"
#define DISTIL(rest)                                                                                                           \
    "{\"model_type\":\"distilbert\",\"vocab_size\":100,\"dim\":64,\"n_layers\":2,\"n_heads\":4,\"hidden_dim\":96" rest "}"
#define BERT(type, rest) "{\"model_type\":\"" type "\"," SIZES ",\"intermediate_size\":96" rest "}"

/* Counts: SPEC section 6; those of GPT-2's and BERT's papers' models as transformers counts them. */
static void test_parameters_of_published_models(void **state)
{
    (void)state;
    static const struct {
        int64_t parameters;
        enum arch_use use;
        const char *config;
    } models[] = {
        {124439808, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt2\",\"vocab_size\":50257,\"n_embd\":768,\"n_layer\":12,\"n_head\":12,\"n_positions\":1024}"},
        {1557611200, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt2\",\"vocab_size\":50257,\"n_embd\":1600,\"n_layer\":48,\"n_head\":25,\"n_inner\":null}"},
        {125198592, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt_neo\",\"vocab_size\":50257,\"hidden_size\":768,\"num_layers\":12,\"num_heads\":12,"
         "\"max_position_embeddings\":2048,\"attention_types\":[[[\"global\",\"local\"],6]],\"window_size\":256}"},
        {70426624, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt_neox\",\"vocab_size\":50304,\"hidden_size\":512,\"num_hidden_layers\":6,"
         "\"num_attention_heads\":8,\"intermediate_size\":2048}"},
        {162322944, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt_neox\",\"vocab_size\":50304,\"hidden_size\":768,\"num_hidden_layers\":12,"
         "\"num_attention_heads\":12,\"intermediate_size\":3072}"},
        {1011781632, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"gpt_neox\",\"vocab_size\":50304,\"hidden_size\":2048,\"num_hidden_layers\":16,"
         "\"num_attention_heads\":8,\"intermediate_size\":8192}"},
        {1100048384, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"llama\",\"vocab_size\":32000,\"hidden_size\":2048,\"num_hidden_layers\":22,"
         "\"num_attention_heads\":32,\"num_key_value_heads\":4,\"intermediate_size\":5632}"},
        {6738415616, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"llama\",\"vocab_size\":32000,\"hidden_size\":4096,\"num_hidden_layers\":32,"
         "\"num_attention_heads\":32,\"intermediate_size\":11008}"},
        {7241732096, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"mistral\",\"vocab_size\":32000,\"hidden_size\":4096,\"num_hidden_layers\":32,"
         "\"num_attention_heads\":32,\"intermediate_size\":14336,\"sliding_window\":4096}"},
        {494032768, ARCH_LANGUAGE_MODEL,
         "{\"model_type\":\"qwen2\",\"vocab_size\":151936,\"hidden_size\":896,\"num_hidden_layers\":24,"
         "\"num_attention_heads\":14,\"num_key_value_heads\":2,\"intermediate_size\":4864,\"tie_word_embeddings\":true}"},
        {596049920, ARCH_LANGUAGE_MODEL, /* Qwen3-0.6B */
         "{\"model_type\":\"qwen3\",\"vocab_size\":151936,\"hidden_size\":1024,\"num_hidden_layers\":28,"
         "\"num_attention_heads\":16,\"num_key_value_heads\":8,\"intermediate_size\":3072,\"tie_word_embeddings\":true}"},
        {125239296, ARCH_LANGUAGE_MODEL, /* OPT-125m */
         "{\"model_type\":\"opt\",\"vocab_size\":50272,\"hidden_size\":768,\"num_hidden_layers\":12,"
         "\"num_attention_heads\":12,\"ffn_dim\":3072}"},
        {331196416, ARCH_LANGUAGE_MODEL, /* OPT-350m */
         "{\"model_type\":\"opt\",\"vocab_size\":50272,\"hidden_size\":1024,\"num_hidden_layers\":24,"
         "\"num_attention_heads\":16,\"ffn_dim\":4096,\"word_embed_proj_dim\":512,\"do_layer_norm_before\":false}"},
        {66955010, ARCH_CLASSIFIER,
         "{\"model_type\":\"distilbert\",\"vocab_size\":30522,\"dim\":768,\"n_layers\":6,\"n_heads\":12,\"hidden_dim\":3072}"},
        {109483778, ARCH_CLASSIFIER, /* bert-base-uncased */
         "{\"model_type\":\"bert\",\"vocab_size\":30522,\"hidden_size\":768,\"num_hidden_layers\":12,"
         "\"num_attention_heads\":12,\"intermediate_size\":3072}"},
        {124647170, ARCH_CLASSIFIER, /* roberta-base */
         "{\"model_type\":\"roberta\",\"vocab_size\":50265,\"hidden_size\":768,\"num_hidden_layers\":12,"
         "\"num_attention_heads\":12,\"intermediate_size\":3072,\"max_position_embeddings\":514,\"type_vocab_size\":1}"},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct arch a;
        read_text(&a, models[i].config, models[i].use);
        if (arch_parameters(&a) != models[i].parameters)
            fail_msg("%s: %lld parameters, not %lld", models[i].config, (long long)arch_parameters(&a),
                     (long long)models[i].parameters);
    }
}

static void expect_tensor(const struct arch *a, enum arch_role role, int layer, enum arch_slot slot, bool bias, const char *name,
                          int64_t rows, int64_t cols)
{
    struct arch_tensor t;
    assert_true(arch_find_tensor(&t, a, role, layer, slot, bias));
    assert_string_equal(t.name, name);
    assert_true(t.shape[0] == rows && t.n_dims == (cols ? 2 : 1));
    assert_true(!cols || t.shape[1] == cols);
}

/* arch_tensor lists each tensor once, as arch_find_tensor describes it. */
static void expect_each_once(const struct arch *a)
{
    for (int i = 0; i < arch_tensors(a); i++) {
        struct arch_tensor t, same, other;
        arch_tensor(&t, a, i);
        assert_true(arch_find_tensor(&same, a, t.role, t.layer, t.slot, t.bias));
        assert_string_equal(t.name, same.name);
        assert_memory_equal(t.shape, same.shape, sizeof t.shape);
        assert_true(t.transposed == same.transposed);
        for (int j = 0; j < i; j++) {
            arch_tensor(&other, a, j);
            assert_string_not_equal(t.name, other.name);
        }
    }
}

static void test_gpt2(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, GPT2(",\"n_inner\":72,\"scale_attn_by_inverse_layer_idx\":true,\"n_positions\":32"), ARCH_LANGUAGE_MODEL);
    assert_true(a.qkv == QKV_FUSED && a.transposed && a.tied_head && a.rotary_dims == 0 && a.scale_by_layer);
    assert_true(a.intermediate == 72 && a.position_rows == 32 && a.max_positions == 32 && a.position_offset == 0);
    assert_true(a.activation == ACT_GELU_TANH && a.residual == RESIDUAL_SEQUENTIAL && a.attention_scale == 0.25f);
    assert_true(a.linear[LIN_QKV].default_lora && !a.linear[LIN_ATTN_OUT].default_lora);
    expect_tensor(&a, ROLE_LINEAR, 1, LIN_QKV, false, "transformer.h.1.attn.c_attn.weight", 64, 192);
    expect_tensor(&a, ROLE_LINEAR, 1, LIN_QKV, true, "transformer.h.1.attn.c_attn.bias", 192, 0);
    expect_tensor(&a, ROLE_LINEAR, 0, LIN_MLP_DOWN, false, "transformer.h.0.mlp.c_proj.weight", 72, 64);
    expect_tensor(&a, ROLE_POSITIONS, 0, 0, false, "transformer.wpe.weight", 32, 64);
    expect_each_once(&a);
    read_text(&a, GPT2(",\"scale_attn_weights\":false,\"reorder_and_upcast_attn\":true"), ARCH_CLASSIFIER);
    assert_true(a.attention_scale == 1 && a.intermediate == 256 && !a.bidirectional && a.n_labels == 2);
    expect_tensor(&a, ROLE_SCORE, 0, 0, false, "score.weight", 2, 64);
    assert_string_equal(arch_head_module(&a), "score");
    expect_each_once(&a);
    expect_refused(GPT2(",\"add_cross_attention\":true"), ARCH_LANGUAGE_MODEL, "encoder-decoder");
    expect_refused(GPT2(",\"n_inner\":0"), ARCH_LANGUAGE_MODEL, "n_inner is 0");
    expect_refused(GPT2(",\"activation_function\":\"mish\""), ARCH_LANGUAGE_MODEL, "activation_function mish");
}

static void test_gpt_neo(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, NEO(",\"attention_types\":[[[\"global\",\"local\"],1],[[\"local\"],1]],\"window_size\":8"),
              ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 8 && !a.windowed[0] && a.windowed[1] && a.windowed[2] && a.attention_scale == 1);
    assert_true(!a.linear[LIN_Q].bias && a.linear[LIN_ATTN_OUT].bias && a.linear[LIN_Q].default_lora);
    expect_tensor(&a, ROLE_LINEAR, 2, LIN_MLP_UP, false, "transformer.h.2.mlp.c_fc.weight", 256, 64);
    expect_each_once(&a);
    static const char *const bad[][2] = {
        {NEO(""), "describe more than 3 layers"}, /* the default is of 24 */
        {NEO(",\"attention_types\":[[[\"global\",\"local\"],1]]"), "describe 2 layers of 3"},
        {NEO(",\"attention_types\":[[[\"global\",\"local\"],1000000000000]]"), "more than 3 layers"},
        {NEO(",\"attention_types\":[[[],1000000000000]]"), "describe 0 layers of 3"},
        {NEO(",\"attention_types\":[[[\"global\",\"sparse\"],1]]"), "not a list of \"global\" and \"local\""},
        {NEO(",\"attention_types\":[[[1],3]]"), "not a list of"},
        {NEO(",\"attention_types\":3"), "describe 0 layers"},
        {NEO(",\"attention_types\":[[[\"global\"],3]],\"window_size\":0"), "window_size is 0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i][0], ARCH_LANGUAGE_MODEL, bad[i][1]);
}

static void test_opt(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, OPT(",\"word_embed_proj_dim\":32,\"do_layer_norm_before\":false,\"max_position_embeddings\":40"),
              ARCH_LANGUAGE_MODEL);
    assert_true(a.residual == RESIDUAL_POST_NORM && !a.final_norm && a.embedding_width == 32 && a.activation == ACT_RELU);
    assert_true(a.position_offset == 2 && a.position_rows == 42 && a.max_positions == 40 && a.tied_head);
    expect_tensor(&a, ROLE_EMBEDDING, 0, 0, false, "model.decoder.embed_tokens.weight", 100, 32);
    expect_tensor(&a, ROLE_PROJECT_IN, 0, 0, false, "model.decoder.project_in.weight", 64, 32);
    expect_tensor(&a, ROLE_PROJECT_OUT, 0, 0, false, "model.decoder.project_out.weight", 32, 64);
    expect_tensor(&a, ROLE_MLP_NORM, 1, 0, true, "model.decoder.layers.1.final_layer_norm.bias", 64, 0);
    expect_each_once(&a);
    read_text(&a, OPT(",\"enable_bias\":false,\"_remove_final_layer_norm\":true"), ARCH_CLASSIFIER);
    assert_true(a.residual == RESIDUAL_SEQUENTIAL && !a.final_norm && !a.linear[LIN_Q].bias && !a.linear[LIN_MLP_UP].bias);
    struct arch_tensor t;
    assert_false(arch_find_tensor(&t, &a, ROLE_PROJECT_IN, 0, 0, false));
    expect_refused(OPT(",\"layer_norm_elementwise_affine\":false"), ARCH_LANGUAGE_MODEL, "layer_norm_elementwise_affine false");
}

static void test_windows_and_biases_of_llamas_relatives(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, LLAMA("mistral", ",\"sliding_window\":16"), ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 16 && a.windowed[0] && a.windowed[1] && !a.linear[LIN_Q].bias);
    read_text(&a, LLAMA("mistral", ",\"sliding_window\":null"), ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 0 && !a.windowed[0]);
    read_text(&a, LLAMA("mistral", ""), ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 4096 && a.windowed[1] && a.max_positions == 131072);
    read_text(&a, LLAMA("mistral", ",\"max_position_embeddings\":4096"), ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 0 && !a.windowed[1]);
    read_text(&a, LLAMA("qwen2", ",\"sliding_window\":16,\"max_window_layers\":1"), ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 0 && a.linear[LIN_K].bias && !a.linear[LIN_ATTN_OUT].bias && !a.linear[LIN_MLP_UP].bias);
    read_text(&a, LLAMA("qwen2", ",\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":1"),
              ARCH_LANGUAGE_MODEL);
    assert_true(a.window == 16 && !a.windowed[0] && a.windowed[1]);
    read_text(&a,
              LLAMA("qwen3", ",\"use_sliding_window\":true,\"sliding_window\":16,\"head_dim\":32,"
                             "\"layer_types\":[\"sliding_attention\",\"full_attention\"]"),
              ARCH_LANGUAGE_MODEL);
    assert_true(a.windowed[0] && !a.windowed[1] && a.head_dim == 32 && a.qk_norm && !a.linear[LIN_Q].bias);
    expect_tensor(&a, ROLE_K_NORM, 1, 0, false, "model.layers.1.self_attn.k_norm.weight", 32, 0);
    expect_tensor(&a, ROLE_LINEAR, 1, LIN_ATTN_OUT, false, "model.layers.1.self_attn.o_proj.weight", 64, 128);
    expect_each_once(&a);
    read_text(&a, LLAMA("qwen3", ",\"attention_bias\":true"), ARCH_LANGUAGE_MODEL);
    assert_true(a.head_dim == 128 && a.linear[LIN_ATTN_OUT].bias && a.linear[LIN_V].bias && !a.linear[LIN_MLP_UP].bias);
    expect_refused(LLAMA("qwen2", ",\"use_sliding_window\":true,\"layer_types\":[\"chunked_attention\",\"full_attention\"]"),
                   ARCH_LANGUAGE_MODEL, "chunked_attention is not supported");
    expect_refused(LLAMA("qwen2", ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\"]"), ARCH_LANGUAGE_MODEL,
                   "layer_types is not a list of 2");
    expect_refused(LLAMA("qwen2", ",\"use_sliding_window\":true,\"layer_types\":[1,2]"), ARCH_LANGUAGE_MODEL,
                   "layer_types: (not a string)");
    expect_refused(LLAMA("mistral", ",\"sliding_window\":-4"), ARCH_LANGUAGE_MODEL, "sliding_window is -4");
}

static void test_encoders(void **state)
{
    (void)state;
    struct arch a;
    read_text(&a, DISTIL(",\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"},\"sinusoidal_pos_embds\":true"), ARCH_CLASSIFIER);
    assert_true(a.bidirectional && a.pooler && a.pooler_activation == ACT_RELU);
    assert_true(a.residual == RESIDUAL_POST_NORM && a.embedding_norm && !a.final_norm && a.n_labels == 3 && a.norm_eps == 1e-12f);
    expect_tensor(&a, ROLE_POOLER, 0, 0, false, "pre_classifier.weight", 64, 64);
    expect_tensor(&a, ROLE_SCORE, 0, 0, true, "classifier.bias", 3, 0);
    expect_tensor(&a, ROLE_ATTN_NORM, 1, 0, false, "distilbert.transformer.layer.1.sa_layer_norm.weight", 64, 0);
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        assert_false(a.linear[i].default_lora); /* PEFT has none */
    expect_each_once(&a);
    read_text(&a, BERT("bert", ""), ARCH_CLASSIFIER);
    assert_true(a.type_rows == 2 && a.max_positions == 512 && a.pooler_activation == ACT_TANH && a.pad == 0);
    assert_true(a.linear[LIN_Q].default_lora && !a.linear[LIN_K].default_lora && a.linear[LIN_V].default_lora);
    expect_tensor(&a, ROLE_POOLER, 0, 0, true, "bert.pooler.dense.bias", 64, 0);
    expect_tensor(&a, ROLE_TOKEN_TYPES, 0, 0, false, "bert.embeddings.token_type_embeddings.weight", 2, 64);
    expect_tensor(&a, ROLE_LINEAR, 0, LIN_MLP_DOWN, false, "bert.encoder.layer.0.output.dense.weight", 64, 96);
    expect_each_once(&a);
    read_text(&a, BERT("roberta", ",\"max_position_embeddings\":34,\"type_vocab_size\":1"), ARCH_BACKBONE);
    assert_true(a.position_rows == 34 && a.position_offset == 2 && a.max_positions == 32 && a.pooler && a.n_labels == 0);
    struct arch_tensor t;
    assert_false(arch_find_tensor(&t, &a, ROLE_SCORE, 0, 0, false));
    assert_string_equal(arch_score_module(&a), "classifier.out_proj");
    assert_string_equal(arch_pooler_module(&a), "classifier.dense");
    read_text(&a, BERT("roberta", ",\"pad_token_id\":3,\"max_position_embeddings\":34"), ARCH_CLASSIFIER);
    assert_true(a.position_offset == 4 && a.max_positions == 30);
    expect_refused(BERT("bert", ""), ARCH_LANGUAGE_MODEL, "bert is an encoder: it scores texts");
    expect_refused(BERT("bert", ",\"position_embedding_type\":\"relative_key\""), ARCH_CLASSIFIER,
                   "relative_key is not supported");
    expect_refused(BERT("bert", ",\"position_embedding_type\":3"), ARCH_CLASSIFIER, "position_embedding_type (not a string)");
    expect_refused(BERT("bert", ",\"is_decoder\":true"), ARCH_CLASSIFIER, "is_decoder");
    expect_refused(BERT("bert", ",\"id2label\":{\"1\":\"a\"}"), ARCH_CLASSIFIER, "not 0 to 0");
    expect_refused(BERT("roberta", ",\"pad_token_id\":null"), ARCH_CLASSIFIER, "pad_token_id is missing");
    expect_refused(BERT("roberta", ",\"max_position_embeddings\":2"), ARCH_CLASSIFIER, "leaves no position");
}

static void expect_same(const struct arch *a, const struct arch *b)
{
#define SAME(field) assert_true(a->field == b->field)
    SAME(family), SAME(use), SAME(hidden), SAME(layers), SAME(heads), SAME(kv_heads), SAME(head_dim), SAME(intermediate);
    SAME(vocab), SAME(max_positions), SAME(embedding_width), SAME(position_rows), SAME(position_offset), SAME(type_rows);
    SAME(embedding_norm), SAME(final_norm), SAME(bidirectional), SAME(qk_norm), SAME(attention_scale), SAME(scale_by_layer);
    SAME(window), SAME(transposed), SAME(pooler), SAME(norm), SAME(norm_eps), SAME(residual);
    SAME(rotary_dims), SAME(rope.theta), SAME(rope.scaling), SAME(rope.factor), SAME(rope.beta_fast), SAME(rope.beta_slow);
    SAME(rope.attention_factor), SAME(activation_name), SAME(tied_head), SAME(bos), SAME(pad), SAME(n_eos);
#undef SAME
    assert_memory_equal(a->windowed, b->windowed, sizeof a->windowed);
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        assert_true(a->linear[i].module == b->linear[i].module && a->linear[i].out == b->linear[i].out &&
                    a->linear[i].in == b->linear[i].in && a->linear[i].bias == b->linear[i].bias);
}

/* Written and read again, every family describes the same model. */
static void test_written_config_reads_back(void **state)
{
    (void)state;
    static const char *const configs[] = {
        GPT2(",\"n_inner\":72,\"scale_attn_by_inverse_layer_idx\":true,\"scale_attn_weights\":false,"
             "\"tie_word_embeddings\":false"),
        NEO(",\"attention_types\":[[[\"global\",\"local\"],1],[[\"local\"],1]],\"window_size\":8"),
        OPT(",\"word_embed_proj_dim\":32,\"do_layer_norm_before\":false,\"enable_bias\":false"),
        OPT(",\"_remove_final_layer_norm\":true"),
        LLAMA("mistral", ",\"sliding_window\":16"),
        LLAMA("mistral", ",\"sliding_window\":null"),
        LLAMA("qwen2", ",\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":1"),
        LLAMA("qwen3", ",\"head_dim\":32,\"tie_word_embeddings\":true,\"attention_bias\":true"),
        LLAMA("llama", ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"beta_fast\":16,\"beta_slow\":2,"
                       "\"original_max_position_embeddings\":512}"),
        LLAMA("llama", ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}"),
        DISTIL(",\"activation\":\"relu\""),
        BERT("bert", ",\"type_vocab_size\":3"),
        BERT("roberta", ",\"pad_token_id\":3,\"max_position_embeddings\":34"),
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct arch a, b;
        read_text(&a, configs[i], ARCH_BACKBONE);
        assert_int_equal(arch_write_config(&a, folder, DTYPE_F32), 0);
        assert_int_equal(arch_read(&b, folder, ARCH_BACKBONE), 0);
        expect_same(&a, &b);
        char *path = file_join(folder, "generation_config.json");
        assert_int_equal(file_remove_tree(path), 0);
        free(path);
    }
}

/* YaRN's angles from its paper's formulas in this test's own words: pairs that turn more than 32 times within the 2048
 * original positions keep their angle, those that turn less than once get a quarter. */
static void test_yarn_blends_between_its_betas(void **state)
{
    (void)state;
    struct arch a;
    double inv[64];
    read_text(&a,
              LLAMA("llama", ",\"head_dim\":128,\"rope_theta\":10000.0,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                             "\"original_max_position_embeddings\":2048}"),
              ARCH_LANGUAGE_MODEL);
    assert_true(fabs(rope_table_angles(inv, &a) - (0.1 * log(4) + 1)) < 1e-12);
    for (int j = 0; j < 64; j++) {
        const double plain = pow(10000, -j / 64.0), turns = 2048 * plain / (2 * 3.141592653589793);
        if (turns > 34)
            assert_true(fabs(inv[j] / plain - 1) < 1e-12);
        else if (turns < 0.95)
            assert_true(fabs(inv[j] / plain - 0.25) < 1e-12);
        else
            assert_true(inv[j] <= plain && inv[j] >= plain / 4 && inv[j] < inv[j - 1]);
    }
    read_text(&a,
              LLAMA("llama", ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":500.0,\"factor\":4.0,"
                             "\"attention_factor\":1.5}"),
              ARCH_LANGUAGE_MODEL);
    assert_true(rope_table_angles(inv, &a) == 1.5 && a.rope.original_max_positions == 2048 && a.rope.theta == 500);
    float cosine[8], sine[8];
    rope_table_row(cosine, sine, inv, 8, 1.5, 3);
    assert_true(fabs((double)cosine[0] - 1.5 * cos(3)) < 1e-6 && fabs((double)sine[0] - 1.5 * sin(3)) < 1e-6);
}

/* PEFT 0.21, peft/utils/constants.py: TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING. */
static void test_default_targets_are_those_of_peft(void **state)
{
    (void)state;
    static const struct {
        const char *config, *targets;
    } models[] = {
        {"{\"model_type\":\"gpt_neox\"," SIZES ",\"intermediate_size\":96}", "attention.query_key_value"},
        {GPT2(""), "attn.c_attn"},
        {NEO(",\"attention_types\":[[[\"global\"],3]]"), "attn.attention.q_proj attn.attention.v_proj"},
        {OPT(""), "self_attn.q_proj self_attn.v_proj"},
        {LLAMA("llama", ""), "self_attn.q_proj self_attn.v_proj"},
        {LLAMA("mistral", ""), "self_attn.q_proj self_attn.v_proj"},
        {LLAMA("qwen2", ""), "self_attn.q_proj self_attn.v_proj"},
        {LLAMA("qwen3", ""), "self_attn.q_proj self_attn.v_proj"},
        {BERT("bert", ""), "attention.self.query attention.self.value"},
        {BERT("roberta", ""), "attention.self.query attention.self.value"},
    };
    const struct peft_config config = {.r = 8, .lora_alpha = 8};
    bool match[3 * ARCH_LINEARS_MAX];
    struct arch a;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char targets[256] = "";
        read_text(&a, models[i].config, ARCH_BACKBONE);
        assert_true(peft_match_all(match, &config, &a) > 0);
        for (int slot = 0; slot < ARCH_LINEARS_MAX; slot++)
            if (match[ARCH_LINEARS_MAX + slot])
                snprintf(targets + strlen(targets), sizeof targets - strlen(targets), "%s%s", *targets ? " " : "",
                         a.linear[slot].module);
        assert_string_equal(targets, models[i].targets);
    }
    read_text(&a, DISTIL(""), ARCH_BACKBONE);
    assert_int_equal(peft_match_all(match, &config, &a), -1);
    assert_non_null(strstr(error_message(), "target_modules is needed: PEFT has no default for distilbert; it has attention.q_"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_of_published_models),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_gpt_neo),
        cmocka_unit_test(test_opt),
        cmocka_unit_test(test_windows_and_biases_of_llamas_relatives),
        cmocka_unit_test(test_encoders),
        cmocka_unit_test(test_written_config_reads_back),
        cmocka_unit_test(test_yarn_blends_between_its_betas),
        cmocka_unit_test(test_default_targets_are_those_of_peft),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
