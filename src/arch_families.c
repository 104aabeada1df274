/* The families: one row each says what is special. Names, keys and defaults are those of transformers' configuration_*.py and
 * modeling_*.py. */
#include "arch_family.h"

#include <string.h>

/* ---- keys that one family has ---- */

static void gpt2_read(struct arch *a, struct arch_keys *k)
{
    if (!arch_keys_flag(k, "scale_attn_weights", true))
        a->attention_scale = 1;
    a->scale_by_layer = arch_keys_flag(k, "scale_attn_by_inverse_layer_idx", false);
}

static void gpt2_write(const struct arch *a, json_t *config)
{
    json_object_set_new(config, "scale_attn_weights", json_boolean(a->head_dim == 1 || a->attention_scale != 1));
    json_object_set_new(config, "scale_attn_by_inverse_layer_idx", json_boolean(a->scale_by_layer));
}

/* Appends a layer of attention_types; false with a problem. */
static bool add_attention_type(struct arch *a, struct arch_keys *k, int *n, const json_t *type)
{
    const char *name = json_string_value(type);
    if (*n >= a->layers || !name || (strcmp(name, "global") && strcmp(name, "local"))) {
        arch_keys_problem(k, *n >= a->layers ? "attention_types describe more than %d layers"
                                             : "attention_types is not a list of \"global\" and \"local\" for %d layers",
                          a->layers);
        return false;
    }
    a->windowed[(*n)++] = !strcmp(name, "local");
    return true;
}

/* [[["global", "local"], 12]]: lists of kinds, each so many times. */
static void gpt_neo_read(struct arch *a, struct arch_keys *k)
{
    const json_t *types = arch_keys_get(k->object, "attention_types"), *item, *type;
    json_t *otherwise = json_pack("[[[s, s], i]]", "global", "local", 12);
    const json_t *list = types ? types : otherwise;
    int n = 0;
    size_t i, j;
    bool sound = true;
    a->attention_scale = 1;
    a->window = arch_keys_size(k, "window_size", 256, ARCH_POSITIONS_MAX);
    json_array_foreach(list, i, item)
    {
        const json_t *kinds = json_array_get(item, 0);
        const json_int_t times = json_array_size(kinds) ? json_integer_value(json_array_get(item, 1)) : 0;
        for (json_int_t again = 0; sound && again < times; again++)
            json_array_foreach(kinds, j, type)
                sound = sound && add_attention_type(a, k, &n, type);
    }
    if (sound && n != a->layers)
        arch_keys_problem(k, "attention_types describe %d layers of %d", n, a->layers);
    json_decref(otherwise);
}

static void gpt_neo_write(const struct arch *a, json_t *config)
{
    json_t *kinds = json_array();
    for (int i = 0; i < a->layers; i++)
        json_array_append_new(kinds, json_string(a->windowed[i] ? "local" : "global"));
    json_object_set_new(config, "attention_layers", json_deep_copy(kinds));
    json_object_set_new(config, "attention_types", json_pack("[[o, i]]", kinds, 1));
    json_object_set_new(config, "window_size", json_integer(a->window));
}

/* The 350m: embeddings narrower than the layers, norms behind the branches, none at the end. */
static void opt_read(struct arch *a, struct arch_keys *k)
{
    const bool before = arch_keys_flag(k, "do_layer_norm_before", true);
    if (!arch_keys_flag(k, "layer_norm_elementwise_affine", true))
        arch_keys_problem(k, "layer_norm_elementwise_affine false is not supported");
    a->embedding_width = arch_keys_size(k, "word_embed_proj_dim", a->hidden, ARCH_WIDTH_MAX);
    a->position_offset = 2;
    a->position_rows = a->max_positions + a->position_offset;
    a->residual = before ? RESIDUAL_SEQUENTIAL : RESIDUAL_POST_NORM;
    a->final_norm = before && !arch_keys_flag(k, "_remove_final_layer_norm", false);
}

static void opt_write(const struct arch *a, json_t *config)
{
    const bool before = a->residual == RESIDUAL_SEQUENTIAL;
    json_object_set_new(config, "word_embed_proj_dim", json_integer(a->embedding_width));
    json_object_set_new(config, "do_layer_norm_before", json_boolean(before));
    json_object_set_new(config, "_remove_final_layer_norm", json_boolean(before && !a->final_norm));
}

