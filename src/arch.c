/* Families, and config.json. To add a family: a row in the table at the end (STYLE 2.10).
 *
 * config.json is from outside: each value has a range, and all problems are told at once. A key that would change the
 * forward pass in a way that no field of struct arch can say is refused by name, never ignored.
 */
#include "arch.h"

#include "document.h"
#include "error.h"
#include "file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Upper ends of what is believed. Products of two fit in 48 bits, three times the widest in an int. */
enum {
    WIDTH_MAX = 1 << 24, /* hidden, intermediate, heads * head_dim */
    HEADS_MAX = 1 << 14,
    HEAD_DIM_MAX = 1 << 12,
    VOCAB_MAX = 1000000,
    POSITIONS_MAX = 1 << 28,
};

/* A size that a linear layer has on one side. */
enum size { SIZE_HIDDEN, SIZE_Q, SIZE_KV, SIZE_QKV, SIZE_INTERMEDIATE };
enum biased {
    BIAS_NEVER,
    BIAS_ALWAYS,
    BIAS_ATTENTION,
    BIAS_MLP
}; /* the last two: by the config's flag */

struct arch_family {
    const char *model_type, *architecture;
    const char *prefix, *layers, *embedding, *attn_norm, *mlp_norm,
        *final_norm;  /* within the prefix */
    const char *head; /* outside it */
    enum norm_kind norm;
    bool norm_bias;
    enum qkv_layout qkv;
    bool gated_mlp;
    /* keys of config.json; NULL: the family lacks it and the default holds */
    const char *key_eps, *key_theta, *key_rotary_share, *key_parallel, *key_kv_heads, *key_head_dim,
        *key_mlp_bias;
    double eps, rotary_share; /* defaults */
    bool parallel, attention_bias, mlp_bias;
    const char *activation;
    int bos, eos;
    struct {
        const char *module;
        enum size out, in;
        enum biased bias;
        bool default_lora;
    } linear[ARCH_LINEARS_MAX];
};

static const struct arch_family *family_find(const char *model_type);
static void family_names(struct text *out);

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

/* ---- values with ranges; problems are collected ---- */

struct reader {
    const json_t *object;
    struct text problems;
};

