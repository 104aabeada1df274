/* Adapter folders. What PEFT writes today and what it wrote before both load, as far as it is plain LoRA on linear layers. */
#include "peft.h"

#include "document.h"
#include "error.h"
#include "file.h"
#include "log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_NAME_MAX = ARCH_NAME_MAX + 64, SHAPE_MAX = 256 };

/* Keys of adapter_config.json that change what the tensors mean: refused where they are set. */
static const struct {
    const char *key, *what;
} unsupported[] = {
    {"use_dora", "DoRA"},
    {"lora_bias", "biases in lora_B"},
    {"modules_to_save", "full copies of modules"},
    {"rank_pattern", "a rank for each module"},
    {"alpha_pattern", "an alpha for each module"},
    {"layers_to_transform", "adapters on some layers only"},
    {"layers_pattern", "adapters on some layers only"},
    {"exclude_modules", "excluded modules"},
    {"layer_replication", "replicated layers"},
    {"target_parameters", "adapters on bare parameters"},
    {"trainable_token_indices", "trained token embeddings"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"fan_in_fan_out", "transposed base weights"},
    {"enable_lora", "merged linear layers of PEFT 0.2"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"arrow_config", "Arrow"},
    {"kasa_config", "KaSA"},
    {"monteclora_config", "MonteCLoRA"},
    {"velora_config", "VeLoRA"},
};

/* Keys that say nothing about the result of a trained adapter. Others are warned about. */
static const char *const understood[] = {"peft_type",
                                         "task_type",
                                         "base_model_name_or_path",
                                         "r",
                                         "lora_alpha",
                                         "lora_dropout",
                                         "target_modules",
                                         "bias",
                                         "inference_mode",
                                         "init_lora_weights",
                                         "use_rslora",
                                         "auto_mapping",
                                         "peft_version",
                                         "revision",
                                         "runtime_config",
                                         "merge_weights",
                                         "megatron_config",
                                         "megatron_core",
                                         "loftq_config",
                                         "eva_config",
                                         "corda_config",
                                         "lora_ga_config",
                                         "ensure_weight_tying",
                                         "qalora_group_size"};

/* Initialisations that also change the base weights: without the same change the adapter is wrong. */
static const char *const base_changing[] = {"pissa", "olora", "loftq", "corda", "lora_ga"};

double peft_scale(const struct peft_config *c)
{
    return c->use_rslora ? c->lora_alpha / sqrt(c->r) : c->lora_alpha / c->r;
}

void peft_config_free(struct peft_config *c)
{
    peft_targets_free(&c->target_modules);
    free(c->base_model_name_or_path);
    *c = (struct peft_config){0};
}

/* ---- adapter_config.json ---- */

static bool is_set(const json_t *v)
{
    if (json_is_string(v))
        return json_string_length(v) > 0;
    if (json_is_array(v))
        return json_array_size(v) > 0;
    if (json_is_object(v))
        return json_object_size(v) > 0;
    return v && !json_is_null(v) && !json_is_false(v);
}

static void problem(struct text *problems, const char *line)
{
    text_format(problems, "%s%s", problems->n ? "; " : "", line);
}

static bool is_understood(const char *key)
{
    for (size_t i = 0; i < sizeof understood / sizeof *understood; i++)
        if (!strcmp(understood[i], key))
            return true;
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (!strcmp(unsupported[i].key, key))
            return true;
    return false;
}

/* What is refused by name, collected. */
static void refuse_unsupported(struct text *problems, const char *path, json_t *config)
{
    char line[256];
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (is_set(json_object_get(config, unsupported[i].key))) {
            snprintf(line, sizeof line, "%s (%s) is not supported", unsupported[i].key,
                     unsupported[i].what);
            problem(problems, line);
        }
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    if (!type || strcmp(type, "LORA")) {
        snprintf(line, sizeof line, "peft_type %.40s is not supported, LORA is",
                 type ? type : "(missing)");
        problem(problems, line);
    }
    const json_t *bias = json_object_get(config, "bias");
    if (is_set(bias) && (!json_is_string(bias) || strcmp(json_string_value(bias), "none")))
        problem(problems, "bias must be \"none\": trained biases are not supported");
    const char *init = json_string_value(json_object_get(config, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof base_changing / sizeof *base_changing; i++)
        if (!strncmp(init, base_changing[i], strlen(base_changing[i]))) {
            snprintf(line, sizeof line,
                     "init_lora_weights %.40s changes the base weights; convert the adapter with "
                     "PEFT first",
                     init);
            problem(problems, line);
        }
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value)
    {
        if (!is_understood(key) && is_set(value))
            log_warn("%s: %.60s is not known here and has no effect", path, key);
    }
}