static void bert_read(struct arch *a, struct arch_keys *k)
{
    const json_t *type = arch_keys_get(k->object, "position_embedding_type");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "absolute")))
        arch_keys_problem(k, "position_embedding_type %.40s is not supported (absolute is)",
                          json_is_string(type) ? json_string_value(type) : "(not a string)");
    if (arch_keys_flag(k, "is_decoder", false))
        arch_keys_problem(k, "is_decoder: an encoder that is used as a decoder is not supported");
    a->type_rows = arch_keys_size(k, "type_vocab_size", 2, ARCH_VOCAB_MAX);
}

static void bert_write(const struct arch *a, json_t *config)
{
    json_object_set_new(config, "type_vocab_size", json_integer(a->type_rows));
}

/* Positions are counted from the one behind the padding token's id. */
static void roberta_read(struct arch *a, struct arch_keys *k)
{
    bert_read(a, k);
    if (a->pad < 0)
        arch_keys_problem(k, "pad_token_id is missing: positions are counted from it");
    a->position_offset = a->pad + 1;
    a->max_positions -= a->position_offset;
    if (a->max_positions < 1)
        arch_keys_problem(k, "max_position_embeddings %d leaves no position behind pad_token_id %d", a->position_rows, a->pad);
}

static void roberta_write(const struct arch *a, json_t *config)
{
    bert_write(a, config);
    json_object_set_new(config, "max_position_embeddings", json_integer(a->position_rows));
}

/* ---- rows ---- */

/* What llama, mistral and qwen share; the rows give q, k and v their biases. */
#define LLAMA_NAMES                                                                                                            \
    .prefix = "model.", .layers = "model.layers", .embedding = "model.embed_tokens", .attn_norm = "input_layernorm",           \
    .mlp_norm = "post_attention_layernorm", .final_norm = "model.norm", .head = "lm_head", .score = "score"
#define LLAMA_KEYS                                                                                                             \
    .hidden = "hidden_size", .layers = "num_hidden_layers", .heads = "num_attention_heads",                                    \
    .intermediate = "intermediate_size", .max_positions = "max_position_embeddings", .kv_heads = "num_key_value_heads",        \
    .head_dim = "head_dim", .activation = "hidden_act", .eps = "rms_norm_eps", .theta = "rope_theta"
#define LLAMA_LAYER                                                                                                            \
    .eps = 1e-6, .rotary_share = 1, .activation = "silu", .pad = -1, .norm = NORM_RMS, .qkv = QKV_SPLIT, .gated_mlp = true
#define LLAMA_LINEARS(q_bias, out_bias, mlp_bias)                                                                              \
    {                                                                                                                          \
        [LIN_Q] = {"self_attn.q_proj", SIZE_Q, SIZE_HIDDEN, q_bias, true},                                                     \
        [LIN_K] = {"self_attn.k_proj", SIZE_KV, SIZE_HIDDEN, q_bias, false},                                                   \
        [LIN_V] = {"self_attn.v_proj", SIZE_KV, SIZE_HIDDEN, q_bias, true},                                                    \
        [LIN_ATTN_OUT] = {"self_attn.o_proj", SIZE_HIDDEN, SIZE_Q, out_bias, false},                                           \
        [LIN_MLP_GATE] = {"mlp.gate_proj", SIZE_INTERMEDIATE, SIZE_HIDDEN, mlp_bias, false},                                   \
        [LIN_MLP_UP] = {"mlp.up_proj", SIZE_INTERMEDIATE, SIZE_HIDDEN, mlp_bias, false},                                       \
        [LIN_MLP_DOWN] = {"mlp.down_proj", SIZE_HIDDEN, SIZE_INTERMEDIATE, mlp_bias, false},                                   \
    }

/* What bert and roberta share; p: the prefix. */
#define BERT_NAMES(p)                                                                                                          \
    .prefix = p, .layers = p "encoder.layer", .embedding = p "embeddings.word_embeddings",                                     \
    .positions = p "embeddings.position_embeddings", .token_types = p "embeddings.token_type_embeddings",                      \
    .embedding_norm = p "embeddings.LayerNorm", .attn_norm = "attention.output.LayerNorm", .mlp_norm = "output.LayerNorm"
#define BERT_KEYS                                                                                                              \
    .hidden = "hidden_size", .layers = "num_hidden_layers", .heads = "num_attention_heads",                                    \
    .intermediate = "intermediate_size", .max_positions = "max_position_embeddings", .activation = "hidden_act",               \
    .eps = "layer_norm_eps"
#define ENCODER_LAYER                                                                                                          \
    .max_positions = 512, .eps = 1e-12, .activation = "gelu", .norm = NORM_LAYER, .norm_bias = true,                           \
    .residual = RESIDUAL_POST_NORM, .qkv = QKV_SPLIT
