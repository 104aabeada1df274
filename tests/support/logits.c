/* One pass over one sequence. */
#include "support/logits.h"

#include "error.h"
#include "lora.h"
#include "micro_batch.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS_MAX = 128 };

struct bench {
    struct hf_folder folder;
    struct peft_adapter adapter;
    struct backend be;
    struct model model;
    struct micro_batch mb;
    struct arena arena;
};

static void layout(struct bench *b, int n)
{
    struct model_shape shape = {n, 1, n, 0, n, 0};
    model_layout(&b->model, &b->arena, &shape);
    micro_batch_layout(&b->mb, &b->model, &b->arena);
}

/* The head of an adapter, as a trained one, or of a classifier's folder. */
static int add_score_head(struct bench *b, const char *adapter)
{
    const struct arch *a = &b->folder.arch;
    char name[ARCH_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s.weight", arch_score_module(a));
    const struct safetensors_entry *e = adapter ? peft_find_saved(&b->adapter, name) : safetensors_find(&b->folder.weights, name);
    if (!e)
        return error_set(ERR_FILE, "no %s", name);
    model_add_score_head(&b->model, (int)e->shape[0], a->bidirectional, adapter != NULL, arch_score_module(a));
    return 0;
}

static int open_bench(struct bench *b, const char *model, enum arch_use use, const char *adapter, int n)
{
    const char *device = getenv("RLHF_TEST_DEVICE");
    TRY(hf_folder_open(&b->folder, model, use));
    TRY(backend_open(&b->be, &(struct backend_choice){.device = device ? device : "cpu", .threads = 2}));
    const enum dtype file = (enum dtype)hf_folder_find(&b->folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
    struct model_options o = {.dtype = file, .file_dtype = file};
    model_init(&b->model, &b->folder.arch, &b->be, &o);
    if (adapter) {
        TRY(peft_open(&b->adapter, adapter, &b->folder.arch));
        TRY(lora_attach(&b->model, &b->adapter.config, 1));
        TRY(lora_attach_frozen(&b->model, &b->adapter) == 1 ? 0 : -1);
    }
    if (use != ARCH_LANGUAGE_MODEL)
        TRY(add_score_head(b, adapter));
    layout(b, n);
    TRY(arena_place(&b->arena, &b->be, NULL));
    layout(b, n);
    model_fill_tables(&b->model);
    TRY(weights_read(&b->model, &b->folder));
    if (adapter) {
        TRY(lora_read(&b->model, &b->adapter, adapter));
        TRY(lora_read_frozen(&b->model, &b->adapter, 1));
    }
    arena_freeze(&b->arena);
    return 0;
}

static float *pass_logits(struct bench *b, enum logits_adapter which, const int32_t *ids, int n)
{
    static const int index[] = {[LOGITS_OFF] = -1, [LOGITS_TRAINED] = 0, [LOGITS_FROZEN] = 1};
    const struct arch *a = &b->folder.arch;
    float logprob[TOKENS_MAX];
    int32_t row[TOKENS_MAX];
    struct sequence s = {.ids = ids, .n = n, .first = 1, .logprob = logprob};
    struct model_pass pass = {.adapter = index[which]};
    if (micro_batch_forward(&b->mb, &s, 1, &pass, 1.0f) != 0)
        return NULL;
    for (int i = 0; i < n; i++)
        row[i] = i;
    struct head_rows rows = model_rows(&b->model, n, row, NULL);
    model_send(&b->model);
    const size_t bytes = (size_t)n * (size_t)a->vocab * sizeof(float);
    float *logits = malloc(bytes), *on_device = b->be.ops->region_alloc(&b->be, "logits", bytes);
    CHECK(logits && on_device, "out of memory");
    b->be.ops->head_logits(&b->be, on_device, &b->model.head, b->model.hidden, a->embedding_width, &rows);
    b->be.ops->copy_out(&b->be, logits, on_device, bytes);
    return logits;
}

static void close_bench(struct bench *b)
{
    model_free(&b->model);
    if (b->be.ops)
        b->be.ops->close(&b->be);
    peft_close(&b->adapter);
    hf_folder_close(&b->folder);
}

float *logits_of(const char *model, const char *adapter, enum logits_adapter which, const int32_t *ids, int n, int *vocab)
{
    struct bench b = {0};
    CHECK(n > 1 && n <= TOKENS_MAX, "%d tokens", n);
    float *logits = open_bench(&b, model, ARCH_LANGUAGE_MODEL, adapter, n) == 0 ? pass_logits(&b, which, ids, n) : NULL;
    *vocab = b.folder.arch.vocab;
    close_bench(&b);
    return logits;
}

float *scores_of(const char *model, const char *adapter, const int32_t *ids, int n, int *n_scores)
{
    struct bench b = {0};
    const struct model_pass pass = {.adapter = adapter ? 0 : -1};
    const struct sequence s = {.ids = ids, .n = n, .first = n};
    CHECK(n > 0 && n <= TOKENS_MAX, "%d tokens", n);
    int rc = open_bench(&b, model, adapter ? ARCH_BACKBONE : ARCH_CLASSIFIER, adapter, n);
    float *score = rc ? NULL : malloc((size_t)b.model.score.n * sizeof *score);
    CHECK(rc || score, "out of memory");
    *n_scores = b.model.score.n;
    if (!rc && micro_batch_scores(&b.mb, &s, 1, &pass, score) != 0) {
        free(score);
        score = NULL;
    }
    close_bench(&b);
    return score;
}