static void read_numbers(struct peft_config *c, struct text *problems, const json_t *config)
{
    const json_t *r = json_object_get(config, "r"), *alpha = json_object_get(config, "lora_alpha");
    const json_t *dropout = json_object_get(config, "lora_dropout"),
                 *rslora = json_object_get(config, "use_rslora");
    c->r = 8; /* PEFT's defaults */
    c->lora_alpha = 8;
    if (r &&
        (!json_is_integer(r) || json_integer_value(r) < 1 || json_integer_value(r) > PEFT_R_MAX))
        problem(problems, "r is not a whole number from 1 to 4096");
    else if (r)
        c->r = (int)json_integer_value(r);
    if (alpha &&
        !(json_is_number(alpha) && json_number_value(alpha) > 0 && json_number_value(alpha) <= 1e6))
        problem(problems, "lora_alpha is not a number above 0, at most 1e6");
    else if (alpha)
        c->lora_alpha = json_number_value(alpha);
    if (dropout && !(json_is_number(dropout) && json_number_value(dropout) >= 0 &&
                     json_number_value(dropout) < 1))
        problem(problems, "lora_dropout is not a number in [0, 1)");
    else if (dropout)
        c->lora_dropout = json_number_value(dropout);
    if (rslora && !json_is_boolean(rslora) && !json_is_null(rslora))
        problem(problems, "use_rslora is not true or false");
    c->use_rslora = json_is_true(rslora);
}

static void read_targets(struct peft_targets *t, struct text *problems, const json_t *v)
{
    if (!v || json_is_null(v))
        return;
    if (json_is_string(v)) {
        peft_targets_set_string(t, json_string_value(v));
        return;
    }
    bool sound = json_is_array(v) && json_array_size(v) > 0 && json_array_size(v) <= 4096;
    for (size_t i = 0; sound && i < json_array_size(v); i++)
        sound = json_is_string(json_array_get(v, i));
    if (!sound)
        problem(problems, "target_modules is not a string or a list of strings");
    for (size_t i = 0; sound && i < json_array_size(v); i++)
        peft_targets_add(t, json_string_value(json_array_get(v, i)));
}

static int read_config(struct peft_config *c, const char *folder)
{
    char *path = file_join(folder, "adapter_config.json");
    json_t *config = document_read(path);
    struct text problems = {0};
    int rc = config ? 0 : -1;
    if (config) {
        refuse_unsupported(&problems, path, config);
        read_numbers(c, &problems, config);
        read_targets(&c->target_modules, &problems, json_object_get(config, "target_modules"));
        const char *base = json_string_value(json_object_get(config, "base_model_name_or_path"));
        c->base_model_name_or_path = base ? strdup(base) : NULL;
    }
    if (problems.n)
        rc = error_set(ERR_FILE, "%s: %s", path, text_string(&problems));
    json_decref(config);
    text_free(&problems);
    free(path);
    return rc;
}

/* ---- adapter_model.safetensors ---- */

static void tensor_name(char out[TENSOR_NAME_MAX], const struct arch *a, int layer,
                        enum arch_slot slot, char which)
{
    char module[ARCH_NAME_MAX];
    arch_module_name(module, sizeof module, a, layer, slot);
    snprintf(out, TENSOR_NAME_MAX, "base_model.model.%s.lora_%c.weight", module, which);
}

/* The tensor of this name with this shape. */
static int find_tensor(const struct safetensors_entry **e, const struct safetensors *s,
                       const char *name, int64_t rows, int64_t cols)
{
    const char *file = s->file[0].path;
    char shape[SHAPE_MAX];
    *e = safetensors_find(s, name);
    if (!*e)
        return error_set(ERR_FILE, "%s: tensor %s is missing", file, name);
    if (!safetensors_is_float(*e))
        return error_set(ERR_FILE, "%s: tensor %s has dtype %s, not F32, F16 or BF16", file, name,
                         (*e)->type);
    if ((*e)->n_dims != 2 || (*e)->shape[0] != rows || (*e)->shape[1] != cols)
        return error_set(ERR_FILE, "%s: tensor %s is %s, must be [%lld, %lld]", file, name,
                         safetensors_shape(shape, sizeof shape, (*e)->shape, (*e)->n_dims),
                         (long long)rows, (long long)cols);
    return 0;
}

