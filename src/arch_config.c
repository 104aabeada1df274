/* config.json: reading and writing it by a family's row. To add a family: a row in arch_families.c (STYLE 2.10).
 *
 * config.json is from outside: each value has a range, and all problems are told at once. A key that would change the
 * forward pass in a way that no field of struct arch can say is refused by name, never ignored.
 */
#include "arch_family.h"

#include "document.h"
#include "error.h"
#include "file.h"
#include "labels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum activation activation;
} activations[] = {
    {"gelu", ACT_GELU},
    {"gelu_python", ACT_GELU},
    {"gelu_new", ACT_GELU_TANH},
    {"gelu_fast", ACT_GELU_TANH},
    {"gelu_pytorch_tanh", ACT_GELU_TANH},
    {"gelu_python_tanh", ACT_GELU_TANH},
    {"gelu_accurate", ACT_GELU_TANH},
    {"silu", ACT_SILU},
    {"swish", ACT_SILU},
    {"relu", ACT_RELU},
    {"quick_gelu", ACT_QUICK_GELU},
};

/* ---- parts of config.json ---- */

static void read_heads(struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    const char *key = f->key.kv_heads;
    const bool absent = key && !json_object_get(k->object, key);
    a->kv_heads = key ? arch_keys_size(k, key, absent && f->kv_heads ? f->kv_heads : a->heads, ARCH_HEADS_MAX) : a->heads;
    a->head_dim = f->key.head_dim ? arch_keys_size(k, f->key.head_dim, f->head_dim, ARCH_HEAD_DIM_MAX) : 0;
    if (!a->head_dim) {
        if (a->hidden % a->heads)
            arch_keys_problem(k, "%s %d is not a multiple of %s %d", f->key.hidden, a->hidden, f->key.heads, a->heads);
        a->head_dim = a->hidden / a->heads;
    }
    if (a->head_dim > ARCH_HEAD_DIM_MAX)
        arch_keys_problem(k, "a head of %d dimensions, at most %d", a->head_dim, ARCH_HEAD_DIM_MAX);
    if ((int64_t)a->heads * a->head_dim > ARCH_WIDTH_MAX)
        arch_keys_problem(k, "%d heads of %d dimensions are wider than %d", a->heads, a->head_dim, ARCH_WIDTH_MAX);
    if (a->kv_heads && a->heads % a->kv_heads)
        arch_keys_problem(k, "%s %d is not a multiple of %s %d", f->key.heads, a->heads, key, a->kv_heads);
    a->attention_scale = a->head_dim ? (float)(1.0 / sqrt((double)a->head_dim)) : 0;
}

static void read_sizes(struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    a->vocab = arch_keys_size(k, "vocab_size", -1, ARCH_VOCAB_MAX);
    a->hidden = arch_keys_size(k, f->key.hidden, -1, ARCH_WIDTH_MAX);
    a->layers = arch_keys_size(k, f->key.layers, -1, ARCH_LAYERS_MAX);
    a->heads = arch_keys_size(k, f->key.heads, -1, ARCH_HEADS_MAX);
    a->intermediate = arch_keys_size(k, f->key.intermediate, f->intermediate_ratio ? f->intermediate_ratio * a->hidden : -1,
                                     ARCH_WIDTH_MAX);
    a->max_positions = arch_keys_size(k, f->key.max_positions, f->max_positions, ARCH_POSITIONS_MAX);
    a->embedding_width = a->hidden;
    a->position_rows = f->name.positions ? a->max_positions : 0;
    if (a->heads && a->hidden)
        read_heads(a, k);
}

static void read_activation(struct arch *a, struct arch_keys *k)
{
    const json_t *v = arch_keys_get(k->object, a->family->key.activation);
    const char *name = v ? json_string_value(v) : a->family->activation;
    for (size_t i = 0; name && i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(activations[i].name, name)) {
            a->activation = activations[i].activation;
            a->activation_name = activations[i].name;
            return;
        }
    arch_keys_problem(k, "%s %.40s is not supported", a->family->key.activation, name ? name : "(not a string)");
}

/* The window's size; 0: there is none. One as long as the longest sequence is none. */
static int window_size(const struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    if (!f->key.window || (f->key.use_window && !arch_keys_flag(k, f->key.use_window, false)))
        return 0;
    const json_t *v = json_object_get(k->object, f->key.window);
    const int window = json_is_null(v) ? 0 : arch_keys_size(k, f->key.window, f->window, ARCH_POSITIONS_MAX);
    return window < a->max_positions ? window : 0;
}

