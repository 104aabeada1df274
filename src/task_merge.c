/* task = "merge": the adapters of model.adapter in the weights of model.path, as a Hugging Face folder. It is written beside its name
 * and renamed when all of it is there. Every rank writes shards of its own. */
#include "document.h"
#include "error.h"
#include "file.h"
#include "labels.h"
#include "log.h"
#include "merge.h"
#include "placement.h"
#include "run.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>

struct job {
    const struct settings *settings;
    struct comm *comm;
    struct run run;
    struct hf_folder folder;
    struct peft_adapter adapter;
    struct merge merge;
    char *model, *partial; /* where the folder goes, and is written */
};

/* config.json's and save_pretrained's names of the types */
static const char *dtype_word(enum dtype t)
{
    return t == DTYPE_F32 ? "float32" : t == DTYPE_F16 ? "float16" : "bfloat16";
}

/* What the folder holds, by the class that config.json names. */
static enum arch_use use_of(const char *folder)
{
    char *path = file_join(folder, "config.json");
    json_t *config = document_read(path);
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    enum arch_use use = ARCH_LANGUAGE_MODEL;
    if (name && text_ends(name, "ForSequenceClassification"))
        use = ARCH_CLASSIFIER;
    else if (name && !text_ends(name, "ForCausalLM") && !text_ends(name, "LMHeadModel"))
        use = ARCH_BACKBONE;
    error_clear(); /* what is wrong with the file is said where it is read in full */
    json_decref(config);
    free(path);
    return use;
}

static int open_files(struct job *j)
{
    static const int dtypes[] = {[MERGE_DTYPE_AUTO] = -1,
                                 [MERGE_DTYPE_FLOAT32] = DTYPE_F32,
                                 [MERGE_DTYPE_FLOAT16] = DTYPE_F16,
                                 [MERGE_DTYPE_BFLOAT16] = DTYPE_BF16};
    const struct settings *s = j->settings;
    const struct merge_options o = {s->merge.base == MERGE_BASE_DEQUANTIZED, dtypes[s->merge.dtype],
                                    placement_threads(j->comm, (int)s->run.threads, NULL)};
    if (s->model.init == MODEL_INIT_RANDOM)
        return error_set(ERR_INPUT, "model.init = \"random\": there are no weights to merge into");
    TRY(hf_folder_open(&j->folder, s->model.path, use_of(s->model.path)));
    TRY(peft_open(&j->adapter, s->model.adapter, &j->folder.arch));
    return merge_open(&j->merge, &j->folder, &j->adapter, &o);
}

static void print_plan(const struct job *j)
{
    const struct merge *m = &j->merge;
    const int n = m->folder->weights.n_files;
    uint64_t all = 0, most = 0;
    for (int i = 0; i < n; i++) {
        const uint64_t bytes = merge_shard_bytes(m, i);
        all += bytes;
        most = bytes > most ? bytes : most;
    }
    log_line("merge of %d adapted layers into the %s weights", m->adapter->n, m->options.dequantized ? "dequantized" : "original");
    for (int i = 0; i < m->adapter->n_saved; i++)
        log_line("  with the trained head's %s", m->adapter->saved[i].name);
    log_line("  writes %s: %d file%s of weights, %llu bytes (%.3f GiB) in %s; the largest %llu bytes", j->model, n, n > 1 ? "s" : "",
             (unsigned long long)all, (double)all / 1073741824.0,
             m->options.dtype >= 0 ? dtype_word(m->model_dtype) : "the types of the source", (unsigned long long)most);
    log_line("  needs %zu bytes of memory a rank; up to %d rank%s have work", merge_memory_bytes(m), n, n > 1 ? "s" : "");
}

/* ---- the files beside the weights ---- */

/* What the config.json beside an adapter says of its classes (classifier_folder.h). */
static int copy_classes(json_t *config, const char *adapter)
{
    static const char *const keys[] = {"id2label", "label2id", "num_labels", "problem_type", "pad_token_id"};
    char *path = file_join(adapter, "config.json");
    json_t *given = file_exists(path) ? document_read(path) : json_object();
    for (size_t i = 0; given && i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(given, keys[i]))
            json_object_set(config, keys[i], json_object_get(given, keys[i]));
    const int rc = given ? 0 : -1;
    json_decref(given);
    free(path);
    return rc;
}

/* Names of the labels, where config.json has another number of them. */
static void set_labels(json_t *config, int n)
{
    struct labels labels;
    if (json_object_size(json_object_get(config, "id2label")) == (size_t)n)
        return;
    labels_numbered(&labels, n);
    labels_put(config, &labels);
    json_object_del(config, "num_labels"); /* what id2label says */
    labels_free(&labels);
}