/* Names the first tensor that belongs to no pair. */
static int refuse_rest(const struct peft_adapter *p)
{
    for (int i = 0; i < p->weights.n; i++) {
        const struct safetensors_entry *e = &p->weights.entry[i];
        bool used = false;
        for (int k = 0; !used && k < p->n; k++)
            used = p->pair[k].a == e || p->pair[k].b == e;
        if (!used)
            return error_set(ERR_FILE,
                             "%s: tensor %s belongs to no module that target_modules match",
                             e->file, e->name);
    }
    return 0;
}

static int read_pairs(struct peft_adapter *p, const struct arch *a)
{
    const int places = a->layers * ARCH_LINEARS_MAX;
    bool *match = calloc((size_t)places, sizeof *match);
    CHECK(match, "out of memory");
    const int n = peft_match_all(match, &p->config.target_modules, a);
    if (n < 0) {
        free(match);
        return -1;
    }
    p->pair = calloc((size_t)n, sizeof *p->pair);
    CHECK(p->pair, "out of memory");
    int rc = 0;
    for (int k = 0; !rc && k < places; k++) {
        if (!match[k])
            continue;
        struct peft_pair *pair = &p->pair[p->n++];
        pair->layer = k / ARCH_LINEARS_MAX;
        pair->slot = (enum arch_slot)(k % ARCH_LINEARS_MAX);
        const struct arch_linear *l = &a->linear[pair->slot];
        char name[TENSOR_NAME_MAX];
        tensor_name(name, a, pair->layer, pair->slot, 'A');
        rc = find_tensor(&pair->a, &p->weights, name, p->config.r, l->in);
        tensor_name(name, a, pair->layer, pair->slot, 'B');
        if (!rc)
            rc = find_tensor(&pair->b, &p->weights, name, l->out, p->config.r);
    }
    free(match);
    if (!rc && p->weights.n != 2 * p->n)
        rc = refuse_rest(p);
    return rc;
}

static int open_weights(struct safetensors *s, const char *folder)
{
    char *path = file_join(folder, "adapter_model.safetensors"),
         *pickled = file_join(folder, "adapter_model.bin");
    int rc;
    if (!file_exists(path) && file_exists(pickled))
        rc = error_set(ERR_FILE,
                       "%s: PyTorch's pickled format, which can hold code, is not read; load the "
                       "adapter with peft and "
                       "save it again (save_pretrained writes adapter_model.safetensors)",
                       pickled);
    else
        rc = safetensors_open(s, path);
    free(path);
    free(pickled);
    return rc;
}

int peft_open(struct peft_adapter *p, const char *folder, const struct arch *a)
{
    *p = (struct peft_adapter){0};
    int rc = read_config(&p->config, folder);
    if (!rc)
        rc = open_weights(&p->weights, folder);
    if (!rc && read_pairs(p, a) != 0)
        rc = error_kind() == ERR_INPUT
                 ? error_set(ERR_FILE, "%s/adapter_config.json: %s", folder, error_message())
                 : -1;
    if (rc)
        peft_close(p);
    return rc;
}

void peft_close(struct peft_adapter *p)
{
    peft_config_free(&p->config);
    safetensors_close(&p->weights);
    free(p->pair);
    *p = (struct peft_adapter){0};
}

/* ---- writing ---- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* target_modules as PEFT saves them: the list, sorted; a regular expression as it is; else the last parts of the names of
 * the modules that have an adapter. */
static json_t *targets_value(const struct peft_targets *t, const struct arch *a,
                             const struct peft_out *out, int n)
{
    if (t->kind == PEFT_REGEX)
        return json_string(t->regex);
    const int most = t->n + ARCH_LINEARS_MAX;
    const char **names = calloc((size_t)most, sizeof *names);
    CHECK(names, "out of memory");
    int n_names = 0;
    for (int i = 0; t->kind == PEFT_LIST && i < t->n; i++)
        names[n_names++] = t->name[i];
    for (int slot = 0; t->kind != PEFT_LIST && slot < ARCH_LINEARS_MAX; slot++) {
        bool used = false;
        for (int i = 0; !used && i < n; i++)
            used = out[i].slot == (enum arch_slot)slot;
        if (!used)
            continue;
        const char *dot = strrchr(a->linear[slot].module, '.');
        names[n_names++] = dot ? dot + 1 : a->linear[slot].module;
    }
    qsort(names, (size_t)n_names, sizeof *names, compare_strings);
    json_t *list = json_array();
    for (int i = 0; i < n_names; i++)
        if (!i || strcmp(names[i - 1], names[i]))
            json_array_append_new(list, json_string(names[i]));
    free(names);
    return list;
}

