/* Rows to sequences. All ids lie in one list; a sequence is a stretch of it. */
#include "score_examples.h"

#include "error.h"
#include "prompts.h"

#include <stdlib.h>
#include <string.h>

static struct score_example *add_example(struct score_examples *x)
{
    if (x->n == x->room) {
        x->room = x->room ? 2 * x->room : 256;
        x->example = realloc(x->example, (size_t)x->room * sizeof *x->example);
        CHECK(x->example, "out of memory for %lld examples", (long long)x->room);
    }
    x->example[x->n] = (struct score_example){0};
    return &x->example[x->n++];
}

/* Ends a sequence that began at token `start`. */
static int end_sequence(struct score_examples *x, struct score_example *e, int which, int64_t start, const struct dataset *d,
                        const struct dataset_row *row, const struct score_format *how)
{
    if (x->tokens.n == start)
        return error_set(ERR_FILE, "%s:%lld: the text gives no tokens", d->path, (long long)row->line);
    while (x->tokens.n > start + 1 && x->tokens.ids[x->tokens.n - 1] == how->pad)
        x->tokens.n--;
    const int64_t n = x->tokens.n - start;
    e->start[which] = start;
    e->n[which] = (int)n;
    x->longest = (int)n > x->longest ? (int)n : x->longest;
    return 0;
}

/* The ids from start on cut to the context: the last ones, behind a special token that the tokenizer has put before them. */
static void keep_end(struct score_examples *x, int64_t start, bool around, const struct score_format *how)
{
    int32_t *ids = x->tokens.ids + start;
    const int64_t kept = around && how->context > 1 && tokenizer_is_special(how->tokenizer, ids[0]), n = how->context - kept;
    memmove(ids + kept, x->tokens.ids + x->tokens.n - n, (size_t)n * sizeof *ids);
}

/* The text, or token numbers, cut to the context with the tokens around it kept. */
static int add_text(struct score_examples *x, const struct dataset *d, const struct dataset_row *row,
                    const struct score_format *how)
{
    const struct settings_data *s = &how->settings->data;
    struct score_example *e = add_example(x);
    const int64_t start = x->tokens.n;
    e->label = row->label;
    TRY(prompts_encode_row(&x->tokens, d, row, how->tokenizer, s, how->vocab));
    if (x->tokens.n - start > how->context) {
        const bool around = row->text && !row->input_ids && s->add_special_tokens && !row->rendered;
        x->n_cut++;
        if (s->truncation == TRUNCATION_KEEP_END) {
            keep_end(x, start, around, how);
        } else if (around) {
            x->tokens.n = start;
            TRY(tokenizer_encode_truncated(how->tokenizer, &x->tokens, row->text, row->n_text, how->context));
        }
        x->tokens.n = start + how->context;
    }
    return end_sequence(x, e, 0, start, d, row, how);
}

/* The prompt with an answer behind it. */
static int add_answer(struct score_examples *x, struct score_example *e, int which, const struct dataset *d,
                      const struct dataset_row *row, const struct score_format *how)
{
    const bool special = how->settings->data.add_special_tokens && !row->rendered;
    const int64_t start = x->tokens.n;
    struct text both = {0};
    if (row->prompt)
        text_add(&both, row->prompt, row->n_prompt);
    text_add(&both, which ? row->rejected : row->chosen, which ? row->n_rejected : row->n_chosen);
    int rc = tokenizer_encode(how->tokenizer, &x->tokens, text_string(&both), both.n, special);
    text_free(&both);
    TRY(rc);
    if (how->eos >= 0 && !row->rendered && (x->tokens.n == start || x->tokens.ids[x->tokens.n - 1] != how->eos))
        token_list_add(&x->tokens, how->eos);
    return end_sequence(x, e, which, start, d, row, how);
}

static int add_pair(struct score_examples *x, const struct dataset *d, const struct dataset_row *row,
                    const struct score_format *how)
{
    const int64_t tokens = x->tokens.n;
    const int longest = x->longest;
    struct score_example *e = add_example(x);
    e->margin = row->margin;
    TRY(add_answer(x, e, 0, d, row, how));
    TRY(add_answer(x, e, 1, d, row, how));
    if (e->n[0] > how->context || e->n[1] > how->context) {
        x->tokens.n = tokens;
        x->longest = longest;
        x->n--;
        x->n_long++;
    }
    return 0;
}

int score_examples_make(struct score_examples *x, const struct dataset *d, const struct score_format *how)
{
    *x = (struct score_examples){.pairs = how->settings->reward_model.loss == REWARD_LOSS_PAIRWISE};
    for (int64_t i = 0; i < d->n; i++)
        TRY(x->pairs ? add_pair(x, d, &d->row[i], how) : add_text(x, d, &d->row[i], how));
    if (x->n_cut && how->settings->data.truncation == TRUNCATION_ERROR)
        return error_set(ERR_FILE, "%s: %lld of %lld texts have more than %d tokens, which the context holds (data.truncation = "
                         "\"keep_start\" or \"keep_end\" cuts them)", d->path, (long long)x->n_cut, (long long)d->n,
                         how->context);
    if (!x->n)
        return error_set(ERR_FILE, "%s: none of %lld pairs fits into the context of %d tokens", d->path, (long long)d->n,
                         how->context);
    return 0;
}

void score_examples_free(struct score_examples *x)
{
    token_list_free(&x->tokens);
    free(x->example);
    *x = (struct score_examples){0};
}
