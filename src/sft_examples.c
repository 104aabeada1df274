/* Rows to examples. All ids lie in one list; an example is a stretch of it. */
#include "sft_examples.h"

#include "error.h"
#include "prompts.h"

#include <stdlib.h>

/* Where each row is written before it is cut. */
struct row_ids {
    struct token_list ids, prompt;
    int64_t first; /* the first that may be a target */
};

static void add_example(struct sft_examples *x, int64_t start, int64_t n, int64_t first)
{
    if (x->n == x->room) {
        x->room = x->room ? 2 * x->room : 256;
        x->example = realloc(x->example, (size_t)x->room * sizeof *x->example);
        CHECK(x->example, "out of memory for %lld examples", (long long)x->room);
    }
    const int targets = (int)(n - first);
    x->example[x->n++] = (struct sft_example){start, (int)n, (int)first};
    x->longest = n > x->longest ? (int)n : x->longest;
    x->longest_targets = targets > x->longest_targets ? targets : x->longest_targets;
    x->n_targets += targets;
}

static void append(struct token_list *out, const struct token_list *in)
{
    token_list_reserve(out, in->n);
    for (int64_t i = 0; i < in->n; i++)
        token_list_add(out, in->ids[i]);
}

static bool has_completion(const struct dataset_row *r)
{
    return r->prompt && r->completion;
}

bool sft_examples_wrapped(const struct settings_sft *s, const struct dataset *d)
{
    for (int64_t i = 0; s->packing == PACKING_AUTO && i < d->n; i++)
        if (has_completion(&d->row[i]) || d->row[i].rendered)
            return false;
    return s->packing != PACKING_NONE;
}

/* Prompt and completion as one text. */
static int encode_completion(struct row_ids *r, const struct dataset_row *row, const struct sft_format *how)
{
    const bool special = how->settings->data.add_special_tokens && !row->rendered;
    struct text both = {0};
    text_add(&both, row->prompt, row->n_prompt);
    text_add(&both, row->completion, row->n_completion);
    r->prompt.n = 0;
    int rc = tokenizer_encode(how->tokenizer, &r->prompt, row->prompt, row->n_prompt, special);
    if (!rc)
        rc = tokenizer_encode(how->tokenizer, &r->ids, text_string(&both), both.n, special);
    text_free(&both);
    if (how->settings->sft.completion_only_loss)
        while (r->first < r->prompt.n && r->first < r->ids.n && r->prompt.ids[r->first] == r->ids.ids[r->first])
            r->first++;
    return rc;
}

/* A row's ids, with its end token. */
static int encode(struct row_ids *r, const struct dataset *d, const struct dataset_row *row, const struct sft_format *how)
{
    const bool ends = !row->input_ids && !row->rendered && (!how->wrapped || how->settings->sft.separator);
    r->ids.n = r->first = 0;
    TRY(has_completion(row) ? encode_completion(r, row, how)
                            : prompts_encode_row(&r->ids, d, row, how->tokenizer, &how->settings->data, how->vocab));
    if (ends && how->eos >= 0 && (!r->ids.n || r->ids.ids[r->ids.n - 1] != how->eos))
        token_list_add(&r->ids, how->eos);
    return 0;
}

/* A row as an example, cut to the context. The first token is no target: nothing stands before it. */
static void add_row(struct sft_examples *x, struct row_ids *r, const struct sft_format *how)
{
    const int64_t more = r->ids.n - how->context;
    if (more > 0) {
        x->n_cut++;
        prompts_cut(&r->ids, how->context, how->settings->data.truncation, how->tokenizer);
        if (how->settings->data.truncation == TRUNCATION_KEEP_END)
            r->first -= more;
    }
    const int64_t first = r->first > 1 ? r->first : 1;
    if (first >= r->ids.n) {
        x->n_empty++;
        return;
    }
    add_example(x, x->tokens.n, r->ids.n, first);
    append(&x->tokens, &r->ids);
}

static void add_blocks(struct sft_examples *x, int64_t block)
{
    const int64_t n = x->tokens.n;
    for (int64_t at = 0; block > 1 && at + block <= n; at += block)
        add_example(x, at, block, 1);
    if (n > 1 && n < block)
        add_example(x, 0, n, 1);
}

static int refuse_mask(const struct dataset *d, const struct dataset_row *row)
{
    return error_set(ERR_INPUT, "sft.packing: \"wrapped\" trains on every token of a block, and %s:%lld has a prompt to be "
                     "masked: set sft.packing = \"none\", or sft.completion_only_loss = false", d->path, (long long)row->line);
}

static int add_rows(struct sft_examples *x, struct row_ids *r, const struct dataset *d, const struct sft_format *how)
{
    for (int64_t i = 0; i < d->n; i++) {
        const struct dataset_row *row = &d->row[i];
        if (how->wrapped && has_completion(row) && how->settings->sft.completion_only_loss)
            return refuse_mask(d, row);
        TRY(encode(r, d, row, how));
        if (how->wrapped)
            append(&x->tokens, &r->ids);
        else
            add_row(x, r, how);
    }
    return 0;
}

int sft_examples_make(struct sft_examples *x, const struct dataset *d, const struct sft_format *how)
{
    const int64_t asked = how->settings->sft.block_size, block = asked < how->context ? asked : how->context;
    struct row_ids r = {0};
    *x = (struct sft_examples){0};
    int rc = add_rows(x, &r, d, how);
    token_list_free(&r.ids);
    token_list_free(&r.prompt);
    TRY(rc);
    if (how->wrapped)
        add_blocks(x, block);
    if (x->n_cut && how->settings->data.truncation == TRUNCATION_ERROR)
        return error_set(ERR_FILE, "%s: %lld of %lld rows have more than %d tokens, which the context holds (data.truncation = "
                         "\"keep_start\" or \"keep_end\" cuts them)",
                         d->path, (long long)x->n_cut, (long long)d->n, how->context);
    if (!x->n)
        return error_set(ERR_FILE, "%s: no row has a token to learn: %lld rows of less than 2 tokens, or all prompt in a "
                         "context of %d",
                         d->path, (long long)d->n, how->context);
    return 0;
}

void sft_examples_free(struct sft_examples *x)
{
    token_list_free(&x->tokens);
    free(x->example);
    *x = (struct sft_examples){0};
}
