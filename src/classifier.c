/* The classifier: a second struct model, laid out for passes of whole texts. */
#include "classifier.h"

#include "engine.h"
#include "error.h"
#include "reward.h"
#include "weights.h"

static int check_tokenizer(const struct classifier *c, const char *path)
{
    const int ids = tokenizer_vocab_size(c->tokenizer), vocab = c->folder.arch.vocab;
    return ids <= vocab ? 0
                        : error_set(ERR_FILE, "%s: the tokenizer has ids up to %d, the model's vocabulary ends at %d", path,
                                    ids - 1, vocab - 1);
}

static void describe(struct classifier *c, const struct classifier_options *o)
{
    const struct settings_model *s = &c->engine->settings->model;
    const struct arch *a = &c->folder.arch;
    const enum dtype file = (enum dtype)hf_folder_find(&c->folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
    struct model_options options = {.dtype = o->int8 ? DTYPE_I8 : file,
                                    .file_dtype = file,
                                    .matmul = s->matmul == MATMUL_CHOICE_DEQUANT ? MATMUL_DEQUANT : MATMUL_LLM_INT8,
                                    .outlier_threshold = (float)s->outlier_threshold};
    model_init(&c->model, a, &c->engine->be, &options);
    model_add_score_head(&c->model, a->n_labels, a->bidirectional, false, NULL);
    c->model.progress = o->progress;
    c->max_length = o->max_length < a->max_positions ? o->max_length : a->max_positions;
    c->text_bytes = o->text_bytes;
}

int classifier_open(struct classifier *c, struct engine *e, const struct classifier_options *o)
{
    *c = (struct classifier){.engine = e};
    TRY(hf_folder_open(&c->folder, o->path, ARCH_CLASSIFIER));
    TRY(tokenizer_open(&c->tokenizer, o->path));
    TRY(check_tokenizer(c, o->path));
    TRY(engine_check_widths(e, &c->folder.arch, o->path));
    describe(c, o);
    if (tokenizer_encode_truncated(c->tokenizer, &c->ids, "", 0, c->max_length) != 0)
        return error_context("max_length");
    return 0;
}

void classifier_layout(struct classifier *c, struct arena *a)
{
    const struct model_shape shape = {
        .batch_tokens = c->max_length > CLASSIFIER_TOKENS ? c->max_length : CLASSIFIER_TOKENS,
        .batch_seqs = CLASSIFIER_TEXTS,
        .head_rows = CLASSIFIER_TEXTS,
    };
    a->reward = true;
    model_layout(&c->model, a, &shape);
    micro_batch_layout(&c->micro_batch, &c->model, a);
    a->reward = false;
    c->sequence = arena_take(a, MEM_HOST, CLASSIFIER_TEXTS * sizeof *c->sequence);
    c->logit = arena_take(a, MEM_HOST, CLASSIFIER_TEXTS * (size_t)c->model.score.n * sizeof *c->logit);
}

/* Encoding needs scratch for what a text is cut into. Two texts of the greatest length, one word and as many words as there can
 * be, leave it behind. */
static int reserve(struct classifier *c)
{
    const char *piece[] = {"a", "a "};
    for (int i = 0; i < 2; i++) {
        text_clear(&c->text);
        while (c->text.n < c->text_bytes)
            text_add_string(&c->text, piece[i]);
        c->ids.n = 0;
        TRY(tokenizer_encode(c->tokenizer, &c->ids, text_string(&c->text), c->text.n, true));
    }
    token_list_reserve(&c->ids, (int64_t)c->text_bytes + c->model.shape.batch_tokens);
    return 0;
}

int classifier_load(struct classifier *c)
{
    const struct engine *e = c->engine;
    if (!e->be.ops->host_memory || comm_node_rank(e->comm) == 0) {
        model_fill_tables(&c->model);
        TRY(weights_read(&c->model, &c->folder));
    }
    return reserve(c);
}

/* Appends the ids of a text. */
static int encode(struct classifier *c, const struct reward_text *t)
{
    const int64_t before = c->ids.n;
    text_clear(&c->text);
    text_add(&c->text, t->prompt, t->prompt_bytes);
    text_add(&c->text, t->response, t->response_bytes);
    TRY(tokenizer_encode_truncated(c->tokenizer, &c->ids, text_string(&c->text), c->text.n, c->max_length));
    if (c->ids.n == before)
        return error_set(ERR_RUN, "text %lld gives no tokens: nothing to score", (long long)t->index);
    return 0;
}

int classifier_pass(struct classifier *c, const struct reward_text *texts, int64_t n)
{
    const struct arch *a = &c->folder.arch;
    const struct model_pass pass = {.adapter = -1};
    int k = 0;
    c->ids.n = 0;
    for (; k < n && k < CLASSIFIER_TEXTS; k++) {
        const int64_t start = c->ids.n;
        TRY(encode(c, &texts[k]));
        if (c->ids.n > c->model.shape.batch_tokens) {
            c->ids.n = start; /* it opens the next pass */
            break;
        }
        const int count = (int)(c->ids.n - start);
        c->sequence[k] = (struct sequence){.sample = texts[k].index, .n = count, .first = count};
    }
    int64_t at = 0;
    for (int i = 0; i < k; i++) {
        struct sequence *s = &c->sequence[i];
        s->ids = c->ids.ids + at;
        at += s->n;
        while (!a->bidirectional && s->n > 1 && s->ids[s->n - 1] == a->pad)
            s->n--;
        s->first = s->n;
    }
    return sequences_score(&c->micro_batch, c->sequence, k, &pass, c->logit) == 0 ? k : -1;
}

void classifier_close(struct classifier *c)
{
    model_free(&c->model);
    tokenizer_close(c->tokenizer);
    hf_folder_close(&c->folder);
    token_list_free(&c->ids);
    text_free(&c->text);
    *c = (struct classifier){0};
}
