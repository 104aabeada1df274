/* Reading and writing adapter_config.json. What PEFT writes today and what it wrote before both load, as far as it is plain LoRA on
 * linear layers. Source of the keys: peft/tuners/lora/config.py. */
#include "peft_config.h"

#include "document.h"
#include "error.h"
#include "file.h"
#include "log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 4096, LAYER_MAX = 1000000 };

static const double alpha_max = 1e6;

/* Keys that change what the tensors mean: refused where they are set. */
static const struct {
    const char *key, *what;
} unsupported[] = {
    {"use_dora", "DoRA"},
    {"lora_bias", "biases in lora_B"},
    {"layer_replication", "replicated layers"},
    {"target_parameters", "adapters on bare parameters"},
    {"trainable_token_indices", "trained token embeddings"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"enable_lora", "merged linear layers of PEFT 0.2"},
    {"megatron_config", "Megatron's parallel layers"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"arrow_config", "Arrow"},
    {"kasa_config", "KaSA"},
    {"monteclora_config", "MonteCLoRA"},
    {"velora_config", "VeLoRA"},
};

/* Keys that are read, or say nothing about the result of a trained adapter. Others are warned about. */
static const char *const understood[] = {"peft_type",
                                         "task_type",
                                         "base_model_name_or_path",
                                         "r",
                                         "lora_alpha",
                                         "lora_dropout",
                                         "target_modules",
                                         "exclude_modules",
                                         "layers_to_transform",
                                         "layers_pattern",
                                         "rank_pattern",
                                         "alpha_pattern",
                                         "modules_to_save",
                                         "fan_in_fan_out",
                                         "bias",
                                         "inference_mode",
                                         "init_lora_weights",
                                         "use_rslora",
                                         "auto_mapping",
                                         "peft_version",
                                         "revision",
                                         "runtime_config",
                                         "merge_weights",
                                         "megatron_core",
                                         "loftq_config",
                                         "eva_config",
                                         "corda_config",
                                         "lora_ga_config",
                                         "ensure_weight_tying",
                                         "qalora_group_size"};

/* Initialisations that also change the base weights: without the same change the adapter is wrong. */
static const char *const base_changing[] = {"pissa", "olora", "loftq", "corda", "lora_ga"};

/* Heads on top of the language model, and poolers before them: full copies of them are no part of it. */
static const char *const heads[] = {"score", "classifier", "pre_classifier", "pooler", "bert.pooler.dense"};

void peft_config_free(struct peft_config *c)
{
    struct peft_patterns *patterns[] = {&c->rank_pattern, &c->alpha_pattern};
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < patterns[k]->n; i++)
            free(patterns[k]->item[i].key);
        free(patterns[k]->item);
    }
    peft_targets_free(&c->target_modules);
    peft_targets_free(&c->exclude_modules);
    peft_names_free(&c->layers_to_transform.pattern);
    peft_names_free(&c->modules_to_save);
    free(c->layers_to_transform.index);
    free(c->task_type);
    free(c->base_model_name_or_path);
    free(c->revision);
    *c = (struct peft_config){0};
}

/* ---- reading ---- */

/* The file, and what is wrong with it. */
struct reader {
    const char *path;
    const json_t *config;
    struct text problems;
};

static void problem(struct reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct reader *r, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_format(&r->problems, "%s%s", r->problems.n ? "; " : "", line);
}

/* The value of a key; NULL where it is absent or null. */
static const json_t *get(const struct reader *r, const char *key)
{
    const json_t *v = json_object_get(r->config, key);
    return json_is_null(v) ? NULL : v;
}

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
static void refuse_unsupported(struct reader *r)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (is_set(get(r, unsupported[i].key)))
            problem(r, "%s (%s) is not supported", unsupported[i].key, unsupported[i].what);
    const char *type = json_string_value(get(r, "peft_type"));
    if (!type || strcmp(type, "LORA"))
        problem(r, "peft_type %.40s is not supported, LORA is", type ? type : "(missing)");
    const json_t *bias = get(r, "bias");
    if (is_set(bias) && (!json_is_string(bias) || strcmp(json_string_value(bias), "none")))
        problem(r, "bias must be \"none\": trained biases are not supported");
    const char *init = json_string_value(get(r, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof base_changing / sizeof *base_changing; i++)
        if (!strncmp(init, base_changing[i], strlen(base_changing[i])))
            problem(r,
                    "init_lora_weights %.40s changes the base weights; convert the adapter with PEFT first (save_pretrained, "
                    "path_initial_model_for_weight_conversion)",
                    init);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->config, key, value)
    {
        if (!is_understood(key) && is_set(value))
            log_warn("%s: %.60s is not known here and has no effect", r->path, key);
    }
}