/* The source's file as it is, unless the type of the weights or a new head asks for a change. */
static int write_config(const struct job *j)
{
    const struct merge *m = &j->merge;
    char *from = file_join(j->folder.path, "config.json"), *to = file_join(j->partial, "config.json");
    json_t *config = document_read(from), *before = json_deep_copy(config);
    int rc = config ? 0 : -1;
    if (!rc) {
        const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype"; /* of transformers 5, and 4 and 5 */
        json_object_set_new(config, key, json_string(dtype_word(m->model_dtype)));
        if (m->score) {
            json_object_set_new(config, "architectures", json_pack("[s]", arch_classifier_class(&j->folder.arch)));
            rc = copy_classes(config, j->settings->model.adapter);
            set_labels(config, (int)m->score->shape[0]);
        }
    }
    if (!rc)
        rc = json_equal(config, before) ? file_copy(to, from) : document_write(to, config);
    json_decref(config);
    json_decref(before);
    free(from);
    free(to);
    return rc;
}

/* The source's index with the new total and the added heads. */
static int write_index(const struct job *j)
{
    const struct merge *m = &j->merge;
    const int n = m->folder->weights.n_files;
    char *from = file_join(j->folder.path, "model.safetensors.index.json"),
         *to = file_join(j->partial, "model.safetensors.index.json");
    const bool single = n == 1 && !strcmp(merge_shard_name(m, 0), "model.safetensors");
    json_t *index = single ? NULL : document_read(from);
    int rc = single || index ? 0 : -1;
    if (index) {
        json_t *metadata = json_object_get(index, "metadata"), *map = json_object_get(index, "weight_map");
        uint64_t bytes = 0;
        for (int i = 0; i < n; i++)
            bytes += merge_shard_bytes(m, i);
        if (json_is_object(metadata))
            json_object_set_new(metadata, "total_size", json_integer((json_int_t)bytes));
        for (int i = 0; i < m->n_added; i++)
            json_object_set_new(map, m->added[i]->name, json_string(merge_shard_name(m, n - 1)));
        rc = document_write(to, index);
    }
    json_decref(index);
    free(from);
    free(to);
    return rc;
}

/* ---- the folder ---- */

static int begin_folder(const struct job *j)
{
    if (file_exists(j->model))
        return error_set(ERR_INPUT, "%s exists: choose another run.output_dir, or take it away", j->model);
    TRY(file_remove_tree(j->partial)); /* of a merge that was killed */
    return file_make_folders(j->partial);
}

static int end_folder(const struct job *j)
{
    TRY(write_index(j));
    TRY(write_config(j));
    TRY(hf_folder_copy_files(j->partial, j->folder.path));
    TRY(file_sync_folder(j->partial));
    return file_publish(j->settings->run.output_dir, j->partial, j->model, j->partial);
}

/* Shards in rounds of one a rank: every round all agree whether to go on. */
static int write_shards(struct job *j)
{
    const int n = j->folder.weights.n_files, size = comm_size(j->comm), rank = comm_rank(j->comm);
    for (int first = 0; first < n; first += size) {
        const char *why = run_should_stop(&j->run, first);
        if (why)
            return error_set(ERR_STOP, "stopped by %s; nothing is left of the merge: start it again", why);
        TRY(comm_agree(j->comm, first + rank < n ? merge_write_shard(&j->merge, first + rank, j->partial) : 0));
        log_line("shard %d of %d", first + size < n ? first + size : n, n);
    }
    return 0;
}

static int merge(struct job *j, const struct options *o)
{
    const bool first = comm_rank(j->comm) == 0;
    TRY(comm_agree(j->comm, open_files(j)));
    j->model = run_path(&j->run, "model");
    j->partial = run_path(&j->run, "model.partial");
    print_plan(j);
    if (o->plan)
        return 0;
    TRY(comm_agree(j->comm, first ? begin_folder(j) : 0));
    int rc = write_shards(j);
    if (!rc)
        rc = comm_agree(j->comm, first ? end_folder(j) : 0);
    if (rc && first)
        file_remove_tree(j->partial);
    TRY(rc);
    TRY(run_write_settings(&j->run));
    log_line("wrote %s", j->model);
    return 0;
}

int task_merge(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct job j = {.settings = s, .comm = comm};
    int rc = run_open(&j.run, s, comm, o->resume);
    if (!rc)
        rc = merge(&j, o);
    merge_close(&j.merge);
    peft_close(&j.adapter);
    hf_folder_close(&j.folder);
    free(j.model);
    free(j.partial);
    run_close(&j.run);
    return rc;
}
