/* Tokenising a data set. */
#include "prompts.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

/* Where a row's tokens come from; with text_first the text is taken even where a prompt stands beside it. */
struct encoding {
    const struct tokenizer *tokenizer;
    enum truncation truncation;
    bool add_special, text_first;
    int max_tokens, vocab;
};

static int encode_row(struct token_list *out, const struct dataset *d, const struct dataset_row *row, const struct encoding *how)
{
    const bool prompt = row->prompt && !(how->text_first && row->text);
    const char *bytes = prompt ? row->prompt : row->text ? row->text : "";
    if (!row->input_ids)
        return tokenizer_encode(how->tokenizer, out, bytes, prompt ? row->n_prompt : row->n_text,
                                how->add_special && !row->rendered);
    token_list_reserve(out, row->n_ids);
    for (int64_t i = 0; i < row->n_ids; i++) {
        if (row->input_ids[i] >= how->vocab)
            return error_set(ERR_FILE, "%s:%lld: input_ids holds %d, the model's vocabulary ends at %d", d->path,
                             (long long)row->line, row->input_ids[i], how->vocab - 1);
        token_list_add(out, row->input_ids[i]);
    }
    return 0;
}

/* At the end of a prompt stands what is to be answered, so with keep_end a BOS alone is kept before it. */
void prompts_cut(struct token_list *p, int n, enum truncation truncation, const struct tokenizer *t)
{
    const int64_t from = p->n - n;
    const int64_t kept = n > 1 && p->ids[0] == tokenizer_bos(t);
    if (truncation == TRUNCATION_KEEP_END)
        memmove(p->ids + kept, p->ids + from + kept, (size_t)(n - kept) * sizeof *p->ids);
    p->n = n;
}

static int encode(struct prompt_list *out, const struct dataset *d, const struct encoding *how)
{
    *out = (struct prompt_list){.prompt = calloc((size_t)d->n, sizeof *out->prompt), .n = d->n};
    CHECK(out->prompt, "out of memory");
    for (int64_t i = 0; i < d->n; i++) {
        struct token_list *p = &out->prompt[i];
        TRY(encode_row(p, d, &d->row[i], how));
        if (p->n == 0)
            return error_set(ERR_FILE, "%s:%lld: the text gives no tokens", d->path, (long long)d->row[i].line);
        if (how->max_tokens > 0 && p->n > how->max_tokens) {
            prompts_cut(p, how->max_tokens, how->truncation, how->tokenizer);
            out->n_cut++;
        }
        out->longest = p->n > out->longest ? p->n : out->longest;
    }
    if (out->n_cut && how->truncation == TRUNCATION_ERROR)
        return error_set(ERR_FILE, "%s: %lld of %lld rows have more than %d tokens, which is the room in the model's context "
                         "(data.truncation = \"keep_start\" or \"keep_end\" cuts them)", d->path, (long long)out->n_cut,
                         (long long)d->n, how->max_tokens);
    return 0;
}

int prompts_encode(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t, const struct settings_data *s,
                   int max_tokens, int vocab)
{
    /* where the first n tokens are a prompt, the rest may be as long as it is */
    const enum truncation truncation = s->prompt_tokens.max ? TRUNCATION_KEEP_START : s->truncation;
    struct encoding how = {t, truncation, s->add_special_tokens, false, max_tokens, vocab};
    return encode(out, d, &how);
}

int prompts_encode_texts(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t,
                         const struct settings_data *s, int max_tokens, int vocab)
{
    struct encoding how = {t, s->truncation, s->add_special_tokens, true, max_tokens, vocab};
    return encode(out, d, &how);
}

int prompts_encode_row(struct token_list *out, const struct dataset *d, const struct dataset_row *row, const struct tokenizer *t,
                       const struct settings_data *s, int vocab)
{
    struct encoding how = {t, s->truncation, s->add_special_tokens, true, 0, vocab};
    return encode_row(out, d, row, &how);
}

void prompts_free(struct prompt_list *p)
{
    for (int64_t i = 0; i < p->n; i++)
        token_list_free(&p->prompt[i]);
    free(p->prompt);
    *p = (struct prompt_list){0};
}
