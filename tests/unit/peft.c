/* PEFT adapter folders: matching, round trips, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "document.h"
#include "file.h"
#include "peft.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { R = 2, PLACES_MAX = 64 };

#define LORA "{\"peft_type\":\"LORA\","

static char folder[64];
static struct arch neox, llama;

static void write_file(const char *name, const char *text)
{
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
    free(path);
}

static void remove_file(const char *name)
{
    char *path = file_join(folder, name);
    unlink(path);
    free(path);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rlhf-hpc-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    write_file(
        "config.json",
        "{\"model_type\":\"gpt_neox\",\"vocab_size\":10,\"hidden_size\":16,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":2,\"intermediate_size\":6}");
    if (arch_read(&neox, folder, ARCH_LANGUAGE_MODEL) != 0)
        return -1;
    write_file(
        "config.json",
        "{\"model_type\":\"llama\",\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":6}");
    return arch_read(&llama, folder, ARCH_LANGUAGE_MODEL);
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

/* What PEFT answers to the same questions (check_target_module_exists, re.fullmatch). */
static void test_match_table(void **state)
{
    (void)state;
    static const struct {
        const char *
            target; /* "/..": a regular expression, "*": all-linear, "": default, else one entry of a list */
        const char *path;
        int match;
    } cases[] = {
        {"q_proj", "model.layers.0.self_attn.q_proj", 1},
        {"q_proj", "q_proj", 1},
        {"proj", "model.layers.0.self_attn.q_proj", 0},
        {"self_attn.q_proj", "model.layers.0.self_attn.q_proj", 1},
        {"attn.q_proj", "model.layers.0.self_attn.q_proj", 0},
        {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj", 1},
        {"layers.0.self_attn.q_proj", "model.layers.10.self_attn.q_proj", 0},
        {"0.self_attn.q_proj", "model.layers.10.self_attn.q_proj", 0},
        {"self_attn", "model.layers.0.self_attn.q_proj", 0},
        {"Q_proj", "model.layers.0.self_attn.q_proj", 0},
        {".q_proj", "model.layers.0.self_attn.q_proj", 0},
        {"a.very.long.entry.that.is.longer.than.the.path", "q_proj", 0},
        {"/.*q_proj", "model.layers.0.self_attn.q_proj", 1},
        {"/q_proj", "model.layers.0.self_attn.q_proj", 0},
        {"/.*self_attn", "model.layers.0.self_attn.q_proj", 0},
        {"/.*\\.(q|v)_proj", "model.layers.1.self_attn.v_proj", 1},
        {"/.*\\.(q|v)_proj", "model.layers.1.self_attn.k_proj", 0},
        {"/.*\\.[01]\\.mlp\\..*", "model.layers.1.mlp.up_proj", 1},
        {"/.*\\.[01]\\.mlp\\..*", "model.layers.2.mlp.up_proj", 0},
        {"/a|.*up_proj", "model.layers.1.mlp.up_proj", 1},
        {"/(", "model.layers.1.mlp.up_proj", -1},
        {"/(.|[a-z])*[0-9]{3}", "model.layers.1.mlp.up_proj.model.layers.1.mlp.up_proj", -1},
        {"*", "model.layers.1.mlp.up_proj", 1},
        {"*", "lm_head", 0},
        {"*", "model.embed_tokens", 0},
        {"*", "model.layers.1.input_layernorm", 0},
        {"", "model.layers.1.self_attn.q_proj", 1},
        {"", "model.layers.1.self_attn.k_proj", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peft_config c = {0};
        const char *target = cases[i].target;
        if (*target == '*')
            peft_targets_set_string(&c.target_modules, "All-Linear");
        else if (*target == '/')
            peft_targets_set_string(&c.target_modules, target + 1);
        else if (*target)
            peft_targets_add(&c.target_modules, target);
        const int m = peft_match(&c, &llama, cases[i].path);
        if (m != cases[i].match)
            fail_msg("'%s' on %s: %d", target, cases[i].path, m);
        peft_config_free(&c);
    }
}

static int match_count(const struct arch *a, const char *string, const char *entry)
{
    bool match[PLACES_MAX];
    struct peft_config c = {0};
    if (string)
        peft_targets_set_string(&c.target_modules, string);
    if (entry)
        peft_targets_add(&c.target_modules, entry);
    const int n = peft_match_all(match, &c, a);
    peft_config_free(&c);
    return n;
}

static void test_match_all(void **state)
{
    (void)state;
    assert_int_equal(match_count(&neox, "all-linear", NULL), 8);
    assert_int_equal(match_count(&llama, "all-linear", NULL), 14);
    assert_int_equal(match_count(&neox, NULL, NULL), 2);
    assert_int_equal(match_count(&llama, NULL, NULL), 4);
    assert_int_equal(match_count(&neox, NULL, "dense"), 2);
    assert_int_equal(match_count(&llama, ".*layers\\.1\\..*_proj", NULL), 7);
    assert_int_equal(match_count(&neox, NULL, "q_proj"), -1);
    assert_non_null(
        strstr(error_message(),
               "gpt_neox; it has attention.query_key_value, attention.dense, mlp.dense_h"));
    assert_int_equal(match_count(&neox, NULL, "embed_out"), -1);
    assert_non_null(strstr(error_message(), "match embed_out"));
    assert_int_equal(match_count(&llama, ".*", NULL), -1);
    assert_non_null(strstr(error_message(), "match lm_head"));
    assert_int_equal(match_count(&llama, "[", NULL), -1);
}

/* An adapter on every place of `slots` in both layers, with numbers that tell them apart. */
struct made {
    struct peft_out out[16];
    float data[16][2][64];
    int n;
};

static void make(struct made *m, const struct arch *a, const enum arch_slot *slots, int n_slots)
{
    *m = (struct made){0};
    for (int layer = 0; layer < 2; layer++)
        for (int s = 0; s < n_slots; s++) {
            const struct arch_linear *l = &a->linear[slots[s]];
            float(*d)[64] = m->data[m->n];
            assert_true(R * l->in <= 64);
            for (int i = 0; i < 64; i++) {
                d[0][i] = (float)(100 * m->n + i);
                d[1][i] = -(float)(100 * m->n + i) / 3;
            }
            m->out[m->n++] = (struct peft_out){layer, slots[s], d[0], d[1]};
        }
}

static void write_adapter(const struct made *m, const struct arch *a, struct peft_config *c)
{
    if (peft_write(folder, c, a, m->out, m->n, NULL, 0) != 0)
        fail_msg("%s", error_message());
}

static void test_round_trip(void **state)
{
    (void)state;
    static const enum arch_slot slots[] = {LIN_Q, LIN_V, LIN_MLP_DOWN};
    struct made m;
    struct peft_config c = {
        .r = R, .lora_alpha = 32, .lora_dropout = 0.05, .base_model_name_or_path = "some/model"};
    peft_targets_add(&c.target_modules, "v_proj");
    peft_targets_add(&c.target_modules, "q_proj");
    peft_targets_add(&c.target_modules, "down_proj");
    make(&m, &llama, slots, 3);
    write_adapter(&m, &llama, &c);

    struct peft_adapter p;
    if (peft_open(&p, folder, &llama) != 0)
        fail_msg("%s", error_message());
    assert_int_equal(p.n, 6);
    assert_true(p.config.r == R && p.config.lora_alpha == 32 && p.config.lora_dropout == 0.05 &&
                !p.config.use_rslora);
    assert_string_equal(p.config.base_model_name_or_path, "some/model");
    assert_string_equal(p.config.target_modules.names.item[0], "down_proj");
    for (int i = 0; i < 6; i++) {
        const struct arch_linear *l = &llama.linear[p.pair[i].slot];
        float values[64];
        assert_true(p.pair[i].layer == m.out[i].layer && p.pair[i].slot == m.out[i].slot);
        assert_int_equal(safetensors_floats(values, p.pair[i].a, 0, R * l->in), 0);
        assert_memory_equal(values, m.out[i].a, (size_t)(R * l->in) * 4);
        assert_int_equal(safetensors_floats(values, p.pair[i].b, 0, R * l->out), 0);
        assert_memory_equal(values, m.out[i].b, (size_t)(R * l->out) * 4);
    }
    peft_close(&p);
    peft_close(&p);
    assert_int_equal(peft_open(&p, folder, &neox), -1);
    assert_non_null(strstr(
        error_message(), "adapter_config.json: target_modules match no linear layer of gpt_neox"));
    /* a list that matches less than the file has, then more, then another r */
    write_file("adapter_config.json",
               "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\"]}");
    assert_int_equal(peft_open(&p, folder, &llama), -1);
    assert_non_null(strstr(error_message(), "belongs to no linear layer"));
    write_file("adapter_config.json",
               "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"all-linear\"}");
    assert_int_equal(peft_open(&p, folder, &llama), -1);
    assert_non_null(strstr(error_message(), "k_proj.lora_A.weight is missing"));
    write_file("adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"q_"
                                      "proj\",\"v_proj\",\"down_proj\"]}");
    assert_int_equal(peft_open(&p, folder, &llama), -1);
    assert_non_null(strstr(error_message(), "q_proj.lora_A.weight is [2, 8], must be [4, 8]"));
    c.base_model_name_or_path = NULL; /* not owned */
    peft_config_free(&c);
}

/* What PEFT answers (get_pattern_key): the first key that matches the path, or the end of it behind a dot. */
static void test_size_table(void **state)
{
    (void)state;
    static const char *const key[] = {"q_proj", "layers.1.mlp.up_proj", "^model.layers.0.mlp.down_proj", "(k|v)_proj",
                                      ".*\\.1\\.self_attn\\.o_proj", "mlp"};
    static const struct {
        const char *path;
        int r;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj", 1},  {"model.layers.0.self_attn.xq_proj", 9}, {"model.layers.1.mlp.up_proj", 2},
        {"model.layers.11.mlp.up_proj", 9},      {"model.layers.0.mlp.down_proj", 3},     {"model.layers.1.mlp.down_proj", 9},
        {"model.layers.0.self_attn.v_proj", 4},  {"model.layers.1.self_attn.k_proj", 4},  {"model.layers.1.self_attn.o_proj", 5},
        {"model.layers.0.self_attn.o_proj", 9},  {"model.layers.0.mlp.gate_proj", 9},     {"layersX1-mlp.up_proj", 2},
        {"a.layersX1Xmlp.up_proj", 2},
    };
    struct peft_config c = {.r = 9, .lora_alpha = 18, .use_rslora = true};
    struct peft_pattern rank[6], alpha = {(char *)"down_proj", 5};
    for (int i = 0; i < 6; i++)
        rank[i] = (struct peft_pattern){(char *)key[i], i + 1};
    c.rank_pattern = (struct peft_patterns){rank, 6};
    c.alpha_pattern = (struct peft_patterns){&alpha, 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peft_size size;
        assert_int_equal(peft_size(&size, &c, cases[i].path), 0);
        if (size.r != cases[i].r)
            fail_msg("%s: r %d", cases[i].path, size.r);
        assert_true(size.scale == (strstr(cases[i].path, "down_proj") ? 5 : 18) / sqrt(cases[i].r));
    }
}

/* Rank, alpha, layers, exclusions and a trained head, written and read again. */
static void test_refinements_round_trip(void **state)
{
    (void)state;
    static const char text[] = LORA "\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"q_proj\",\"v_proj\",\"down_proj\"],"
                                    "\"rank_pattern\":{\"v_proj\":1,\".*down_proj\":3},\"alpha_pattern\":{\"q_proj\":7.5},"
                                    "\"layers_to_transform\":1,\"layers_pattern\":\"layers\",\"exclude_modules\":[\"down_proj\"],"
                                    "\"modules_to_save\":[\"classifier\",\"score\"],\"task_type\":\"SEQ_CLS\","
                                    "\"fan_in_fan_out\":true,\"revision\":\"main\",\"base_model_name_or_path\":\"b\"}";
    float data[64] = {0.5f, -1}, head[16] = {3};
    const struct peft_out out[] = {{1, LIN_Q, data, data}, {1, LIN_V, data + 8, data + 8}};
    const struct safetensors_out score = {"score.weight", DTYPE_F32, 2, {2, 8}, head, NULL};
    struct peft_config c, again;
    struct peft_adapter p;
    write_file("adapter_config.json", text);
    assert_int_equal(peft_config_read(&c, folder), 0);
    assert_int_equal(peft_write(folder, &c, &llama, out, 2, &score, 1), 0);
    if (peft_open(&p, folder, &llama) != 0)
        fail_msg("%s", error_message());
    assert_true(p.n == 2 && p.pair[0].slot == LIN_Q && p.pair[1].slot == LIN_V && p.pair[1].layer == 1);
    assert_true(p.pair[0].size.r == 2 && p.pair[0].size.scale == 7.5 / 2);
    assert_true(p.pair[1].size.r == 1 && p.pair[1].size.scale == 4);
    assert_int_equal(p.n_saved, 1);
    assert_string_equal(p.saved[0].name, "score.weight");
    assert_ptr_equal(peft_find_saved(&p, "score.weight"), p.saved[0].entry);
    assert_null(peft_find_saved(&p, "score.bias"));
    assert_true(p.saved[0].entry->shape[0] == 2 && p.saved[0].entry->shape[1] == 8);
    again = p.config;
    assert_string_equal(again.task_type, "SEQ_CLS");
    assert_string_equal(again.revision, "main");
    assert_true(again.layers_to_transform.n == 1 && again.layers_to_transform.index[0] == 1);
    assert_string_equal(again.layers_to_transform.pattern.item[0], "layers");
    assert_string_equal(again.exclude_modules.names.item[0], "down_proj");
    assert_int_equal(again.modules_to_save.n, 1);
    assert_string_equal(again.modules_to_save.item[0], "score");
    assert_int_equal(again.rank_pattern.n, 2);
    peft_close(&p);
    /* without the head's name its tensor is a stranger */
    write_file("adapter_config.json", LORA "\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"q_proj\",\"v_proj\"],"
                                           "\"rank_pattern\":{\"v_proj\":1},\"layers_to_transform\":[1]}");
    assert_int_equal(peft_open(&p, folder, &llama), -1);
    assert_non_null(strstr(error_message(), "base_model.model.score.weight belongs to no linear layer"));
    /* a copy of the head beside the adapters (save_embedding_layers) */
    const struct safetensors_out copies[] = {{"lm_head.weight", DTYPE_F32, 2, {2, 8}, head, NULL}};
    assert_int_equal(peft_write(folder, &c, &llama, out, 2, copies, 1), 0);
    write_file("adapter_config.json", text);
    assert_int_equal(peft_open(&p, folder, &llama), -1);
    assert_non_null(strstr(error_message(), "lm_head.weight is a copy of a weight of the model"));
    peft_config_free(&c);
}

/* An encoder's head with the pooler before it: the names that PEFT finds these modules by, and no others. */
static void test_poolers_are_saved_beside_heads(void **state)
{
    (void)state;
    static const struct {
        const char *type, *pooler, *head, *saved, *targets;
    } cases[] = {
        {"bert", "bert.pooler.dense", "classifier",
         "[\"bert.pooler.dense\",\"classifier\"]", "[\"attention.output.dense\",\"query\"]"},
        {"roberta", "classifier.dense", "classifier.out_proj", "[\"classifier\"]", "[\"attention.output.dense\",\"query\"]"},
        {"distilbert", "pre_classifier", "classifier", "[\"classifier\",\"pre_classifier\"]", "[\"out_lin\",\"q_lin\"]"},
    };
    float data[64] = {0.5f, -1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512], names[3][64];
        struct arch a;
        struct peft_adapter p;
        struct peft_config c = {.r = 1, .lora_alpha = 1};
        snprintf(text, sizeof text, "{\"model_type\":\"%s\",\"vocab_size\":10,\"hidden_size\":8,\"dim\":8,\"n_layers\":1,"
                 "\"num_hidden_layers\":1,\"n_heads\":2,\"num_attention_heads\":2,\"intermediate_size\":6,\"hidden_dim\":6}",
                 cases[i].type);
        write_file("config.json", text);
        if (arch_read(&a, folder, ARCH_BACKBONE) != 0)
            fail_msg("%s", error_message());
        snprintf(names[0], sizeof names[0], "%s.weight", cases[i].pooler);
        snprintf(names[1], sizeof names[1], "%s.bias", cases[i].pooler);
        snprintf(names[2], sizeof names[2], "%s.weight", cases[i].head);
        const struct peft_out out[] = {{0, LIN_Q, data, data}, {0, LIN_ATTN_OUT, data, data}};
        const struct safetensors_out saved[] = {{names[0], DTYPE_F32, 2, {8, 8}, data, NULL},
                                                {names[1], DTYPE_F32, 1, {8}, data, NULL},
                                                {names[2], DTYPE_F32, 2, {3, 8}, data, NULL}};
        assert_int_equal(peft_write(folder, &c, &a, out, 2, saved, 3), 0);
        if (peft_open(&p, folder, &a) != 0)
            fail_msg("%s: %s", cases[i].type, error_message());
        assert_int_equal(p.n, 2);
        assert_int_equal(p.n_saved, 3);
        assert_non_null(peft_find_saved(&p, names[1]));
        char *path = file_join(folder, "adapter_config.json");
        json_t *config = document_read(path), *want_saved = json_loads(cases[i].saved, 0, NULL),
               *want_targets = json_loads(cases[i].targets, 0, NULL);
        assert_true(json_equal(json_object_get(config, "modules_to_save"), want_saved));
        assert_true(json_equal(json_object_get(config, "target_modules"), want_targets));
        json_decref(config);
        json_decref(want_saved);
        json_decref(want_targets);
        free(path);
        peft_close(&p);
    }
}

static void test_written_config_text(void **state)
{
    (void)state;
    static const enum arch_slot slots[] = {LIN_QKV};
    struct made m;
    struct text text = {0};
    struct peft_config c = {.r = R, .lora_alpha = 2.5, .lora_dropout = 0.1, .use_rslora = true};
    make(&m, &neox, slots, 1);
    write_adapter(&m, &neox, &c);
    char *path = file_join(folder, "adapter_config.json");
    assert_int_equal(file_read(&text, path), 0);
    assert_string_equal(text.bytes, "{\n"
                                    "  \"base_model_name_or_path\": null,\n"
                                    "  \"bias\": \"none\",\n"
                                    "  \"fan_in_fan_out\": false,\n"
                                    "  \"inference_mode\": true,\n"
                                    "  \"init_lora_weights\": true,\n"
                                    "  \"lora_alpha\": 2.5,\n"
                                    "  \"lora_dropout\": 0.1,\n"
                                    "  \"modules_to_save\": null,\n"
                                    "  \"peft_type\": \"LORA\",\n"
                                    "  \"r\": 2,\n"
                                    "  \"target_modules\": [\n"
                                    "    \"query_key_value\"\n"
                                    "  ],\n"
                                    "  \"task_type\": \"CAUSAL_LM\",\n"
                                    "  \"use_rslora\": true\n"
                                    "}\n");
    text_free(&text);
    free(path);
    struct peft_adapter p;
    assert_int_equal(peft_open(&p, folder, &neox), 0);
    assert_true(p.pair[0].size.scale == 2.5 / sqrt(2));
    assert_int_equal(p.n, 2);
    assert_string_equal(
        p.pair[1].b->name,
        "base_model.model.gpt_neox.layers.1.attention.query_key_value.lora_B.weight");
    peft_close(&p);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "peft_type (missing)"},
        {"{\"peft_type\":\"IA3\"}", "peft_type IA3"},
        {"{\"peft_type\":\"LORA\",\"use_dora\":true}", "use_dora (DoRA) is not supported"},
        {"{\"peft_type\":\"LORA\",\"bias\":\"all\"}", "bias must be"},
        {"{\"peft_type\":\"LORA\",\"bias\":3}", "bias must be"},
        {LORA "\"init_lora_weights\":\"pissa_niter_4\"}", "pissa_niter_4 changes the base weights; convert"},
        {LORA "\"init_lora_weights\":\"olora\"}", "olora changes the base weights"},
        {LORA "\"init_lora_weights\":\"loftq\"}", "loftq changes the base weights"},
        {LORA "\"init_lora_weights\":\"corda\"}", "corda changes the base weights"},
        {LORA "\"init_lora_weights\":\"lora_ga\"}", "lora_ga changes the base weights"},
        {LORA "\"bias\":\"lora_only\"}", "bias must be \"none\""},
        {LORA "\"lora_bias\":true}", "lora_bias (biases in lora_B)"},
        {LORA "\"layer_replication\":[[0,4]]}", "layer_replication (replicated layers)"},
        {LORA "\"target_parameters\":[\"a\"]}", "target_parameters (adapters on bare parameters)"},
        {LORA "\"trainable_token_indices\":[3]}", "trainable_token_indices (trained token embeddings)"},
        {LORA "\"alora_invocation_tokens\":[3]}", "alora_invocation_tokens (activated LoRA)"},
        {LORA "\"enable_lora\":[true,false,true]}", "enable_lora (merged linear layers of PEFT 0.2)"},
        {LORA "\"megatron_config\":{\"a\":1}}", "megatron_config (Megatron's parallel layers)"},
        {LORA "\"use_qalora\":true}", "use_qalora (QALoRA)"},
        {LORA "\"use_bdlora\":{\"a\":1}}", "use_bdlora (block-diagonal LoRA)"},
        {LORA "\"arrow_config\":{\"a\":1}}", "arrow_config (Arrow)"},
        {LORA "\"kasa_config\":{\"a\":1}}", "kasa_config (KaSA)"},
        {LORA "\"monteclora_config\":{\"a\":1}}", "monteclora_config (MonteCLoRA)"},
        {LORA "\"velora_config\":{\"a\":1}}", "velora_config (VeLoRA)"},
        {LORA "\"modules_to_save\":[\"embed_in\"]}", "modules_to_save has embed_in: a full copy"},
        {LORA "\"modules_to_save\":[\"score\",\"embed_out\"]}", "modules_to_save has embed_out: a full copy"},
        {LORA "\"modules_to_save\":\"score\"}", "modules_to_save is not a list"},
        {LORA "\"rank_pattern\":[3]}", "rank_pattern is not an object"},
        {LORA "\"rank_pattern\":{\"dense\":0}}", "rank_pattern: dense is not a whole number from 1 to 4096"},
        {LORA "\"rank_pattern\":{\"dense\":-2}}", "rank_pattern: dense is not"},
        {LORA "\"rank_pattern\":{\"dense\":2.5}}", "rank_pattern: dense is not"},
        {LORA "\"rank_pattern\":{\"dense\":4097}}", "rank_pattern: dense is not"},
        {LORA "\"rank_pattern\":{\"(\":3}}", "rank_pattern: '(' is not a regular expression"},
        {LORA "\"rank_pattern\":{\"a)(\":3,\"(.|[a-z_.])*[0-9]{3}\":3}}", "rank_pattern: '(.|[a-z_.])*[0-9]{3}' takes too many"},
        {LORA "\"alpha_pattern\":{\"dense\":-1}}", "alpha_pattern: dense is not a number above 0"},
        {LORA "\"alpha_pattern\":{\"dense\":\"3\"}}", "alpha_pattern: dense is not"},
        {LORA "\"alpha_pattern\":{\"*\":3}}", "alpha_pattern: '*' is not a regular expression"},
        {LORA "\"layers_to_transform\":-1}", "layers_to_transform is not a layer's number"},
        {LORA "\"layers_to_transform\":[0,\"1\"]}", "layers_to_transform is not a layer's number"},
        {LORA "\"layers_to_transform\":true}", "layers_to_transform is not a layer's number"},
        {LORA "\"layers_to_transform\":[7]}", "target_modules match no linear layer of gpt_neox"},
        {LORA "\"layers_to_transform\":[0],\"target_modules\":\".*dense\"}", "layers_to_transform needs target_modules as a list"},
        {LORA "\"layers_to_transform\":[0],\"layers_pattern\":\"(\"}", "layers_pattern: '(' is not a regular expression"},
        {LORA "\"layers_to_transform\":[0],\"layers_pattern\":[3]}", "layers_pattern is not a list"},
        {LORA "\"layers_pattern\":\"layers\"}", "layers_pattern without layers_to_transform"},
        {LORA "\"exclude_modules\":3}", "exclude_modules is not a list"},
        {LORA "\"exclude_modules\":\"[\"}", "exclude_modules: '[' is not a regular expression"},
        {LORA "\"exclude_modules\":\".*\"}", "target_modules match no linear layer"},
        {LORA "\"exclude_modules\":\"all-linear\"}", "exclude_modules leaves no module"},
        {LORA "\"fan_in_fan_out\":1}", "fan_in_fan_out is not true or false"},
        {LORA "\"task_type\":3}", "task_type is not a string"},
        {LORA "\"base_model_name_or_path\":[]}", "base_model_name_or_path is not a string"},
        {"{\"peft_type\":\"ADALORA\"}", "peft_type ADALORA is not supported, LORA is"},
        {"{\"peft_type\":\"LOHA\"}", "peft_type LOHA"},
        {"{\"peft_type\":\"LOKR\"}", "peft_type LOKR"},
        {"{\"peft_type\":\"OFT\"}", "peft_type OFT"},
        {"{\"peft_type\":\"VERA\"}", "peft_type VERA"},
        {"{\"peft_type\":\"PROMPT_TUNING\"}", "peft_type PROMPT_TUNING"},
        {"{\"peft_type\":\"PREFIX_TUNING\"}", "peft_type PREFIX_TUNING"},
        {"{\"peft_type\":\"P_TUNING\"}", "peft_type P_TUNING"},
        {"{\"peft_type\":[\"LORA\"]}", "peft_type (missing)"},
        {"{\"peft_type\":\"LORA\",\"r\":0}", "r is not"},
        {"{\"peft_type\":\"LORA\",\"r\":1e3}", "r is not"},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":\"x\"}", "lora_alpha"},
        {"{\"peft_type\":\"LORA\",\"lora_dropout\":1.0}", "lora_dropout"},
        {"{\"peft_type\":\"LORA\",\"use_rslora\":1}", "use_rslora"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[]}", "target_modules"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[3]}", "target_modules"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":\"(\"}", "not a regular expression"},
        {"{\"peft_type\":\"LORA\",\"use_dora\":true,\"r\":-1}", "; r is not"},
        {"[", "not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peft_adapter p;
        write_file("adapter_config.json", cases[i][0]);
        error_clear();
        if (peft_open(&p, folder, &neox) == 0)
            fail_msg("opened, should say: %s", cases[i][1]);
        if (!strstr(error_message(), cases[i][1]) ||
            !strstr(error_message(), "adapter_config.json"))
            fail_msg("'%s' does not say '%s'", error_message(), cases[i][1]);
        assert_int_equal(error_kind(), ERR_FILE);
        assert_null(p.pair);
    }
    struct peft_adapter p;
    write_file("adapter_config.json",
               "{\"peft_type\":\"LORA\",\"use_dora\":false,\"rank_pattern\":{},\"bias\":\"none\"}");
    remove_file("adapter_model.safetensors");
    assert_int_equal(peft_open(&p, folder, &neox), -1);
    assert_non_null(strstr(error_message(), "adapter_model.safetensors: cannot open"));
    write_file("adapter_model.bin", "PK");
    assert_int_equal(peft_open(&p, folder, &neox), -1);
    assert_non_null(strstr(error_message(), "adapter_model.bin: PyTorch's pickled format"));
}

