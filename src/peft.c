/* The tensors of adapter folders, and the value head beside them. */
#include "peft.h"

#include "error.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_NAME_MAX = ARCH_NAME_MAX + 64, SHAPE_MAX = 256 };

static const char prefix[] = "base_model.model."; /* of every tensor's name in the model */

/* ---- adapter_model.safetensors ---- */

static void tensor_name(char out[TENSOR_NAME_MAX], const struct arch *a, int layer,
                        enum arch_slot slot, char which)
{
    char module[ARCH_NAME_MAX];
    arch_module_name(module, sizeof module, a, layer, slot);
    snprintf(out, TENSOR_NAME_MAX, "%s%s.lora_%c.weight", prefix, module, which);
}

static int not_float(const struct safetensors_entry *e)
{
    return error_set(ERR_FILE, "%s: tensor %s has dtype %s, not F32, F16 or BF16", e->file, e->name, e->type);
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
        return not_float(*e);
    if ((*e)->n_dims != 2 || (*e)->shape[0] != rows || (*e)->shape[1] != cols)
        return error_set(ERR_FILE, "%s: tensor %s is %s, must be [%lld, %lld]", file, name,
                         safetensors_shape(shape, sizeof shape, (*e)->shape, (*e)->n_dims),
                         (long long)rows, (long long)cols);
    return 0;
}

static bool in_pairs(const struct peft_adapter *p, const struct safetensors_entry *e)
{
    for (int k = 0; k < p->n; k++)
        if (p->pair[k].a == e || p->pair[k].b == e)
            return true;
    return false;
}

/* Is it the module, or in it? */
static bool is_of_module(const char *name, const char *module)
{
    const size_t n = strlen(module);
    return !strncmp(name, module, n) && name[n] == '.';
}

/* PEFT saves every module whose path ends with one of the names: "pre_classifier" for "classifier". */
static bool is_saved(const struct peft_config *c, const char *name)
{
    for (int i = 0; i < c->modules_to_save.n; i++) {
        const char *module = c->modules_to_save.item[i];
        for (const char *at = name; *module && (at = strstr(at, module)); at++)
            if (at[strlen(module)] == '.')
                return true;
    }
    return false;
}

/* The tensors that belong to no pair: those of modules_to_save; the first other one is an error. */
static int read_saved(struct peft_adapter *p, const struct arch *a)
{
    const size_t lead = strlen(prefix);
    p->saved = calloc((size_t)(p->weights.n - 2 * p->n) + 1, sizeof *p->saved);
    CHECK(p->saved, "out of memory");
    for (int i = 0; i < p->weights.n; i++) {
        const struct safetensors_entry *e = &p->weights.entry[i];
        if (in_pairs(p, e))
            continue;
        const char *name = strncmp(e->name, prefix, lead) ? "" : e->name + lead;
        if (is_of_module(name, arch_embedding_module(a)) ||
            (a->use == ARCH_LANGUAGE_MODEL && is_of_module(name, arch_head_module(a))))
            return error_set(ERR_FILE,
                             "%s: tensor %s is a copy of a weight of the model, which is not supported; merge the adapter with PEFT "
                             "(merge_and_unload, save_pretrained), and give the result as model.path",
                             e->file, e->name);
        if (!is_saved(&p->config, name))
            return error_set(ERR_FILE, "%s: tensor %s belongs to no linear layer of the blocks that target_modules match, nor to modules_to_save",
                             e->file, e->name);
        if (!safetensors_is_float(e))
            return not_float(e);
        p->saved[p->n_saved++] = (struct peft_saved){name, e};
    }
    return 0;
}

const struct safetensors_entry *peft_find_saved(const struct peft_adapter *p, const char *name)
{
    for (int i = 0; i < p->n_saved; i++)
        if (!strcmp(p->saved[i].name, name))
            return p->saved[i].entry;
    return NULL;
}

static int read_pair(struct peft_pair *pair, const struct peft_adapter *p, const struct arch *a)
{
    const struct arch_linear *l = &a->linear[pair->slot];
    char name[TENSOR_NAME_MAX], module[ARCH_NAME_MAX];
    arch_module_name(module, sizeof module, a, pair->layer, pair->slot);
    TRY(peft_size(&pair->size, &p->config, module));
    tensor_name(name, a, pair->layer, pair->slot, 'A');
    TRY(find_tensor(&pair->a, &p->weights, name, pair->size.r, l->in));
    tensor_name(name, a, pair->layer, pair->slot, 'B');
    return find_tensor(&pair->b, &p->weights, name, l->out, pair->size.r);
}