static void read_layer_types(struct arch *a, struct arch_keys *k, const json_t *types)
{
    if (json_array_size(types) != (size_t)a->layers)
        arch_keys_problem(k, "layer_types is not a list of %d layers", a->layers);
    for (int i = 0; i < a->layers && i < (int)json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        a->windowed[i] = type && !strcmp(type, "sliding_attention");
        if (!type || (!a->windowed[i] && strcmp(type, "full_attention"))) {
            arch_keys_problem(k, "layer_types: %.40s is not supported (full_attention, sliding_attention are)",
                              type ? type : "(not a string)");
            return;
        }
    }
}

/* Where only some layers see the window: those that layer_types marks, else those from max_window_layers on. */
static void read_window(struct arch *a, struct arch_keys *k)
{
    const bool some = a->family->key.use_window != NULL;
    const json_t *types = some ? arch_keys_get(k->object, "layer_types") : NULL;
    a->window = window_size(a, k);
    if (!a->window)
        return;
    if (types) {
        read_layer_types(a, k, types);
        return;
    }
    const double first = some ? arch_keys_real(k, k->object, "max_window_layers", 28, 0, ARCH_LAYERS_MAX) : 0;
    for (int i = 0; i < a->layers; i++)
        a->windowed[i] = i >= first;
}

/* eos_token_id: a number or a list. Replaces what a has. */
static void read_eos(struct arch *a, struct arch_keys *k, const json_t *v)
{
    const bool list = json_is_array(v);
    const size_t n = list ? json_array_size(v) : 1;
    a->n_eos = 0;
    if (n > ARCH_EOS_MAX) {
        arch_keys_problem(k, "eos_token_id lists %zu tokens, at most %d", n, ARCH_EOS_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const int id = arch_keys_token(k, "eos_token_id", list ? json_array_get(v, i) : v, a->vocab, -1);
        if (id >= 0)
            a->eos[a->n_eos++] = id;
    }
}

static void read_tokens(struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    if (!a->vocab)
        return;
    a->bos = arch_keys_token(k, "bos_token_id", arch_keys_get(k->object, "bos_token_id"), a->vocab,
                             f->bos < a->vocab ? f->bos : -1);
    const json_t *eos = json_object_get(k->object, "eos_token_id");
    if (eos && !json_is_null(eos))
        read_eos(a, k, eos);
    else if (!eos && f->eos >= 0 && f->eos < a->vocab)
        a->eos[a->n_eos++] = f->eos;
    const json_t *pad = json_object_get(k->object, "pad_token_id");
    a->pad = !pad && f->pad < a->vocab ? f->pad : -1; /* batches here are ragged: a pad token is only written back */
    if (json_is_integer(pad) && json_integer_value(pad) >= 0 && json_integer_value(pad) < a->vocab)
        a->pad = (int)json_integer_value(pad);
}

/* Keys that change what the weights mean and that struct arch has no field for. */
static void refuse_unsupported(struct arch_keys *k)
{
    if (arch_keys_get(k->object, "quantization_config"))
        arch_keys_problem(k, "quantization_config: the weights are already quantised; use the original ones, they are "
                             "quantised while loading");
    if (json_is_true(arch_keys_get(k->object, "is_encoder_decoder")) ||
        json_is_true(arch_keys_get(k->object, "add_cross_attention")))
        arch_keys_problem(k, "encoder-decoder models are not supported");
}

static void set_linears(struct arch *a, bool attention_bias, bool mlp_bias)
{
    const int q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    const int size[] = {[SIZE_HIDDEN] = a->hidden,
                        [SIZE_Q] = q,
                        [SIZE_KV] = kv,
                        [SIZE_QKV] = q + 2 * kv,
                        [SIZE_INTERMEDIATE] = a->intermediate};
    const bool bias[] = {[BIAS_NEVER] = false,
                         [BIAS_ALWAYS] = true,
                         [BIAS_ATTENTION] = attention_bias,
                         [BIAS_MLP] = mlp_bias};
    for (int i = 0; i < ARCH_LINEARS_MAX; i++) {
        const char *module = a->family->linear[i].module;
        if (module)
            a->linear[i] = (struct arch_linear){module, size[a->family->linear[i].out], size[a->family->linear[i].in],
                                                bias[a->family->linear[i].bias], a->family->linear[i].default_lora};
    }
}

/* What the family's row says of every model of it. */
static void describe_family(struct arch *a)
{
    const struct arch_family *f = a->family;
    a->norm = f->norm;
    a->norm_bias = f->norm_bias;
    a->residual = f->residual;
    a->qkv = f->qkv;
    a->gated_mlp = f->gated_mlp;
    a->transposed = f->transposed;
    a->embedding_norm = f->name.embedding_norm != NULL;
    a->final_norm = f->name.final_norm != NULL;
    a->qk_norm = f->name.q_norm != NULL;
    a->bidirectional = !f->language_model;
    a->pooler = f->name.pooler && a->use != ARCH_LANGUAGE_MODEL;
    a->pooler_activation = f->pooler_activation;
}

static void unknown_family(const char *path, const char *type)
{
    struct text causal = {0}, encoders = {0};
    arch_family_names(&causal, false);
    arch_family_names(&encoders, true);
    error_set(ERR_FILE, "%s: model_type %.60s is not supported; language models are %s; classifiers these and %s", path, type,
              text_string(&causal), text_string(&encoders));
    text_free(&causal);
    text_free(&encoders);
}

static int find_family(struct arch *a, const char *path, const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type)
        return error_set(ERR_FILE, "%s: has no model_type", path);
    a->family = arch_family_find(type);
    if (!a->family) {
        unknown_family(path, type);
        return -1;
    }
    if (a->use != ARCH_LANGUAGE_MODEL || a->family->language_model)
        return 0;
    struct text causal = {0};
    arch_family_names(&causal, false);
    error_set(ERR_FILE, "%s: %s is an encoder: it scores texts (a reward), it does not write them; language models are %s", path,
              type, text_string(&causal));
    text_free(&causal);
    return -1;
}