static void problem(struct reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void problem(struct reader *r, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_format(&r->problems, "%s%s", r->problems.n ? "; " : "", line);
}

/* The value of a key, NULL where it is absent or null. */
static const json_t *get(const json_t *object, const char *key)
{
    const json_t *v = key ? json_object_get(object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

/* otherwise: the default; -1: the key is needed. */
static int get_size(struct reader *r, const char *key, int otherwise, int most)
{
    const json_t *v = get(r->object, key);
    if (!v && otherwise >= 0)
        return otherwise;
    if (!v)
        problem(r, "%s is missing", key);
    else if (!json_is_integer(v))
        problem(r, "%s is not a whole number", key);
    else if (json_integer_value(v) < 1 || json_integer_value(v) > most)
        problem(r, "%s is %lld, must be 1 to %d", key, (long long)json_integer_value(v), most);
    else
        return (int)json_integer_value(v);
    return 0;
}

/* In [least, most]. */
static double get_real(struct reader *r, const json_t *object, const char *key, double otherwise,
                       double least, double most)
{
    const json_t *v = get(object, key);
    if (!v)
        return otherwise;
    if (!json_is_number(v))
        problem(r, "%s is not a number", key);
    else if (!(json_number_value(v) >= least && json_number_value(v) <= most))
        problem(r, "%s is %g, must be %g to %g", key, json_number_value(v), least, most);
    else
        return json_number_value(v);
    return otherwise;
}

static bool get_flag(struct reader *r, const char *key, bool otherwise)
{
    const json_t *v = get(r->object, key);
    if (!v)
        return otherwise;
    if (!json_is_boolean(v))
        problem(r, "%s is not true or false", key);
    return json_is_true(v);
}

/* ---- parts of config.json ---- */

static void read_sizes(struct arch *a, struct reader *r)
{
    const struct arch_family *f = a->family;
    a->vocab = get_size(r, "vocab_size", -1, VOCAB_MAX);
    a->hidden = get_size(r, "hidden_size", -1, WIDTH_MAX);
    a->layers = get_size(r, "num_hidden_layers", -1, ARCH_LAYERS_MAX);
    a->heads = get_size(r, "num_attention_heads", -1, HEADS_MAX);
    a->intermediate = get_size(r, "intermediate_size", -1, WIDTH_MAX);
    a->max_positions = get_size(r, "max_position_embeddings", 2048, POSITIONS_MAX);
    a->kv_heads = f->key_kv_heads ? get_size(r, f->key_kv_heads, a->heads, HEADS_MAX) : a->heads;
    if (!a->heads || !a->hidden)
        return;
    a->head_dim = f->key_head_dim ? get_size(r, f->key_head_dim, 0, HEAD_DIM_MAX) : 0;
    if (!a->head_dim) {
        if (a->hidden % a->heads)
            problem(r, "hidden_size %d is not a multiple of num_attention_heads %d", a->hidden,
                    a->heads);
        a->head_dim = a->hidden / a->heads;
    }
    if (a->head_dim > HEAD_DIM_MAX)
        problem(r, "a head of %d dimensions, at most %d", a->head_dim, HEAD_DIM_MAX);
    if ((int64_t)a->heads * a->head_dim > WIDTH_MAX)
        problem(r, "%d heads of %d dimensions are wider than %d", a->heads, a->head_dim, WIDTH_MAX);
    if (a->kv_heads && a->heads % a->kv_heads)
        problem(r, "num_attention_heads %d is not a multiple of %s %d", a->heads, f->key_kv_heads,
                a->kv_heads);
}

static void read_rope_scaling(struct arch_rope *rope, struct reader *r, const json_t *scaling,
                              int max_positions)
{
    const json_t *type = get(scaling, "rope_type");
    if (!type)
        type = get(scaling, "type");
    const char *name = json_string_value(type);
    if (type && !name) {
        problem(r, "rope_type is not a string");
        return;
    }
    if (!name || !strcmp(name, "default"))
        return;
    if (!strcmp(name, "linear")) {
        rope->scaling = ROPE_LINEAR;
    } else if (!strcmp(name, "llama3")) {
        rope->scaling = ROPE_LLAMA3;
    } else {
        problem(r, "rope scaling %.40s is not supported (default, linear, llama3 are)", name);
        return;
    }
    if (!get(scaling, "factor"))
        problem(r, "rope scaling %s needs factor", name);
    rope->factor = get_real(r, scaling, "factor", 1, 1, 1e6);
    if (rope->scaling == ROPE_LINEAR)
        return;
    static const char *const needed[] = {"low_freq_factor", "high_freq_factor",
                                         "original_max_position_embeddings"};
    for (int i = 0; i < 3; i++)
        if (!get(scaling, needed[i]))
            problem(r, "rope scaling llama3 needs %s", needed[i]);
    rope->low_freq_factor = get_real(r, scaling, needed[0], 1, 1e-6, 1e6);
    rope->high_freq_factor = get_real(r, scaling, needed[1], 4, 1e-6, 1e6);
    if (!(rope->low_freq_factor < rope->high_freq_factor))
        problem(r, "low_freq_factor is not below high_freq_factor");
    rope->original_max_positions =
        (int)get_real(r, scaling, needed[2], max_positions, 1, POSITIONS_MAX);
}

/* Old: rotary_pct, rope_theta or rotary_emb_base at the top and rope_scaling {type, ..}.
 * transformers 5: rope_parameters {rope_type, rope_theta, partial_rotary_factor, ..}. */
static void read_rope(struct arch *a, struct reader *r)
{
    const struct arch_family *f = a->family;
    const json_t *now = get(r->object, "rope_parameters"),
                 *scaling = get(r->object, "rope_scaling");
    if ((now && !json_is_object(now)) || (scaling && !json_is_object(scaling))) {
        problem(r, "%s is not an object", now ? "rope_parameters" : "rope_scaling");
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)now, key, value)
    {
        if (json_is_object(value)) {
            problem(r, "rope_parameters differ by kind of layer, which is not supported");
            return;
        }
    }
    const double theta = get_real(r, r->object, f->key_theta, 10000, 1, 1e12);
    const double share = get_real(r, r->object, f->key_rotary_share, f->rotary_share, 0, 1);
    a->rope.theta = get_real(r, now, "rope_theta", theta, 1, 1e12);
    a->rotary_share = get_real(r, now, "partial_rotary_factor", share, 0, 1);
    if (!f->key_rotary_share && a->rotary_share < 1)
        problem(r, "partial_rotary_factor %g is not supported in %s", a->rotary_share,
                f->model_type);
    a->rotary_dims = (int)(a->head_dim * a->rotary_share);
    if (a->head_dim && (a->rotary_dims < 2 || a->rotary_dims % 2))
        problem(r, "%d rotary dimensions (%g of %d) are not an even number from 2 up",
                a->rotary_dims, a->rotary_share, a->head_dim);
    read_rope_scaling(&a->rope, r, scaling ? scaling : now, a->max_positions);
}

static void read_activation(struct arch *a, struct reader *r)
{
    const json_t *v = get(r->object, "hidden_act");
    const char *name = v ? json_string_value(v) : a->family->activation;
    for (size_t i = 0; name && i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(activations[i].name, name)) {
            a->activation = activations[i].activation;
            a->activation_name = activations[i].name;
            return;
        }
    problem(r, "hidden_act %.40s is not supported", name ? name : "(not a string)");
}

/* A token id, -1 for none. */
static int token_id(struct reader *r, const struct arch *a, const char *key, const json_t *v,
                    int otherwise)
{
    if (!v)
        return otherwise;
    if (!json_is_integer(v))
        problem(r, "%s is not a whole number", key);
    else if (json_integer_value(v) == -1)
        return -1;
    else if (json_integer_value(v) < 0 || json_integer_value(v) >= a->vocab)
        problem(r, "%s %lld is outside the vocabulary of %d", key, (long long)json_integer_value(v),
                a->vocab);
    else
        return (int)json_integer_value(v);
    return -1;
}

/* eos_token_id: a number or a list. Replaces what a has. */
static void read_eos(struct arch *a, struct reader *r, const json_t *v)
{
    const bool list = json_is_array(v);
    const size_t n = list ? json_array_size(v) : 1;
    a->n_eos = 0;
    if (n > ARCH_EOS_MAX) {
        problem(r, "eos_token_id lists %zu tokens, at most %d", n, ARCH_EOS_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const int id = token_id(r, a, "eos_token_id", list ? json_array_get(v, i) : v, -1);
        if (id >= 0)
            a->eos[a->n_eos++] = id;
    }
}

static void read_tokens(struct arch *a, struct reader *r)
{
    const struct arch_family *f = a->family;
    if (!a->vocab)
        return;
    a->bos = token_id(r, a, "bos_token_id", get(r->object, "bos_token_id"),
                      f->bos < a->vocab ? f->bos : -1);
    const json_t *eos = json_object_get(r->object, "eos_token_id");
    if (eos && !json_is_null(eos))
        read_eos(a, r, eos);
    else if (!eos && f->eos < a->vocab)
        a->eos[a->n_eos++] = f->eos;
    const json_t *pad = get(r->object, "pad_token_id");
    a->pad = -1; /* batches here are ragged: a pad token is only written back */
    if (json_is_integer(pad) && json_integer_value(pad) >= 0 && json_integer_value(pad) < a->vocab)
        a->pad = (int)json_integer_value(pad);
}

/* Keys that change what the weights mean and that struct arch has no field for. */
static void refuse_unsupported(struct reader *r)
{
    if (get(r->object, "quantization_config"))
        problem(r, "quantization_config: the weights are already quantised; use the original ones, "
                   "they are "
                   "quantised while loading");
    if (json_is_true(get(r->object, "is_encoder_decoder")) ||
        json_is_true(get(r->object, "add_cross_attention")))
        problem(r, "encoder-decoder models are not supported");
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
            a->linear[i] = (struct arch_linear){
                module, size[a->family->linear[i].out], size[a->family->linear[i].in],
                bias[a->family->linear[i].bias], a->family->linear[i].default_lora};
    }
}

static int find_family(struct arch *a, const char *path, const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type)
        return error_set(ERR_FILE, "%s: has no model_type", path);
    a->family = family_find(type);
    if (a->family)
        return 0;
    struct text known = {0};
    family_names(&known);
    error_set(ERR_FILE, "%s: model_type %.60s is not supported; supported are %s", path, type,
              text_string(&known));
    text_free(&known);
    return -1;
}

static int read_config(struct arch *a, const char *path, const json_t *config)
{
    TRY(find_family(a, path, config));
    const struct arch_family *f = a->family;
    struct reader r = {.object = config};
    a->norm = f->norm;
    a->norm_bias = f->norm_bias;
    a->qkv = f->qkv;
    a->gated_mlp = f->gated_mlp;
    read_sizes(a, &r);
    read_rope(a, &r);
    read_activation(a, &r);
    read_tokens(a, &r);
    refuse_unsupported(&r);
    a->norm_eps = (float)get_real(&r, config, f->key_eps, f->eps, 1e-15, 1);
    const bool parallel = f->key_parallel ? get_flag(&r, f->key_parallel, f->parallel) : f->parallel;
    a->residual = parallel ? RESIDUAL_PARALLEL : RESIDUAL_SEQUENTIAL;
    a->tied_head = get_flag(&r, "tie_word_embeddings", false);
    a->embedding_width = a->hidden;
    a->final_norm = true;
    a->attention_scale = a->head_dim ? (float)(1.0 / sqrt((double)a->head_dim)) : 0;
    const bool attention_bias = get_flag(&r, "attention_bias", f->attention_bias);
    const bool mlp_bias =
        f->key_mlp_bias ? get_flag(&r, f->key_mlp_bias, f->mlp_bias) : f->mlp_bias;
    if (r.problems.n)
        error_set(ERR_FILE, "%s: %s", path, text_string(&r.problems));
    else
        set_linears(a, attention_bias, mlp_bias);
    const int rc = r.problems.n ? -1 : 0;
    text_free(&r.problems);
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
    if (get(config, "eos_token_id")) {
        struct reader r = {.object = config};
        read_eos(a, &r, get(config, "eos_token_id"));
        if (r.problems.n)
            rc = error_set(ERR_FILE, "%s: %s", path, text_string(&r.problems));
        text_free(&r.problems);
    }
    json_decref(config);
    free(path);
    return rc;
}

int arch_read(struct arch *a, const char *folder, enum arch_use use)
{
    *a = (struct arch){.use = use, .bos = -1, .pad = -1};
    if (!file_is_folder(folder))
        return error_set(ERR_FILE,
                         "%s: not a folder; a model is a Hugging Face folder with config.json",
                         folder);
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

static json_t *rope_scaling_value(const struct arch_rope *rope)
{
    if (rope->scaling == ROPE_PLAIN)
        return json_null();
    if (rope->scaling == ROPE_LINEAR)
        return json_pack("{s:s, s:s, s:f}", "type", "linear", "rope_type", "linear", "factor",
                         rope->factor);
    return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", rope->factor,
                     "low_freq_factor", rope->low_freq_factor, "high_freq_factor",
                     rope->high_freq_factor, "original_max_position_embeddings",
                     rope->original_max_positions);
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

int arch_write_config(const struct arch *a, const char *folder, enum dtype dtype)
{
    const struct arch_family *f = a->family;
    const char *type = dtype == DTYPE_F32 ? "float32" : dtype == DTYPE_F16 ? "float16" : "bfloat16";
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "weights of %s",
          dtype_name(dtype));
    json_t *c = json_object();
    set(c, "model_type", json_string(f->model_type));
    set(c, "architectures", json_pack("[s]", f->architecture));
    set(c, "torch_dtype", json_string(type));
    set(c, "vocab_size", json_integer(a->vocab));
    set(c, "hidden_size", json_integer(a->hidden));
    set(c, "num_hidden_layers", json_integer(a->layers));
    set(c, "num_attention_heads", json_integer(a->heads));
    set(c, "intermediate_size", json_integer(a->intermediate));
    set(c, "max_position_embeddings", json_integer(a->max_positions));
    set(c, "hidden_act", json_string(a->activation_name));
    set(c, "tie_word_embeddings", json_boolean(a->tied_head));
    set(c, "attention_bias", json_boolean(a->linear[LIN_ATTN_OUT].bias));
    set(c, "bos_token_id", id_or_null(a->bos));
    set(c, "eos_token_id", eos_value(a));
    set(c, "pad_token_id", id_or_null(a->pad));
    set(c, "rope_scaling", rope_scaling_value(&a->rope));
    set(c, "use_cache", json_true());
    set(c, "initializer_range", json_real(0.02));
    set(c, f->key_eps, json_real(shortest(a->norm_eps)));
    set(c, f->key_theta, json_real(a->rope.theta));
    set(c, f->key_rotary_share, json_real(a->rotary_share));
    set(c, f->key_parallel, json_boolean(a->residual == RESIDUAL_PARALLEL));
    set(c, f->key_kv_heads, json_integer(a->kv_heads));
    set(c, f->key_head_dim, json_integer(a->head_dim));
    set(c, f->key_mlp_bias, json_boolean(a->linear[LIN_MLP_DOWN].bias));
    char *path = file_join(folder, "config.json");
    int rc = document_write(path, c);
    json_decref(c);
    free(path);
    if (rc)
        return rc;

    json_t *g = json_object();
    set(g, "_from_model_config", json_true());
    set(g, "bos_token_id", id_or_null(a->bos));
    set(g, "eos_token_id", eos_value(a));
    set(g, "pad_token_id", id_or_null(a->pad));
    path = file_join(folder, "generation_config.json");
    rc = document_write(path, g);
    json_decref(g);
    free(path);
    return rc;
}

/* ---- tensors ---- */

const char *arch_model_type(const struct arch *a)
{
    return a->family->model_type;
}

const char *arch_prefix(const struct arch *a)
{
    return a->family->prefix;
}

const char *arch_head_module(const struct arch *a)
{
    return a->family->head;
}

const char *arch_embedding_module(const struct arch *a)
{
    return a->family->embedding;
}

void arch_module_name(char *out, size_t room, const struct arch *a, int layer, enum arch_slot slot)
{
    CHECK(a->linear[slot].module, "%s has no linear layer %d", a->family->model_type, (int)slot);
    snprintf(out, room, "%s.%d.%s", a->family->layers, layer, a->linear[slot].module);
}

void arch_tensor_name(char *out, size_t room, const struct arch *a, enum arch_role role, int layer,
                      enum arch_slot slot, bool bias)
{
    const struct arch_family *f = a->family;
    const char *what = bias ? "bias" : "weight";
    char module[ARCH_NAME_MAX];
    switch (role) {
    case ROLE_EMBEDDING:
        snprintf(out, room, "%s.%s", f->embedding, what);
        break;
    case ROLE_ATTN_NORM:
    case ROLE_MLP_NORM:
        snprintf(out, room, "%s.%d.%s.%s", f->layers, layer,
                 role == ROLE_ATTN_NORM ? f->attn_norm : f->mlp_norm, what);
        break;
    case ROLE_LINEAR:
        arch_module_name(module, sizeof module, a, layer, slot);
        snprintf(out, room, "%s.%s", module, what);
        break;
    case ROLE_FINAL_NORM:
        snprintf(out, room, "%s.%s", f->final_norm, what);
        break;
    case ROLE_HEAD:
        snprintf(out, room, "%s.%s", a->tied_head ? f->embedding : f->head, what);
        break;
    case ROLE_POSITIONS:
    case ROLE_TOKEN_TYPES:
    case ROLE_EMBEDDING_NORM:
    case ROLE_PROJECT_IN:
    case ROLE_Q_NORM:
    case ROLE_K_NORM:
    case ROLE_PROJECT_OUT:
    case ROLE_POOLER:
    case ROLE_SCORE:
        CHECK(0, "%s has no tensor of role %d", f->model_type, (int)role);
    }
}

/* Tensors of one layer: two norms and the linear layers. */
static int tensors_of_layer(const struct arch *a)
{
    int n = 2 * (1 + a->norm_bias);
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        if (a->linear[i].module)
            n += 1 + a->linear[i].bias;
    return n;
}

int arch_tensors(const struct arch *a)
{
    return 1 + a->layers * tensors_of_layer(a) + 1 + a->norm_bias + !a->tied_head;
}

static void set_vector(struct arch_tensor *t, enum arch_role role, bool bias, int n)
{
    t->role = role;
    t->bias = bias;
    t->n_dims = 1;
    t->shape[0] = n;
}

static void set_matrix(struct arch_tensor *t, enum arch_role role, int rows, int cols)
{
    t->role = role;
    t->n_dims = 2;
    t->shape[0] = rows;
    t->shape[1] = cols;
}

/* The index-th tensor of a layer: both norms, then the linear layers by slot, each weight before its bias. */
static void tensor_of_layer(struct arch_tensor *t, const struct arch *a, int index)
{
    const int per_norm = 1 + a->norm_bias;
    if (index < 2 * per_norm) {
        set_vector(t, index < per_norm ? ROLE_ATTN_NORM : ROLE_MLP_NORM, index % per_norm == 1,
                   a->hidden);
        return;
    }
    index -= 2 * per_norm;
    for (int i = 0; i < ARCH_LINEARS_MAX; i++) {
        const struct arch_linear *l = &a->linear[i];
        if (!l->module)
            continue;
        if (index < 1 + l->bias) {
            t->slot = (enum arch_slot)i;
            if (index == 0)
                set_matrix(t, ROLE_LINEAR, l->out, l->in);
            else
                set_vector(t, ROLE_LINEAR, true, l->out);
            return;
        }
        index -= 1 + l->bias;
    }
    CHECK(0, "tensor of a layer out of range");
}

void arch_tensor(struct arch_tensor *t, const struct arch *a, int index)
{
    const int per_layer = tensors_of_layer(a), after_layers = 1 + a->layers * per_layer;
    CHECK(index >= 0 && index < arch_tensors(a), "tensor %d of %d", index, arch_tensors(a));
    *t = (struct arch_tensor){0};
    if (index == 0) {
        set_matrix(t, ROLE_EMBEDDING, a->vocab, a->hidden);
    } else if (index < after_layers) {
        t->layer = (index - 1) / per_layer;
        tensor_of_layer(t, a, (index - 1) % per_layer);
    } else if (index - after_layers < 1 + a->norm_bias) {
        set_vector(t, ROLE_FINAL_NORM, index - after_layers == 1, a->hidden);
    } else {
        set_matrix(t, ROLE_HEAD, a->vocab, a->hidden);
    }
    arch_tensor_name(t->name, sizeof t->name, a, t->role, t->layer, t->slot, t->bias);
}

int64_t arch_parameters(const struct arch *a)
{
    int64_t n = 0;
    for (int i = 0; i < arch_tensors(a); i++) {
        struct arch_tensor t;
        arch_tensor(&t, a, i);
        n += t.shape[0] * (t.n_dims == 2 ? t.shape[1] : 1);
    }
    return n;
}

static const struct arch_family families[] = {
    {
        .model_type = "gpt_neox",
        .architecture = "GPTNeoXForCausalLM",
        .prefix = "gpt_neox.",
        .layers = "gpt_neox.layers",
        .embedding = "gpt_neox.embed_in",
        .attn_norm = "input_layernorm",
        .mlp_norm = "post_attention_layernorm",
        .final_norm = "gpt_neox.final_layer_norm",
        .head = "embed_out",
        .norm = NORM_LAYER,
        .norm_bias = true,
        .qkv = QKV_INTERLEAVED,
        .key_eps = "layer_norm_eps",
        .eps = 1e-5,
        .key_theta = "rotary_emb_base",
        .key_rotary_share = "rotary_pct",
        .rotary_share = 0.25,
        .key_parallel = "use_parallel_residual",
        .parallel = true,
        .attention_bias = true,
        .mlp_bias = true,
        .activation = "gelu",
        .bos = 0,
        .eos = 2,
        .linear = {[LIN_QKV] = {"attention.query_key_value", SIZE_QKV, SIZE_HIDDEN, BIAS_ATTENTION,
                                true},
                   [LIN_ATTN_OUT] = {"attention.dense", SIZE_HIDDEN, SIZE_Q, BIAS_ATTENTION, false},
                   [LIN_MLP_UP] = {"mlp.dense_h_to_4h", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_ALWAYS,
                                   false},
                   [LIN_MLP_DOWN] = {"mlp.dense_4h_to_h", SIZE_HIDDEN, SIZE_INTERMEDIATE,
                                     BIAS_ALWAYS, false}},
    },
    {
        .model_type = "llama",
        .architecture = "LlamaForCausalLM",
        .prefix = "model.",
        .layers = "model.layers",
        .embedding = "model.embed_tokens",
        .attn_norm = "input_layernorm",
        .mlp_norm = "post_attention_layernorm",
        .final_norm = "model.norm",
        .head = "lm_head",
        .norm = NORM_RMS,
        .qkv = QKV_SPLIT,
        .gated_mlp = true,
        .key_eps = "rms_norm_eps",
        .eps = 1e-6,
        .key_theta = "rope_theta",
        .rotary_share = 1,
        .key_kv_heads = "num_key_value_heads",
        .key_head_dim = "head_dim",
        .key_mlp_bias = "mlp_bias",
        .activation = "silu",
        .bos = 1,
        .eos = 2,
        .linear =
            {[LIN_Q] = {"self_attn.q_proj", SIZE_Q, SIZE_HIDDEN, BIAS_ATTENTION, true},
             [LIN_K] = {"self_attn.k_proj", SIZE_KV, SIZE_HIDDEN, BIAS_ATTENTION, false},
             [LIN_V] = {"self_attn.v_proj", SIZE_KV, SIZE_HIDDEN, BIAS_ATTENTION, true},
             [LIN_ATTN_OUT] = {"self_attn.o_proj", SIZE_HIDDEN, SIZE_Q, BIAS_ATTENTION, false},
             [LIN_MLP_GATE] = {"mlp.gate_proj", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_MLP, false},
             [LIN_MLP_UP] = {"mlp.up_proj", SIZE_INTERMEDIATE, SIZE_HIDDEN, BIAS_MLP, false},
             [LIN_MLP_DOWN] = {"mlp.down_proj", SIZE_HIDDEN, SIZE_INTERMEDIATE, BIAS_MLP, false}},
    },
};

enum { FAMILIES = sizeof families / sizeof *families };

static const struct arch_family *family_find(const char *model_type)
{
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].model_type, model_type))
            return &families[i];
    return NULL;
}

static void family_names(struct text *out)
{
    for (int i = 0; i < FAMILIES; i++)
        text_format(out, "%s%s", i ? ", " : "", families[i].model_type);
}
