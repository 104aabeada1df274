/* Model folders: what config.json promises is compared with what the weights hold, before anything is loaded. */
#include "hf_folder.h"

#include "error.h"
#include "file.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEMS_TOLD = 12, UNEXPECTED_TOLD = 3 };

/* Copied as they are into a folder that we write. */
static const char *const other_files[] = {"tokenizer.json",       "tokenizer_config.json", "special_tokens_map.json",
                                          "tokenizer.model",      "vocab.json",            "merges.txt",
                                          "vocab.txt",            "added_tokens.json",     "chat_template.jinja",
                                          "chat_template.json",   "generation_config.json", "additional_chat_templates/tool_use.jinja"};

/* By the HF name, else without the family's prefix (files of the bare model). */
static const struct safetensors_entry *find_with_prefix_or_without(const struct safetensors *s, const struct arch *a,
                                                                   const char *name)
{
    const struct safetensors_entry *e = safetensors_find(s, name);
    const size_t n = strlen(arch_prefix(a));
    if (!e && !strncmp(name, arch_prefix(a), n))
        e = safetensors_find(s, name + n);
    return e;
}

/* Norms of old BERT files have TensorFlow's names: gamma and beta. */
static const struct safetensors_entry *find(const struct safetensors *s, const struct arch *a, const char *name)
{
    static const char *const names[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
    const struct safetensors_entry *e = find_with_prefix_or_without(s, a, name);
    for (int i = 0; !e && i < 2; i++) {
        char old[ARCH_NAME_MAX];
        if (!text_ends(name, names[i][0]))
            continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(strlen(name) - strlen(names[i][0])), name, names[i][1]);
        e = find_with_prefix_or_without(s, a, old);
    }
    return e;
}

struct problems {
    struct text text;
    int n;
};

static void tell(struct problems *p, const char *line)
{
    if (p->n++ < PROBLEMS_TOLD)
        text_format(&p->text, "%s%s", p->n > 1 ? "; " : "", line);
}

static void check_tensor(struct problems *p, const struct arch_tensor *t,
                         const struct safetensors_entry *e)
{
    char line[1024], want[64], have[256];
    safetensors_shape(want, sizeof want, t->shape, t->n_dims);
    if (!e) {
        snprintf(line, sizeof line, "tensor %s %s is missing", t->name, want);
        tell(p, line);
        return;
    }
    bool same = e->n_dims == t->n_dims;
    for (int i = 0; same && i < t->n_dims; i++)
        same = e->shape[i] == t->shape[i];
    if (!same) {
        snprintf(line, sizeof line, "tensor %s is %s, config.json needs %s", e->name,
                 safetensors_shape(have, sizeof have, e->shape, e->n_dims), want);
        tell(p, line);
    }
    if (!safetensors_is_float(e)) {
        snprintf(line, sizeof line, "tensor %s has dtype %s, not F32, F16 or BF16", e->name,
                 e->type);
        tell(p, line);
    }
}

/* Tensors that files may hold beside those of the architecture: buffers of old files, and heads for other tasks. */
static bool may_ignore(const struct arch *a, const char *name)
{
    static const char *const ends[] = {".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias",
                                       ".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached",
                                       "embeddings.position_ids", "embeddings.token_type_ids"};
    static const char *const heads[] = {"v_head.", "score.", "lm_head.", "embed_out.", "classifier.", "pre_classifier.", "cls.",
                                        "qa_outputs.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pooler.",
                                        "bert.pooler.", "roberta.pooler."};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (text_ends(name, ends[i]))
            return true;
    const size_t n = strlen(arch_head_module(a));
    if (a->use == ARCH_LANGUAGE_MODEL && !strncmp(name, arch_head_module(a), n) && name[n] == '.')
        return a->tied_head && !strcmp(name + n, ".weight");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (!strncmp(name, heads[i], strlen(heads[i])))
            return true;
    return false;
}

static int compare_pointers(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    return (x > y) - (x < y);
}

/* One warning for all tensors of the file that nothing asks for. used: their entries, [n]. */
static void warn_unexpected(const struct hf_folder *f, const struct safetensors_entry **used, int n)
{
    struct text names = {0};
    int unexpected = 0;
    qsort(used, (size_t)n, sizeof *used, compare_pointers);
    for (int i = 0; i < f->weights.n; i++) {
        const struct safetensors_entry *e = &f->weights.entry[i];
        if (bsearch(&e, used, (size_t)n, sizeof *used, compare_pointers) ||
            may_ignore(&f->arch, e->name))
            continue;
        if (unexpected++ < UNEXPECTED_TOLD)
            text_format(&names, "%s%s", unexpected > 1 ? ", " : "", e->name);
    }
    if (unexpected)
        log_warn("%s: %d tensors that %s does not have are not used: %s%s", f->path, unexpected,
                 arch_model_type(&f->arch), text_string(&names),
                 unexpected > UNEXPECTED_TOLD ? ", .." : "");
    text_free(&names);
}