/* ---- reading ---- */

static void read_values(struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    describe_family(a);
    read_sizes(a, k);
    arch_rope_read(a, k);
    read_activation(a, k);
    read_window(a, k);
    read_tokens(a, k);
    refuse_unsupported(k);
    a->norm_eps = (float)arch_keys_real(k, k->object, f->key.eps, f->eps, 1e-15, 1);
    if (f->key.parallel)
        a->residual = arch_keys_flag(k, f->key.parallel, f->parallel) ? RESIDUAL_PARALLEL : f->residual;
    a->tied_head = arch_keys_flag(k, "tie_word_embeddings", f->tied_head);
    if (f->read)
        f->read(a, k);
}

static int read_labels(struct arch *a, const char *path, const json_t *config)
{
    struct labels labels;
    TRY(labels_of_config(&labels, path, config));
    a->n_labels = labels.n;
    labels_free(&labels);
    return 0;
}

static int read_config(struct arch *a, const char *path, const json_t *config)
{
    TRY(find_family(a, path, config));
    const struct arch_family *f = a->family;
    struct arch_keys k = {.object = config};
    read_values(a, &k);
    const bool attention_bias = f->key.attention_bias && arch_keys_flag(&k, f->key.attention_bias, f->attention_bias);
    const bool mlp_bias = f->key.mlp_bias && arch_keys_flag(&k, f->key.mlp_bias, f->mlp_bias);
    int rc = 0;
    if (k.problems.n)
        rc = error_set(ERR_FILE, "%s: %s", path, text_string(&k.problems));
    else
        set_linears(a, attention_bias, mlp_bias);
    if (!rc && a->use == ARCH_CLASSIFIER)
        rc = read_labels(a, path, config);
    text_free(&k.problems);
    return rc;
}

/* generation_config.json, where there is one: its eos_token_id is what generation stops at. */
static int read_generation_config(struct arch *a, const char *folder)
{
    char *path = file_join(folder, "generation_config.json");
    int rc = 0;
    json_t *config = NULL;
    if (file_exists(path)) {
        config = document_read(path);
        rc = config ? 0 : -1;
    }
    if (arch_keys_get(config, "eos_token_id")) {
        struct arch_keys k = {.object = config};
        read_eos(a, &k, arch_keys_get(config, "eos_token_id"));
        if (k.problems.n)
            rc = error_set(ERR_FILE, "%s: %s", path, text_string(&k.problems));
        text_free(&k.problems);
    }
    json_decref(config);
    free(path);
    return rc;
}