static void test_value_head(void **state)
{
    (void)state;
    const float weight[3] = {1, -2, 0.1f};
    float w[4] = {9, 9, 9, 9}, b = 9;
    bool found = true;
    assert_int_equal(peft_read_value_head(w, &b, &found, folder, 3), 0);
    assert_true(!found && w[0] == 9);
    assert_int_equal(peft_write_value_head(folder, weight, 0.25f, 3), 0);
    assert_int_equal(peft_read_value_head(w, &b, &found, folder, 3), 0);
    assert_true(found && b == 0.25f && w[3] == 9);
    assert_memory_equal(w, weight, sizeof weight);
    assert_int_equal(peft_read_value_head(w, &b, &found, folder, 4), -1);
    assert_non_null(strstr(error_message(), "not weight [1, 4]"));
    assert_false(found);
    const struct safetensors_out other = {"wte.weight", DTYPE_F32, 1, {3}, weight, NULL};
    char *path = file_join(folder, "model.safetensors");
    assert_int_equal(safetensors_write(path, &other, 1), 0);
    free(path);
    assert_int_equal(peft_read_value_head(w, &b, &found, folder, 3), 0);
    assert_false(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_table),
        cmocka_unit_test(test_match_all),
        cmocka_unit_test(test_size_table),
        cmocka_unit_test(test_refinements_round_trip),
        cmocka_unit_test(test_poolers_are_saved_beside_heads),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_written_config_text),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_value_head),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
