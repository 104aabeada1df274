/* A frozen adapter of the policy's model, and a score head that takes the model's place for its own while it scores. */
#include "reward_adapter.h"

#include "document.h"
#include "engine.h"
#include "error.h"
#include "file.h"
#include "labels.h"
#include "reward_output.h"

#include <stdlib.h>
#include <string.h>

enum { TEXTS = 64 }; /* handed to the model at once; it takes as many as a pass has room for */

struct state {
    struct engine *engine;
    struct peft_adapter adapter;
    int index; /* of passes with the adapter */
    struct score_head head;
    float *scores;             /* [batch_seqs][head.n] device */
    struct sequence *sequence; /* [TEXTS] */
    float *logit;              /* [TEXTS][head.n] */
    struct reward_output output;
};

static const char weight_name[] = "score.weight";

/* The heads beside the adapters: the score head and no other. */
static int check_heads(struct state *s, const char *path)
{
    const int width = s->engine->folder.arch.embedding_width;
    const struct safetensors_entry *e = peft_find_saved(&s->adapter, weight_name);
    for (int i = 0; i < s->adapter.n_saved; i++)
        if (strcmp(s->adapter.saved[i].name, weight_name))
            return error_set(ERR_FILE, "%s: %s of modules_to_save has no place in this model, which takes a score head alone",
                             path, s->adapter.saved[i].name);
    if (!e)
        return error_set(ERR_FILE, "%s: no score head: a reward adapter has task_type SEQ_CLS and \"score\" in modules_to_save",
                         path);
    if (e->n_dims != 2 || e->shape[1] != width || e->shape[0] < 1 || e->shape[0] > LABELS_MAX) {
        char shape[64];
        return error_set(ERR_FILE, "%s: %s is %s, expected [classes, %d]", path, weight_name,
                         safetensors_shape(shape, sizeof shape, e->shape, e->n_dims), width);
    }
    s->head = (struct score_head){.n = (int)e->shape[0], .offset = -1};
    return 0;
}

/* Names of the classes: those of a config.json beside the adapter (classifier_folder.h), else LABEL_0, .. as in transformers. */
static int read_labels(struct labels *labels, const struct state *s, const char *folder)
{
    char *path = file_join(folder, "config.json");
    json_t *config = file_exists(path) ? document_read(path) : json_pack("{s:i}", "num_labels", s->head.n);
    int rc = config ? labels_of_config(labels, path, config) : -1;
    if (!rc && labels->n != s->head.n) {
        rc = error_set(ERR_FILE, "%s: %d labels, but the score head beside it has %d", path, labels->n, s->head.n);
        labels_free(labels);
    }
    json_decref(config);
    free(path);
    return rc;
}

static int choose_output(struct state *s, const struct reward_spec *spec)
{
    struct labels labels;
    TRY(read_labels(&labels, s, spec->path));
    int rc = reward_output_choose(&s->output, spec, &labels);
    labels_free(&labels);
    return rc;
}

static int open_files(struct state *s, const struct reward_spec *spec)
{
    TRY(peft_open(&s->adapter, spec->path, &s->engine->folder.arch));
    TRY(check_heads(s, spec->path));
    return choose_output(s, spec);
}

int reward_adapter_open(void **state, const struct reward_spec *spec)
{
    *state = NULL;
    if (!spec->path || !*spec->path)
        return error_set(ERR_INPUT, "path is missing: a reward adapter is a PEFT folder");
    CHECK(spec->engine, "a reward adapter without an engine");
    struct state *s = calloc(1, sizeof *s);
    CHECK(s, "out of memory");
    s->engine = spec->engine;
    if (open_files(s, spec) != 0) {
        reward_adapter_close(s);
        return -1;
    }
    *state = s;
    return 0;
}

int reward_adapter_need(void *state, struct engine_need *need)
{
    struct state *s = state;
    const int room = sizeof need->frozen / sizeof *need->frozen;
    if (need->n_frozen == room)
        return error_set(ERR_INPUT, "one adapter too many: the base takes %d beside the policy's", room);
    need->frozen[need->n_frozen++] = &s->adapter;
    s->index = need->n_frozen;
    return 0;
}

void reward_adapter_layout(void *state, struct arena *a)
{
    struct state *s = state;
    const size_t n = (size_t)s->head.n, rows = (size_t)s->engine->shape.batch_seqs;
    s->head.weight = arena_take(a, MEM_ADAPTERS, n * (size_t)s->engine->folder.arch.embedding_width * sizeof(float));
    s->scores = arena_take(a, MEM_BATCH, rows * n * sizeof(float));
    s->sequence = arena_take(a, MEM_HOST, TEXTS * sizeof *s->sequence);
    s->logit = arena_take(a, MEM_HOST, TEXTS * n * sizeof *s->logit);
}

int reward_adapter_load(void *state)
{
    struct state *s = state;
    const struct safetensors_entry *e = peft_find_saved(&s->adapter, weight_name);
    struct backend *be = &s->engine->be;
    float *host = malloc((size_t)e->n * sizeof *host);
    CHECK(host, "out of memory");
    int rc = safetensors_floats(host, e, 0, e->n);
    if (!rc)
        be->ops->copy_in(be, s->head.weight, host, (size_t)e->n * sizeof *host);
    free(host);
    return rc;
}

/* Logits of n sequences: the model's passes, with this adapter and this head. */
static int score_sequences(struct state *s, int n)
{
    struct model *m = &s->engine->model;
    const struct model_pass pass = {.adapter = s->index};
    const struct score_head own = m->score;
    float *const own_scores = m->scores;
    m->score = s->head;
    m->scores = s->scores;
    const int rc = sequences_score(&s->engine->micro_batch, s->sequence, n, &pass, s->logit);
    m->score = own;
    m->scores = own_scores;
    return rc;
}

int reward_adapter_score(void *state, const struct reward_text *texts, int64_t n, double *score)
{
    struct state *s = state;
    const int pad = arch_classifier_pad(&s->engine->folder.arch);
    for (int64_t done = 0; done < n; done += TEXTS) {
        const int k = (int)(n - done < TEXTS ? n - done : TEXTS);
        for (int i = 0; i < k; i++) {
            const struct reward_text *t = &texts[done + i];
            int count = t->n_ids;
            CHECK(count > 0, "a text without tokens");
            while (count > 1 && t->ids[count - 1] == pad)
                count--;
            s->sequence[i] = (struct sequence){.sample = t->index, .ids = t->ids, .n = count, .first = count};
        }
        TRY(score_sequences(s, k));
        for (int i = 0; i < k; i++)
            score[done + i] = reward_output_score(&s->output, s->logit + (size_t)i * (size_t)s->head.n);
    }
    return 0;
}

void reward_adapter_close(void *state)
{
    struct state *s = state;
    if (!s)
        return;
    peft_close(&s->adapter);
    free(s);
}