int arch_read(struct arch *a, const char *folder, enum arch_use use)
{
    *a = (struct arch){.use = use, .bos = -1, .pad = -1};
    if (!file_is_folder(folder))
        return error_set(ERR_FILE, "%s: not a folder; a model is a Hugging Face folder with config.json", folder);
    char *path = file_join(folder, "config.json");
    json_t *config = document_read(path);
    int rc = config ? read_config(a, path, config) : -1;
    if (!rc)
        rc = read_generation_config(a, folder);
    json_decref(config);
    free(path);
    return rc;
}

/* ---- writing ---- */

static void set(json_t *object, const char *key, json_t *value)
{
    if (key && json_object_set_new(object, key, value) != 0)
        CHECK(0, "config.json: %s", key);
    if (!key)
        json_decref(value);
}

static json_t *id_or_null(int id)
{
    return id < 0 ? json_null() : json_integer(id);
}

static json_t *eos_value(const struct arch *a)
{
    if (a->n_eos < 2)
        return id_or_null(a->n_eos ? a->eos[0] : -1);
    json_t *list = json_array();
    for (int i = 0; i < a->n_eos; i++)
        json_array_append_new(list, json_integer(a->eos[i]));
    return list;
}

/* The decimal fraction a person wrote: 1e-5, not the float32 next to it. */
static double shortest(float value)
{
    for (int digits = 1; digits < 9; digits++) {
        char text[32];
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            return strtod(text, NULL);
    }
    return value;
}

static void write_window(const struct arch *a, json_t *c)
{
    const struct arch_family *f = a->family;
    set(c, f->key.window, a->window ? json_integer(a->window) : json_null());
    set(c, f->key.use_window, json_boolean(a->window > 0));
    if (!f->key.use_window)
        return;
    json_t *types = json_array();
    for (int i = 0; i < a->layers; i++)
        json_array_append_new(types, json_string(a->windowed[i] ? "sliding_attention" : "full_attention"));
    set(c, "layer_types", types);
}

static void write_sizes(const struct arch *a, json_t *c)
{
    const struct arch_family *f = a->family;
    set(c, "vocab_size", json_integer(a->vocab));
    set(c, f->key.hidden, json_integer(a->hidden));
    set(c, f->key.layers, json_integer(a->layers));
    set(c, f->key.heads, json_integer(a->heads));
    set(c, f->key.kv_heads, json_integer(a->kv_heads));
    set(c, f->key.head_dim, json_integer(a->head_dim));
    set(c, f->key.intermediate, json_integer(a->intermediate));
    set(c, f->key.max_positions, json_integer(a->max_positions));
}

static json_t *config_value(const struct arch *a, enum dtype dtype)
{
    const struct arch_family *f = a->family;
    json_t *c = json_object();
    set(c, "model_type", json_string(f->model_type));
    set(c, "architectures", json_pack("[s]", f->language_model ? f->language_model : f->classifier));
    set(c, "torch_dtype", json_string(dtype == DTYPE_F32 ? "float32" : dtype == DTYPE_F16 ? "float16" : "bfloat16"));
    write_sizes(a, c);
    arch_rope_write(a, c);
    write_window(a, c);
    set(c, f->key.activation, json_string(a->activation_name));
    set(c, f->key.eps, json_real(shortest(a->norm_eps)));
    set(c, f->key.parallel, json_boolean(a->residual == RESIDUAL_PARALLEL));
    set(c, f->key.attention_bias, json_boolean(a->linear[LIN_ATTN_OUT].bias));
    set(c, f->key.mlp_bias, json_boolean(a->linear[LIN_MLP_DOWN].bias));
    set(c, "tie_word_embeddings", json_boolean(a->tied_head));
    set(c, "bos_token_id", id_or_null(a->bos));
    set(c, "eos_token_id", eos_value(a));
    set(c, "pad_token_id", id_or_null(a->pad));
    set(c, "use_cache", json_true());
    set(c, "initializer_range", json_real(0.02));
    if (f->write)
        f->write(a, c);
    return c;
}

static int write_document(const char *folder, const char *name, json_t *document)
{
    char *path = file_join(folder, name);
    int rc = document_write(path, document);
    json_decref(document);
    free(path);
    return rc;
}

int arch_write_config(const struct arch *a, const char *folder, enum dtype dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "weights of %s", dtype_name(dtype));
    TRY(write_document(folder, "config.json", config_value(a, dtype)));
    json_t *g = json_object();
    set(g, "_from_model_config", json_true());
    set(g, "bos_token_id", id_or_null(a->bos));
    set(g, "eos_token_id", eos_value(a));
    set(g, "pad_token_id", id_or_null(a->pad));
    return write_document(folder, "generation_config.json", g);
}