static bool is_rank(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 1 && json_integer_value(v) <= PEFT_R_MAX;
}

static bool is_alpha(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) > 0 && json_number_value(v) <= alpha_max;
}

static bool read_bool(struct reader *r, const char *key)
{
    const json_t *v = get(r, key);
    if (v && !json_is_boolean(v))
        problem(r, "%s is not true or false", key);
    return json_is_true(v);
}

static char *read_string(struct reader *r, const char *key)
{
    const json_t *v = get(r, key);
    if (!v)
        return NULL;
    if (!json_is_string(v)) {
        problem(r, "%s is not a string", key);
        return NULL;
    }
    char *copy = strdup(json_string_value(v));
    CHECK(copy, "out of memory");
    return copy;
}

static void read_numbers(struct peft_config *c, struct reader *r)
{
    const json_t *rank = get(r, "r"), *alpha = get(r, "lora_alpha"), *dropout = get(r, "lora_dropout");
    c->r = 8; /* PEFT's defaults */
    c->lora_alpha = 8;
    if (rank && !is_rank(rank))
        problem(r, "r is not a whole number from 1 to %d", PEFT_R_MAX);
    else if (rank)
        c->r = (int)json_integer_value(rank);
    if (alpha && !is_alpha(alpha))
        problem(r, "lora_alpha is not a number above 0, at most %g", alpha_max);
    else if (alpha)
        c->lora_alpha = json_number_value(alpha);
    if (dropout && !(json_is_number(dropout) && json_number_value(dropout) >= 0 && json_number_value(dropout) < 1))
        problem(r, "lora_dropout is not a number in [0, 1)");
    else if (dropout)
        c->lora_dropout = json_number_value(dropout);
    c->use_rslora = read_bool(r, "use_rslora");
    read_bool(r, "fan_in_fan_out"); /* PEFT goes by the layer itself; the adapter's tensors are the same */
}

/* A list of strings. */
static void read_names(struct peft_names *names, struct reader *r, const char *key, const json_t *v)
{
    bool sound = json_is_array(v) && json_array_size(v) <= LIST_MAX;
    for (size_t i = 0; sound && i < json_array_size(v); i++)
        sound = json_is_string(json_array_get(v, i));
    if (!sound)
        problem(r, "%s is not a list of up to %d strings", key, LIST_MAX);
    for (size_t i = 0; sound && i < json_array_size(v); i++)
        peft_names_add(names, json_string_value(json_array_get(v, i)));
}

static void read_targets(struct peft_targets *t, struct reader *r, const char *key)
{
    const json_t *v = get(r, key);
    if (!v)
        return;
    if (json_is_string(v)) {
        peft_targets_set_string(t, json_string_value(v));
        return;
    }
    t->kind = PEFT_LIST;
    read_names(&t->names, r, key, v);
}

static void read_layers(struct peft_config *c, struct reader *r)
{
    struct peft_layers *l = &c->layers_to_transform;
    const json_t *v = get(r, "layers_to_transform"), *pattern = get(r, "layers_pattern");
    const bool list = json_is_array(v);
    const size_t n = list ? json_array_size(v) : v != NULL;
    bool sound = n <= LIST_MAX;
    l->index = calloc(n + 1, sizeof *l->index);
    CHECK(l->index, "out of memory");
    for (size_t i = 0; sound && i < n; i++) {
        const json_t *index = list ? json_array_get(v, i) : v;
        sound = json_is_integer(index) && json_integer_value(index) >= 0 && json_integer_value(index) <= LAYER_MAX;
        if (sound)
            l->index[l->n++] = (int)json_integer_value(index);
    }
    if (!sound)
        problem(r, "layers_to_transform is not a layer's number, or a list of up to %d", LIST_MAX);
    if (json_is_string(pattern) && is_set(pattern))
        peft_names_add(&l->pattern, json_string_value(pattern));
    else if (is_set(pattern))
        read_names(&l->pattern, r, "layers_pattern", pattern);
    if (l->pattern.n && !v)
        problem(r, "layers_pattern without layers_to_transform");
    if (v && json_is_string(get(r, "target_modules")))
        problem(r, "layers_to_transform needs target_modules as a list, not a string");
}