static int read_pairs(struct peft_adapter *p, const struct arch *a)
{
    const int places = a->layers * ARCH_LINEARS_MAX;
    bool *match = calloc((size_t)places, sizeof *match);
    CHECK(match, "out of memory");
    const int n = peft_match_all(match, &p->config, a);
    p->pair = calloc(n > 0 ? (size_t)n : 1, sizeof *p->pair);
    CHECK(p->pair, "out of memory");
    int rc = n > 0 ? 0 : -1;
    for (int k = 0; !rc && k < places; k++)
        if (match[k]) {
            struct peft_pair *pair = &p->pair[p->n++];
            *pair = (struct peft_pair){.layer = k / ARCH_LINEARS_MAX, .slot = (enum arch_slot)(k % ARCH_LINEARS_MAX)};
            rc = read_pair(pair, p, a);
        }
    free(match);
    return rc ? rc : read_saved(p, a);
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
    int rc = peft_config_read(&p->config, folder);
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
    free(p->saved);
    *p = (struct peft_adapter){0};
}

/* ---- writing ---- */

static int by_name(const void *a, const void *b)
{
    const struct safetensors_out *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The modules that tensors belong to, which lie one behind the other: "classifier" of "classifier.dense.weight", as PEFT names
 * heads; within the model proper the module itself, "bert.pooler.dense". */
static void saved_modules(struct peft_names *names, const struct arch *a, const struct safetensors_out *saved, int n)
{
    for (int i = 0; i < n; i++) {
        char *module = strdup(saved[i].name);
        CHECK(module, "out of memory");
        const bool within = !strncmp(module, arch_prefix(a), strlen(arch_prefix(a)));
        char *end = within ? strrchr(module, '.') : strchr(module, '.');
        if (end)
            *end = 0;
        if (!names->n || strcmp(names->item[names->n - 1], module) != 0)
            peft_names_add(names, module);
        free(module);
    }
}

static int write_config(const char *folder, const struct peft_config *c, const struct arch *a, const struct peft_out *out, int n,
                        const struct safetensors_out *saved, int n_saved)
{
    bool slot[ARCH_LINEARS_MAX] = {false};
    struct peft_names modules = {0};
    for (int i = 0; i < n; i++)
        slot[out[i].slot] = true;
    saved_modules(&modules, a, saved, n_saved);
    int rc = peft_config_write(folder, c, a, slot, &modules);
    peft_names_free(&modules);
    return rc;
}

int peft_write(const char *folder, const struct peft_config *c, const struct arch *a, const struct peft_out *out, int n,
               const struct safetensors_out *saved, int n_saved)
{
    CHECK(n > 0 && c->r > 0, "an adapter without tensors");
    TRY(file_make_folders(folder));
    TRY(write_config(folder, c, a, out, n, saved, n_saved));
    const int all = 2 * n + n_saved;
    struct safetensors_out *list = calloc((size_t)all, sizeof *list);
    char(*names)[TENSOR_NAME_MAX] = calloc((size_t)all, sizeof *names);
    CHECK(list && names, "out of memory for %d adapters", n);
    int rc = 0;
    for (int i = 0; !rc && i < n; i++) {
        const struct arch_linear *l = &a->linear[out[i].slot];
        struct peft_size size;
        char module[ARCH_NAME_MAX];
        arch_module_name(module, sizeof module, a, out[i].layer, out[i].slot);
        rc = peft_size(&size, c, module);
        tensor_name(names[2 * i], a, out[i].layer, out[i].slot, 'A');
        tensor_name(names[2 * i + 1], a, out[i].layer, out[i].slot, 'B');
        list[2 * i] = (struct safetensors_out){names[2 * i], DTYPE_F32, 2, {size.r, l->in}, out[i].a, NULL};
        list[2 * i + 1] = (struct safetensors_out){names[2 * i + 1], DTYPE_F32, 2, {l->out, size.r}, out[i].b, NULL};
    }
    for (int i = 0; i < n_saved; i++) {
        list[2 * n + i] = saved[i];
        list[2 * n + i].name = names[2 * n + i];
        snprintf(names[2 * n + i], TENSOR_NAME_MAX, "%s%s", prefix, saved[i].name);
    }
    qsort(list, (size_t)all, sizeof *list, by_name);
    char *path = file_join(folder, "adapter_model.safetensors");
    if (!rc)
        rc = safetensors_write(path, list, all);
    free(path);
    free(names);
    free(list);
    return rc ? rc : file_sync_folder(folder);
}

/* ---- value head ---- */

int peft_write_value_head(const char *folder, const float *weight, float bias, int hidden)
{
    const struct safetensors_out list[] = {
        {"v_head.summary.bias", DTYPE_F32, 1, {1}, &bias, NULL},
        {"v_head.summary.weight", DTYPE_F32, 2, {1, hidden}, weight, NULL}};
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