/* A pooler that classifiers have and the bare encoder's files lack is new, as in transformers. */
static bool is_new(const struct hf_folder *f, const struct arch_tensor *t)
{
    return t->role == ROLE_POOLER && f->arch.use == ARCH_BACKBONE && !hf_folder_tensor(f, t);
}

static int check_weights(const struct hf_folder *f)
{
    struct problems p = {0};
    const int n = arch_tensors(&f->arch);
    const struct safetensors_entry **used = calloc((size_t)n, sizeof *used);
    CHECK(used, "out of memory for %d tensors", n);
    for (int i = 0; i < n; i++) {
        struct arch_tensor t;
        arch_tensor(&t, &f->arch, i);
        used[i] = hf_folder_tensor(f, &t);
        if (!is_new(f, &t))
            check_tensor(&p, &t, used[i]);
    }
    int rc = 0;
    if (p.n > PROBLEMS_TOLD)
        text_format(&p.text, "; and %d more", p.n - PROBLEMS_TOLD);
    if (p.n)
        rc = error_set(ERR_FILE, "%s: weights do not fit config.json: %s",
                       f->weights.n_files == 1 ? f->weights.file[0].path : f->path,
                       text_string(&p.text));
    else
        warn_unexpected(f, used, n);
    free(used);
    text_free(&p.text);
    return rc;
}

int hf_folder_open(struct hf_folder *f, const char *folder, enum arch_use use)
{
    *f = (struct hf_folder){0};
    TRY(arch_read(&f->arch, folder, use));
    TRY(safetensors_open(&f->weights, folder));
    f->path = strdup(folder);
    CHECK(f->path, "out of memory");
    int rc = check_weights(f);
    if (rc)
        hf_folder_close(f);
    return rc;
}

void hf_folder_close(struct hf_folder *f)
{
    safetensors_close(&f->weights);
    free(f->path);
    *f = (struct hf_folder){0};
}

const struct safetensors_entry *hf_folder_tensor(const struct hf_folder *f,
                                                 const struct arch_tensor *t)
{
    return hf_folder_named(f, t->name);
}

const struct safetensors_entry *hf_folder_named(const struct hf_folder *f, const char *name)
{
    return find(&f->weights, &f->arch, name);
}

const struct safetensors_entry *hf_folder_find(const struct hf_folder *f, enum arch_role role,
                                               int layer, enum arch_slot slot, bool bias)
{
    struct arch_tensor t;
    return arch_find_tensor(&t, &f->arch, role, layer, slot, bias) ? hf_folder_tensor(f, &t) : NULL;
}

/* ---- writing ---- */

static int copy_if_there(const char *folder, const char *source, const char *name)
{
    char *from = file_join(source, name), *to = file_join(folder, name), *within = strdup(to);
    CHECK(within, "out of memory");
    *strrchr(within, '/') = 0;
    const bool there = file_exists(from);
    int rc = there ? file_make_folders(within) : 0;
    if (there && !rc)
        rc = file_copy(to, from);
    free(within);
    free(from);
    free(to);
    return rc;
}

int hf_folder_copy_files(const char *folder, const char *source)
{
    for (size_t i = 0; i < sizeof other_files / sizeof *other_files; i++)
        TRY(copy_if_there(folder, source, other_files[i]));
    return 0;
}

int hf_folder_write_config(const char *folder, const struct arch *a, enum dtype dtype,
                           const char *source)
{
    TRY(file_make_folders(folder));
    TRY(arch_write_config(a, folder, dtype));
    return source ? hf_folder_copy_files(folder, source) : 0;
}

struct safetensors_out *hf_folder_list(const struct arch *a, enum dtype dtype,
                                       struct arch_tensor **names)
{
    const int n = arch_tensors(a);
    struct safetensors_out *list = calloc((size_t)n, sizeof *list);
    *names = calloc((size_t)n, sizeof **names);
    CHECK(list && *names, "out of memory for %d tensors", n);
    for (int i = 0; i < n; i++) {
        struct arch_tensor *t = &(*names)[i];
        arch_tensor(t, a, i);
        list[i] = (struct safetensors_out){.name = t->name, .dtype = dtype, .n_dims = t->n_dims};
        memcpy(list[i].shape, t->shape, sizeof t->shape);
    }
    return list;
}

int hf_folder_write(const char *folder, const struct arch *a, const struct safetensors_out *tensors,
                    int n, const char *source)
{
    CHECK(n > 0, "%s: a model without tensors", folder);
    TRY(hf_folder_write_config(folder, a, tensors[0].dtype, source));
    char *path = file_join(folder, "model.safetensors");
    int rc = safetensors_write(path, tensors, n);
    free(path);
    return rc ? rc : file_sync_folder(folder);
}