static int write_config(const char *folder, const struct peft_config *c, const struct arch *a,
                        const struct peft_out *out, int n)
{
    const bool whole = c->lora_alpha == floor(c->lora_alpha);
    json_t *config = json_pack(
        "{s:s, s:s, s:s?, s:i, s:o, s:f, s:o, s:s, s:b, s:b, s:n, s:b, s:b}", "peft_type", "LORA",
        "task_type", "CAUSAL_LM", "base_model_name_or_path", c->base_model_name_or_path, "r", c->r,
        "lora_alpha", whole ? json_integer((json_int_t)c->lora_alpha) : json_real(c->lora_alpha),
        "lora_dropout", c->lora_dropout, "target_modules",
        targets_value(&c->target_modules, a, out, n), "bias", "none", "fan_in_fan_out", 0,
        "inference_mode", 1, "modules_to_save", "init_lora_weights", 1, "use_rslora",
        (int)c->use_rslora);
    if (!config)
        return error_set(
            ERR_FILE,
            "%s/adapter_config.json: the base model's name or target_modules are not UTF-8",
            folder);
    char *path = file_join(folder, "adapter_config.json");
    int rc = document_write(path, config);
    json_decref(config);
    free(path);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_out *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int peft_write(const char *folder, const struct peft_config *c, const struct arch *a,
               const struct peft_out *out, int n)
{
    CHECK(n > 0 && c->r > 0, "an adapter without tensors");
    TRY(file_make_folders(folder));
    TRY(write_config(folder, c, a, out, n));
    struct safetensors_out *list = calloc(2 * (size_t)n, sizeof *list);
    char(*names)[TENSOR_NAME_MAX] = calloc(2 * (size_t)n, sizeof *names);
    CHECK(list && names, "out of memory for %d adapters", n);
    for (int i = 0; i < n; i++) {
        const struct arch_linear *l = &a->linear[out[i].slot];
        tensor_name(names[2 * i], a, out[i].layer, out[i].slot, 'A');
        tensor_name(names[2 * i + 1], a, out[i].layer, out[i].slot, 'B');
        list[2 * i] = (struct safetensors_out){names[2 * i], DTYPE_F32, 2, {c->r, l->in}, out[i].a};
        list[2 * i + 1] =
            (struct safetensors_out){names[2 * i + 1], DTYPE_F32, 2, {l->out, c->r}, out[i].b};
    }
    qsort(list, 2 * (size_t)n, sizeof *list, by_name);
    char *path = file_join(folder, "adapter_model.safetensors");
    int rc = safetensors_write(path, list, 2 * n);
    free(path);
    free(names);
    free(list);
    return rc ? rc : file_sync_folder(folder);
}

/* ---- value head ---- */

int peft_write_value_head(const char *folder, const float *weight, float bias, int hidden)
{
    const struct safetensors_out list[] = {
        {"v_head.summary.bias", DTYPE_F32, 1, {1}, &bias},
        {"v_head.summary.weight", DTYPE_F32, 2, {1, hidden}, weight}};
    TRY(file_make_folders(folder));
    char *path = file_join(folder, "model.safetensors");
    int rc = safetensors_write(path, list, 2);
    free(path);
    return rc ? rc : file_sync_folder(folder);
}

static bool has_weights(const char *folder)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    bool found = false;
    for (int i = 0; !found && i < 4; i++) {
        char *path = file_join(folder, names[i]);
        found = file_exists(path);
        free(path);
    }
    return found;
}

int peft_read_value_head(float *weight, float *bias, bool *found, const char *folder, int hidden)
{
    *found = false;
    if (!has_weights(folder))
        return 0;
    struct safetensors s;
    TRY(safetensors_open(&s, folder));
    const struct safetensors_entry *w = safetensors_find(&s, "v_head.summary.weight");
    const struct safetensors_entry *b = safetensors_find(&s, "v_head.summary.bias");
    int rc = 0;
    if (w || b) {
        if (!w || !b || w->n_dims < 1 || w->shape[w->n_dims - 1] != hidden || w->n != hidden ||
            b->n != 1)
            rc = error_set(ERR_FILE,
                           "%s: the value head (v_head.summary) is not weight [1, %d] and bias [1]",
                           s.file[0].path, hidden);
        if (!rc)
            rc = safetensors_floats(weight, w, 0, hidden);
        if (!rc)
            rc = safetensors_floats(bias, b, 0, 1);
        *found = !rc;
    }
    safetensors_close(&s);
    return rc;
}