static void read_patterns(struct peft_patterns *p, struct reader *r, const char *key, bool (*is_value)(const json_t *),
                          const char *values)
{
    const json_t *v = get(r, key);
    const char *name;
    json_t *value;
    if (!v)
        return;
    if (!json_is_object(v) || json_object_size(v) > LIST_MAX) {
        problem(r, "%s is not an object of up to %d names", key, LIST_MAX);
        return;
    }
    p->item = calloc(json_object_size(v) + 1, sizeof *p->item);
    CHECK(p->item, "out of memory");
    json_object_foreach((json_t *)v, name, value)
    {
        if (!is_value(value)) {
            problem(r, "%s: %.100s is not %s", key, name, values);
            continue;
        }
        struct peft_pattern *item = &p->item[p->n++];
        *item = (struct peft_pattern){strdup(name), json_number_value(value)};
        CHECK(item->key, "out of memory");
    }
}

static void read_modules_to_save(struct peft_config *c, struct reader *r)
{
    const json_t *v = get(r, "modules_to_save");
    if (v)
        read_names(&c->modules_to_save, r, "modules_to_save", v);
    for (int i = 0; i < c->modules_to_save.n; i++) {
        bool head = false;
        for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
            head |= !strcmp(c->modules_to_save.item[i], heads[k]);
        if (!head)
            problem(r,
                    "modules_to_save has %.100s: a full copy of a part of the language model is not supported; merge the adapter "
                    "with PEFT (merge_and_unload, save_pretrained), and give the result as model.path",
                    c->modules_to_save.item[i]);
    }
}

int peft_config_read(struct peft_config *c, const char *folder)
{
    *c = (struct peft_config){0};
    char *path = file_join(folder, "adapter_config.json");
    json_t *config = document_read(path);
    struct reader r = {path, config, {0}};
    int rc = config ? 0 : -1;
    if (config) {
        refuse_unsupported(&r);
        read_numbers(c, &r);
        read_targets(&c->target_modules, &r, "target_modules");
        read_targets(&c->exclude_modules, &r, "exclude_modules");
        if (c->target_modules.kind == PEFT_LIST && !c->target_modules.names.n)
            problem(&r, "target_modules names no module");
        if (c->exclude_modules.kind == PEFT_ALL_LINEAR)
            problem(&r, "exclude_modules leaves no module");
        read_layers(c, &r);
        read_patterns(&c->rank_pattern, &r, "rank_pattern", is_rank, "a whole number from 1 to 4096");
        read_patterns(&c->alpha_pattern, &r, "alpha_pattern", is_alpha, "a number above 0, at most 1e6");
        read_modules_to_save(c, &r);
        c->task_type = read_string(&r, "task_type");
        c->base_model_name_or_path = read_string(&r, "base_model_name_or_path");
        c->revision = read_string(&r, "revision");
    }
    if (r.problems.n)
        rc = error_set(ERR_FILE, "%s: %s", path, text_string(&r.problems));
    if (rc)
        peft_config_free(c);
    json_decref(config);
    text_free(&r.problems);
    free(path);
    return rc;
}

/* ---- writing ---- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *names_list(const struct peft_names *names)
{
    json_t *list = json_array();
    bool sound = list != NULL;
    for (int i = 0; sound && i < names->n; i++)
        sound = json_array_append_new(list, json_string(names->item[i])) == 0;
    if (sound)
        return list;
    json_decref(list);
    return NULL;
}

/* Sorted, without repetitions: PEFT saves its sets so. NULL for what is not UTF-8. */
static json_t *sorted_list(const struct peft_names *names)
{
    struct peft_names sorted = {calloc((size_t)names->n + 1, sizeof *sorted.item), 0};
    CHECK(sorted.item, "out of memory");
    memcpy(sorted.item, names->item, (size_t)names->n * sizeof *sorted.item);
    qsort(sorted.item, (size_t)names->n, sizeof *sorted.item, compare_strings);
    for (int i = 0; i < names->n; i++)
        if (!sorted.n || strcmp(sorted.item[sorted.n - 1], sorted.item[i]))
            sorted.item[sorted.n++] = sorted.item[i];
    json_t *list = names_list(&sorted);
    free(sorted.item);
    return list;
}

