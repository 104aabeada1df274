/* The banner: lines for the log. */
#include "banner.h"

#include "log.h"

enum { TOKENS_SHOWN = 32 };

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

void banner_print(struct engine *e)
{
    const struct settings *s = e->settings;
    const int ranks = comm_size(e->comm), nodes = comm_nodes(e->comm);
    const long long all = engine_parameters(e), trained = e->need.train ? e->model.trainable.n : 0;
    log_line("rlhf-hpc %s (%s, compiler %s): %s, %d rank%s x %d thread%s on %d node%s, %s", PACKAGE_VERSION, GIT_REVISION,
             __VERSION__, settings_task_names[s->task], ranks, plural(ranks), e->threads, plural(e->threads), nodes, plural(nodes),
             e->be.ops->describe(&e->be));
    log_line("model %s: %lld parameters, %lld of them trainable (%.3f%%); seed %lld; output %s", s->model.path, all, trained,
             100.0 * (double)trained / (double)all, (long long)s->run.seed, s->run.output_dir);
    engine_print_plan(e);
}

static void add_visible(struct text *out, const char *token)
{
    for (; *token; token++)
        switch (*token) {
        case ' ':
            text_add_string(out, "\xe2\x90\xa3"); /* U+2423 open box */
            break;
        case '\n':
            text_add_string(out, "\\n");
            break;
        case '\t':
            text_add_string(out, "\\t");
            break;
        case '\r':
            text_add_string(out, "\\r");
            break;
        default:
            text_add(out, token, 1);
        }
}

void banner_tokens(struct text *out, const struct tokenizer *t, const int32_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const char *token = tokenizer_token(t, ids[i]);
        const bool special = tokenizer_is_special(t, ids[i]);
        text_format(out, " %d:%s", ids[i], special ? "\xc2\xab" : ""); /* U+00AB, U+00BB: angle quotes */
        add_visible(out, token ? token : "?");
        text_add_string(out, special ? "\xc2\xbb" : "");
    }
}

void banner_prompts(const struct tokenizer *t, const struct prompt_list *prompts)
{
    const struct token_list *first = &prompts->prompt[0];
    struct text shown = {0};
    banner_tokens(&shown, t, first->ids, first->n < TOKENS_SHOWN ? first->n : TOKENS_SHOWN);
    log_line("%lld prompts; the first, %lld tokens (special ones in \xc2\xab \xc2\xbb):%s%s", (long long)prompts->n,
             (long long)first->n, text_string(&shown), first->n > TOKENS_SHOWN ? " .." : "");
    text_free(&shown);
}

/* ids[from .. to), the middle left out where there are more than `most`. */
static void add_stretch(struct text *out, const struct tokenizer *t, const int32_t *ids, int from, int to, int most)
{
    const int begin = to - from > most ? most / 2 : to - from, end = to - from > most ? most - begin : 0;
    banner_tokens(out, t, ids + from, begin);
    if (end)
        text_add_string(out, " ..");
    banner_tokens(out, t, ids + to - end, end);
}

void banner_example(const struct tokenizer *t, const int32_t *ids, int n, int first)
{
    struct text shown = {0};
    add_stretch(&shown, t, ids, 0, first, first < n ? TOKENS_SHOWN / 2 : TOKENS_SHOWN);
    if (first == n) {
        log_line("the first, %d tokens (special ones in \xc2\xab \xc2\xbb):%s", n, text_string(&shown));
    } else {
        text_add_string(&shown, " |");
        add_stretch(&shown, t, ids, first, n, TOKENS_SHOWN / 2);
        log_line("the first, %d tokens, of which the last %d, behind |, are to be learnt (special ones in \xc2\xab \xc2\xbb):%s",
                 n, n - first, text_string(&shown));
    }
    text_free(&shown);
}