#define BERT_LINEARS                                                                                                           \
    {                                                                                                                          \
        [LIN_Q] = {"attention.self.query", SIZE_Q, SIZE_HIDDEN, BIAS_ALWAYS, true},                                            \
        [LIN_K] = {"attention.self.key", SIZE_KV, SIZE_HIDDEN, BIAS_ALWAYS, false},                                            \
        [LIN_V] = {"attention.self.value", SIZE_KV, SIZE_HIDDEN, BIAS_ALWAYS, true},                                           \
        [LIN_ATTN_OUT] = {"attention.output.dense", SIZE_HIDDEN, SIZE_Q, BIAS_ALWAYS, false},                                  \
        [LIN_MLP_UP] = {"intermediate.dense", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS, false},                             \
        [LIN_MLP_DOWN] = {"output.dense", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_ALWAYS, false},                                 \
    }

static const struct arch_family families[] = {
    {
        .model_type = "gpt_neox",
        .language_model = "GPTNeoXForCausalLM",
        .classifier = "GPTNeoXForSequenceClassification",
        .name = {.prefix = "gpt_neox.",
                 .layers = "gpt_neox.layers",
                 .embedding = "gpt_neox.embed_in",
                 .attn_norm = "input_layernorm",
                 .mlp_norm = "post_attention_layernorm",
                 .final_norm = "gpt_neox.final_layer_norm",
                 .head = "embed_out",
                 .score = "score"},
        .key = {.hidden = "hidden_size",
                .layers = "num_hidden_layers",
                .heads = "num_attention_heads",
                .intermediate = "intermediate_size",
                .max_positions = "max_position_embeddings",
                .activation = "hidden_act",
                .eps = "layer_norm_eps",
                .theta = "rotary_emb_base",
                .rotary_share = "rotary_pct",
                .parallel = "use_parallel_residual",
                .attention_bias = "attention_bias"},
        .max_positions = 2048,
        .eps = 1e-5,
        .rotary_share = 0.25,
        .parallel = true,
        .attention_bias = true,
        .activation = "gelu",
        .bos = 0,
        .eos = 2,
        .pad = -1,
        .norm = NORM_LAYER,
        .norm_bias = true,
        .qkv = QKV_INTERLEAVED,
        .linear = {[LIN_QKV] = {"attention.query_key_value", SIZE_QKV, SIZE_HIDDEN, BIAS_ATTENTION, true},
                   [LIN_ATTN_OUT] = {"attention.dense", SIZE_HIDDEN, SIZE_Q, BIAS_ATTENTION, false},
                   [LIN_MLP_UP] = {"mlp.dense_h_to_4h", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_MLP_DOWN] = {"mlp.dense_4h_to_h", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_ALWAYS, false}},
    },
    {
        .model_type = "gpt2",
        .language_model = "GPT2LMHeadModel",
        .classifier = "GPT2ForSequenceClassification",
        .name = {.prefix = "transformer.",
                 .layers = "transformer.h",
                 .embedding = "transformer.wte",
                 .positions = "transformer.wpe",
                 .attn_norm = "ln_1",
                 .mlp_norm = "ln_2",
                 .final_norm = "transformer.ln_f",
                 .head = "lm_head",
                 .score = "score"},
        .key = {.hidden = "n_embd",
                .layers = "n_layer",
                .heads = "n_head",
                .intermediate = "n_inner",
                .max_positions = "n_positions",
                .activation = "activation_function",
                .eps = "layer_norm_epsilon"},
        .max_positions = 1024,
        .intermediate_ratio = 4,
        .eps = 1e-5,
        .tied_head = true,
        .activation = "gelu_new",
        .bos = 50256,
        .eos = 50256,
        .pad = -1,
        .norm = NORM_LAYER,
        .norm_bias = true,
        .qkv = QKV_FUSED,
        .transposed = true,
        .linear = {[LIN_QKV] = {"attn.c_attn", SIZE_QKV, SIZE_HIDDEN, BIAS_ALWAYS, true},
                   [LIN_ATTN_OUT] = {"attn.c_proj", SIZE_HIDDEN, SIZE_Q, BIAS_ALWAYS, false},
                   [LIN_MLP_UP] = {"mlp.c_fc", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_MLP_DOWN] = {"mlp.c_proj", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_ALWAYS, false}},
        .read = gpt2_read,
        .write = gpt2_write,
    },
    {
        .model_type = "gpt_neo",
        .language_model = "GPTNeoForCausalLM",
        .classifier = "GPTNeoForSequenceClassification",
        .name = {.prefix = "transformer.",
                 .layers = "transformer.h",
                 .embedding = "transformer.wte",
                 .positions = "transformer.wpe",
                 .attn_norm = "ln_1",
                 .mlp_norm = "ln_2",
                 .final_norm = "transformer.ln_f",
                 .head = "lm_head",
                 .score = "score"},
        .key = {.hidden = "hidden_size",
                .layers = "num_layers",
                .heads = "num_heads",
                .intermediate = "intermediate_size",
                .max_positions = "max_position_embeddings",
                .activation = "activation_function",
                .eps = "layer_norm_epsilon"},
        .max_positions = 2048,
        .intermediate_ratio = 4,
        .eps = 1e-5,
        .tied_head = true,
        .activation = "gelu_new",
        .bos = 50256,
        .eos = 50256,
        .pad = -1,
        .norm = NORM_LAYER,
        .norm_bias = true,
        .qkv = QKV_SPLIT,
        .linear = {[LIN_Q] = {"attn.attention.q_proj", SIZE_Q, SIZE_HIDDEN, BIAS_NEVER, true},
                   [LIN_K] = {"attn.attention.k_proj", SIZE_KV, SIZE_HIDDEN, BIAS_NEVER, false},
                   [LIN_V] = {"attn.attention.v_proj", SIZE_KV, SIZE_HIDDEN, BIAS_NEVER, true},
                   [LIN_ATTN_OUT] = {"attn.attention.out_proj", SIZE_HIDDEN, SIZE_Q, BIAS_ALWAYS, false},
                   [LIN_MLP_UP] = {"mlp.c_fc", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_MLP_DOWN] = {"mlp.c_proj", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_ALWAYS, false}},
        .read = gpt_neo_read,
        .write = gpt_neo_write,
    },
    {
        .model_type = "opt",
        .language_model = "OPTForCausalLM",
        .classifier = "OPTForSequenceClassification",
        .name = {.prefix = "model.",
                 .layers = "model.decoder.layers",
                 .embedding = "model.decoder.embed_tokens",
                 .positions = "model.decoder.embed_positions",
                 .project_in = "model.decoder.project_in",
                 .project_out = "model.decoder.project_out",
                 .attn_norm = "self_attn_layer_norm",
                 .mlp_norm = "final_layer_norm",
                 .final_norm = "model.decoder.final_layer_norm",
                 .head = "lm_head",
                 .score = "score"},
        .key = {.hidden = "hidden_size",
                .layers = "num_hidden_layers",
                .heads = "num_attention_heads",
                .intermediate = "ffn_dim",
                .max_positions = "max_position_embeddings",
                .activation = "activation_function",
                .attention_bias = "enable_bias",
                .mlp_bias = "enable_bias"},
        .max_positions = 2048,
        .eps = 1e-5,
        .attention_bias = true,
        .mlp_bias = true,
        .tied_head = true,
        .activation = "relu",
        .bos = 2,
        .eos = 2,
        .pad = 1,
        .norm = NORM_LAYER,
        .norm_bias = true,
        .qkv = QKV_SPLIT,
        .linear = {[LIN_Q] = {"self_attn.q_proj", SIZE_Q, SIZE_HIDDEN, BIAS_ATTENTION, true},
                   [LIN_K] = {"self_attn.k_proj", SIZE_KV, SIZE_HIDDEN, BIAS_ATTENTION, false},
                   [LIN_V] = {"self_attn.v_proj", SIZE_KV, SIZE_HIDDEN, BIAS_ATTENTION, true},
                   [LIN_ATTN_OUT] = {"self_attn.out_proj", SIZE_HIDDEN, SIZE_Q, BIAS_ATTENTION, false},
                   [LIN_MLP_UP] = {"fc1", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_MLP, false},
                   [LIN_MLP_DOWN] = {"fc2", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_MLP, false}},
        .read = opt_read,
        .write = opt_write,
    },
    {
        .model_type = "llama",
        .language_model = "LlamaForCausalLM",
        .classifier = "LlamaForSequenceClassification",
        .name = {LLAMA_NAMES},
        .key = {LLAMA_KEYS, .attention_bias = "attention_bias", .mlp_bias = "mlp_bias"},
        .max_positions = 2048,
        LLAMA_LAYER,
        .bos = 1,
        .eos = 2,
        .linear = LLAMA_LINEARS(BIAS_ATTENTION, BIAS_ATTENTION, BIAS_MLP),
    },
    {
        .model_type = "mistral",
        .language_model = "MistralForCausalLM",
        .classifier = "MistralForSequenceClassification",
        .name = {LLAMA_NAMES},
        .key = {LLAMA_KEYS, .window = "sliding_window"},
        .max_positions = 131072,
        .kv_heads = 8,
        .window = 4096,
        LLAMA_LAYER,
        .bos = 1,
        .eos = 2,
        .linear = LLAMA_LINEARS(BIAS_NEVER, BIAS_NEVER, BIAS_NEVER),
    },
    {
        .model_type = "qwen2",
        .language_model = "Qwen2ForCausalLM",
        .classifier = "Qwen2ForSequenceClassification",
        .name = {LLAMA_NAMES},
        .key = {LLAMA_KEYS, .window = "sliding_window", .use_window = "use_sliding_window"},
        .max_positions = 32768,
        .kv_heads = 32,
        .window = 4096,
        LLAMA_LAYER,
        .bos = -1,
        .eos = -1,
        .linear = LLAMA_LINEARS(BIAS_ALWAYS, BIAS_NEVER, BIAS_NEVER),
    },
    {
        .model_type = "qwen3",
        .language_model = "Qwen3ForCausalLM",
        .classifier = "Qwen3ForSequenceClassification",
        .name = {LLAMA_NAMES, .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"},
        .key = {LLAMA_KEYS,
                .attention_bias = "attention_bias",
                .window = "sliding_window",
                .use_window = "use_sliding_window"},
        .max_positions = 32768,
        .kv_heads = 32,
        .head_dim = 128,
        .window = 4096,
        LLAMA_LAYER,
        .bos = -1,
        .eos = -1,
        .linear = LLAMA_LINEARS(BIAS_ATTENTION, BIAS_ATTENTION, BIAS_NEVER),
    },
    {
        .model_type = "distilbert",
        .classifier = "DistilBertForSequenceClassification",
        .name = {.prefix = "distilbert.",
                 .layers = "distilbert.transformer.layer",
                 .embedding = "distilbert.embeddings.word_embeddings",
                 .positions = "distilbert.embeddings.position_embeddings",
                 .embedding_norm = "distilbert.embeddings.LayerNorm",
                 .attn_norm = "sa_layer_norm",
                 .mlp_norm = "output_layer_norm",
                 .pooler = "pre_classifier",
                 .score = "classifier"},
        .key = {.hidden = "dim",
                .layers = "n_layers",
                .heads = "n_heads",
                .intermediate = "hidden_dim",
                .max_positions = "max_position_embeddings",
                .activation = "activation"},
        ENCODER_LAYER,
        .bos = -1,
        .eos = -1,
        .pad = 0,
        .pooler_activation = ACT_RELU,
        .linear = {[LIN_Q] = {"attention.q_lin", SIZE_Q, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_K] = {"attention.k_lin", SIZE_KV, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_V] = {"attention.v_lin", SIZE_KV, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_ATTN_OUT] = {"attention.out_lin", SIZE_HIDDEN, SIZE_Q, BIAS_ALWAYS, false},
                   [LIN_MLP_UP] = {"ffn.lin1", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS, false},
                   [LIN_MLP_DOWN] = {"ffn.lin2", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_ALWAYS, false}},
    },
    {
        .model_type = "bert",
        .classifier = "BertForSequenceClassification",
        .name = {BERT_NAMES("bert."), .pooler = "bert.pooler.dense", .score = "classifier"},
        .key = {BERT_KEYS},
        ENCODER_LAYER,
        .bos = -1,
        .eos = -1,
        .pad = 0,
        .pooler_activation = ACT_TANH,
        .linear = BERT_LINEARS,
        .read = bert_read,
        .write = bert_write,
    },
    {
        .model_type = "roberta",
        .classifier = "RobertaForSequenceClassification",
        .name = {BERT_NAMES("roberta."), .pooler = "classifier.dense", .score = "classifier.out_proj"},
        .key = {BERT_KEYS},
        ENCODER_LAYER,
        .bos = 0,
        .eos = 2,
        .pad = 1,
        .pooler_activation = ACT_TANH,
        .linear = BERT_LINEARS,
        .read = roberta_read,
        .write = roberta_write,
    },
};

enum { FAMILIES = sizeof families / sizeof *families };

const struct arch_family *arch_family_find(const char *model_type)
{
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].model_type, model_type))
            return &families[i];
    return NULL;
}

void arch_family_names(struct text *out, bool encoders)
{
    const size_t start = out->n;
    for (int i = 0; i < FAMILIES; i++)
        if (encoders == !families[i].language_model)
            text_format(out, "%s%s", out->n > start ? ", " : "", families[i].model_type);
}
