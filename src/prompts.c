/* Tokenising a data set. */
#include "prompts.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static int encode_row(struct token_list *out, const struct dataset *d, const struct dataset_row *row, const struct tokenizer *t,
                      bool add_special, int vocab)
{
    if (row->input_ids) {
        token_list_reserve(out, row->n_ids);
        for (int64_t i = 0; i < row->n_ids; i++) {
            if (row->input_ids[i] >= vocab)
                return error_set(ERR_FILE, "%s:%lld: input_ids holds %d, the model's vocabulary ends at %d", d->path,
                                 (long long)row->line, row->input_ids[i], vocab - 1);
            token_list_add(out, row->input_ids[i]);
        }
    } else if (row->prompt) {
        TRY(tokenizer_encode(t, out, row->prompt, row->n_prompt, add_special));
    } else {
        TRY(tokenizer_encode(t, out, row->text ? row->text : "", row->n_text, add_special));
    }
    return 0;
}

int prompts_encode(struct prompt_list *out, const struct dataset *d, const struct tokenizer *t, bool add_special, int max_tokens,
                   int vocab)
{
    *out = (struct prompt_list){.prompt = calloc((size_t)d->n, sizeof *out->prompt), .n = d->n};
    CHECK(out->prompt, "out of memory");
    for (int64_t i = 0; i < d->n; i++) {
        struct token_list *p = &out->prompt[i];
        TRY(encode_row(p, d, &d->row[i], t, add_special, vocab));
        if (p->n == 0)
            return error_set(ERR_FILE, "%s:%lld: the text gives no tokens", d->path, (long long)d->row[i].line);
        if (max_tokens > 0 && p->n > max_tokens) {
            p->n = max_tokens;
            out->n_cut++;
        }
        out->longest = p->n > out->longest ? p->n : out->longest;
    }
    return 0;
}

void prompts_free(struct prompt_list *p)
{
    for (int64_t i = 0; i < p->n; i++)
        token_list_free(&p->prompt[i]);
    free(p->prompt);
    *p = (struct prompt_list){0};
}