static const char *last_part(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

/* What names a module to PEFT: the last part of its path, or all of it within the layer where a pooler, which has no adapter, ends
 * in the same (BERT's "dense"). */
static const char *target_name(const struct arch *a, const char *module)
{
    return a->pooler && !strcmp(last_part(module), last_part(arch_pooler_module(a))) ? module : last_part(module);
}

/* target_modules as PEFT saves them: the list, sorted; a regular expression as it is; else the names of the modules that have an
 * adapter. */
static json_t *targets_value(const struct peft_targets *t, const struct arch *a, const bool slot[ARCH_LINEARS_MAX])
{
    if (t->kind == PEFT_REGEX)
        return json_string(t->regex);
    if (t->kind == PEFT_LIST)
        return sorted_list(&t->names);
    struct peft_names names = {0};
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        if (slot[i])
            peft_names_add(&names, target_name(a, a->linear[i].module));
    json_t *list = sorted_list(&names);
    peft_names_free(&names);
    return list;
}

static json_t *number(double x)
{
    return x == floor(x) ? json_integer((json_int_t)x) : json_real(x);
}

static json_t *patterns_value(const struct peft_patterns *p)
{
    json_t *object = json_object();
    bool sound = object != NULL;
    for (int i = 0; sound && i < p->n; i++)
        sound = json_object_set_new(object, p->item[i].key, number(p->item[i].value)) == 0;
    if (sound)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *layers_value(const struct peft_layers *l)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++)
        json_array_append_new(list, json_integer(l->index[i]));
    return list;
}

/* What is written where it is set alone. Returns whether all of it is UTF-8. */
static bool put_refinements(json_t *config, const struct peft_config *c, const struct arch *a)
{
    static const bool none[ARCH_LINEARS_MAX];
    bool sound = true;
    if (c->exclude_modules.kind != PEFT_DEFAULT)
        sound &= json_object_set_new(config, "exclude_modules", targets_value(&c->exclude_modules, a, none)) == 0;
    if (c->layers_to_transform.n)
        sound &= json_object_set_new(config, "layers_to_transform", layers_value(&c->layers_to_transform)) == 0;
    if (c->layers_to_transform.pattern.n)
        sound &= json_object_set_new(config, "layers_pattern", names_list(&c->layers_to_transform.pattern)) == 0;
    if (c->rank_pattern.n)
        sound &= json_object_set_new(config, "rank_pattern", patterns_value(&c->rank_pattern)) == 0;
    if (c->alpha_pattern.n)
        sound &= json_object_set_new(config, "alpha_pattern", patterns_value(&c->alpha_pattern)) == 0;
    if (c->revision)
        sound &= json_object_set_new(config, "revision", json_string(c->revision)) == 0;
    return sound;
}

int peft_config_write(const char *folder, const struct peft_config *c, const struct arch *a, const bool slot[ARCH_LINEARS_MAX],
                      const struct peft_names *saved)
{
    json_t *config = json_pack("{s:s, s:s, s:s?, s:i, s:o, s:f, s:o, s:s, s:b, s:b, s:o, s:b, s:b}", "peft_type", "LORA",
                               "task_type", c->task_type ? c->task_type : "CAUSAL_LM", "base_model_name_or_path",
                               c->base_model_name_or_path, "r", c->r, "lora_alpha", number(c->lora_alpha), "lora_dropout",
                               c->lora_dropout, "target_modules", targets_value(&c->target_modules, a, slot), "bias", "none",
                               "fan_in_fan_out", (int)a->transposed, "inference_mode", 1, "modules_to_save",
                               saved && saved->n ? sorted_list(saved) : json_null(), "init_lora_weights", 1, "use_rslora",
                               (int)c->use_rslora);
    if (!config || !put_refinements(config, c, a)) {
        json_decref(config);
        return error_set(ERR_FILE, "%s/adapter_config.json: a name, of the base model or of modules, is not UTF-8", folder);
    }
    char *path = file_join(folder, "adapter_config.json");
    int rc = document_write(path, config);
    json_decref(config);
    free(path);
    return rc;
}
