/* Rows to examples: what follows what, where blocks and targets begin, what is cut and left out. The tokens themselves are the
 * tokenizer's, of the embedded model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "sft_examples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EOS = 0, CONTEXT = 64 };

static struct tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    (void)state;
    const char *srcdir = getenv("srcdir");
    char path[512];
    snprintf(path, sizeof path, "%s/input/tiny", srcdir ? srcdir : ".");
    return tokenizer_open(&tokenizer, path);
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

/* Rows of a data set, on the stack: nothing in them is owned. */
static struct dataset rows(struct dataset_row *row, int64_t n)
{
    return (struct dataset){.path = "data", .n = n, .row = row};
}

static struct dataset_row text_row(char *text)
{
    return (struct dataset_row){.text = text, .n_text = strlen(text), .line = 1};
}

static struct dataset_row completion_row(char *prompt, char *completion)
{
    return (struct dataset_row){.prompt = prompt, .n_prompt = strlen(prompt), .completion = completion,
                                .n_completion = strlen(completion), .line = 1};
}

static struct settings standard(void)
{
    return (struct settings){.sft = {.block_size = 8, .separator = true, .completion_only_loss = true},
                             .data = {.add_special_tokens = true}};
}

static struct sft_format format(const struct settings *s, bool wrapped)
{
    return (struct sft_format){s, tokenizer, EOS, CONTEXT, 512, wrapped};
}

static void encode(struct token_list *out, const char *text)
{
    assert_int_equal(tokenizer_encode(tokenizer, out, text, strlen(text), true), 0);
}

static void expect_ids(const struct sft_examples *x, int64_t i, const int32_t *ids, int64_t n)
{
    assert_true(i < x->n);
    assert_int_equal(x->example[i].n, n);
    assert_memory_equal(x->tokens.ids + x->example[i].start, ids, (size_t)n * sizeof *ids);
}

static void make(struct sft_examples *x, const struct dataset *d, const struct sft_format *how)
{
    if (sft_examples_make(x, d, how) != 0)
        fail_msg("%s", error_message());
}

static void test_texts_end_with_the_end_token_once(void **state)
{
    (void)state;
    struct dataset_row row[] = {text_row("I watched this film"), text_row("From the first scene<|endoftext|>")};
    const struct dataset d = rows(row, 2);
    const struct settings s = standard();
    const struct sft_format how = format(&s, false);
    struct sft_examples x;
    struct token_list a = {0}, b = {0};
    make(&x, &d, &how);
    encode(&a, "I watched this film");
    token_list_add(&a, EOS);
    encode(&b, "From the first scene<|endoftext|>");
    assert_int_equal(b.ids[b.n - 1], EOS);
    assert_int_equal(x.n, 2);
    expect_ids(&x, 0, a.ids, a.n);
    expect_ids(&x, 1, b.ids, b.n);
    assert_int_equal(x.example[0].first, 1);
    assert_int_equal(x.n_targets, a.n + b.n - 2);
    token_list_free(&a);
    token_list_free(&b);
    sft_examples_free(&x);
}

static void test_completion_alone_is_learnt(void **state)
{
    (void)state;
    struct dataset_row row[] = {completion_row("I watched", " this film")};
    const struct dataset d = rows(row, 1);
    struct settings s = standard();
    struct sft_format how = format(&s, false);
    struct sft_examples x;
    struct token_list prompt = {0}, both = {0};
    encode(&prompt, "I watched");
    encode(&both, "I watched this film");
    token_list_add(&both, EOS);
    assert_memory_equal(prompt.ids, both.ids, (size_t)prompt.n * sizeof *prompt.ids);
    make(&x, &d, &how);
    expect_ids(&x, 0, both.ids, both.n);
    assert_int_equal(x.example[0].first, prompt.n);
    assert_int_equal(x.n_targets, both.n - prompt.n);
    sft_examples_free(&x);
    s.sft.completion_only_loss = false;
    make(&x, &d, &how);
    assert_int_equal(x.example[0].first, 1);
    sft_examples_free(&x);
    token_list_free(&prompt);
    token_list_free(&both);
}

/* Where letters of both sides are one token, the completion begins with that token. */
static void test_completion_begins_where_the_tokens_part(void **state)
{
    (void)state;
    struct dataset_row row[] = {completion_row("I watched this fi", "lm")};
    const struct dataset d = rows(row, 1);
    const struct settings s = standard();
    const struct sft_format how = format(&s, false);
    struct sft_examples x;
    struct token_list prompt = {0}, both = {0};
    encode(&prompt, "I watched this fi");
    encode(&both, "I watched this film");
    int common = 0;
    while (common < prompt.n && common < both.n && prompt.ids[common] == both.ids[common])
        common++;
    assert_true(common < prompt.n);
    make(&x, &d, &how);
    assert_int_equal(x.example[0].first, common);
    assert_int_equal(x.example[0].n, both.n + 1);
    token_list_free(&prompt);
    token_list_free(&both);
    sft_examples_free(&x);
}

static void check_blocks(bool separator, int64_t eos)
{
    struct dataset_row row[] = {text_row("I watched this film with my friends"), text_row("From the first scene to the last"),
                                text_row("The director brings it all")};
    const struct dataset d = rows(row, 3);
    struct settings s = standard();
    s.sft.separator = separator;
    const struct sft_format how = format(&s, true);
    struct sft_examples x;
    struct token_list all = {0};
    for (int i = 0; i < 3; i++) {
        encode(&all, row[i].text);
        if (separator)
            token_list_add(&all, EOS);
    }
    make(&x, &d, &how);
    assert_true(all.n > 8 && all.n % 8);
    assert_int_equal(x.n, all.n / 8);
    for (int64_t i = 0; i < x.n; i++) {
        expect_ids(&x, i, all.ids + 8 * i, 8);
        assert_int_equal(x.example[i].first, 1);
    }
    int64_t found = 0;
    for (int64_t i = 0; i < x.tokens.n; i++)
        found += x.tokens.ids[i] == EOS;
    assert_int_equal(found, eos);
    token_list_free(&all);
    sft_examples_free(&x);
}

static void test_blocks_run_on_across_texts(void **state)
{
    (void)state;
    check_blocks(true, 3);
    check_blocks(false, 0);
}

static void test_only_block_may_be_short(void **state)
{
    (void)state;
    struct dataset_row row[] = {text_row("I watched")};
    const struct dataset d = rows(row, 1);
    struct settings s = standard();
    s.sft.block_size = 1024;
    const struct sft_format how = format(&s, true);
    struct sft_examples x;
    make(&x, &d, &how);
    assert_int_equal(x.n, 1);
    assert_int_equal(x.example[0].n, x.tokens.n);
    sft_examples_free(&x);
}

static void test_rows_are_cut_to_the_context(void **state)
{
    (void)state;
    struct dataset_row row[] = {completion_row("I watched", " this film"), completion_row("I", " watched this film")};
    const struct dataset d = rows(row, 2);
    struct settings s = standard();
    struct sft_format how = format(&s, false);
    struct sft_examples x;
    struct token_list prompt = {0};
    encode(&prompt, "I watched");
    how.context = (int)prompt.n; /* all of the first row's is prompt */
    make(&x, &d, &how);
    assert_int_equal(x.n_cut, 2);
    assert_int_equal(x.n_empty, 1);
    assert_int_equal(x.n, 1);
    assert_int_equal(x.example[0].n, prompt.n);
    sft_examples_free(&x);
    s.data.truncation = TRUNCATION_KEEP_END;
    make(&x, &d, &how);
    assert_int_equal(x.n, 2);
    assert_int_equal(x.tokens.ids[prompt.n - 1], EOS);
    sft_examples_free(&x);
    s.data.truncation = TRUNCATION_ERROR;
    assert_int_equal(sft_examples_make(&x, &d, &how), -1);
    assert_non_null(strstr(error_message(), "data: 2 of 2 rows have more than"));
    sft_examples_free(&x);
    how.context = 1;
    s.data.truncation = TRUNCATION_KEEP_START;
    assert_int_equal(sft_examples_make(&x, &d, &how), -1);
    assert_non_null(strstr(error_message(), "data: no row has a token to learn"));
    sft_examples_free(&x);
    token_list_free(&prompt);
}

static void test_given_ids_are_taken_as_they_are(void **state)
{
    (void)state;
    int32_t ids[] = {3, 4, 5};
    struct dataset_row row[] = {{.input_ids = ids, .n_ids = 3, .line = 7}};
    const struct dataset d = rows(row, 1);
    const struct settings s = standard();
    struct sft_format how = format(&s, false);
    struct sft_examples x;
    make(&x, &d, &how);
    expect_ids(&x, 0, ids, 3);
    sft_examples_free(&x);
    how.vocab = 5;
    assert_int_equal(sft_examples_make(&x, &d, &how), -1);
    assert_non_null(strstr(error_message(), "data:7: input_ids holds 5"));
    sft_examples_free(&x);
}

static void test_packing_follows_the_data(void **state)
{
    (void)state;
    struct dataset_row texts[] = {text_row("a"), text_row("b")}, pairs[] = {text_row("a"), completion_row("a", "b")};
    struct dataset_row chat[] = {text_row("a")};
    chat[0].rendered = true;
    const struct dataset d_texts = rows(texts, 2), d_pairs = rows(pairs, 2), d_chat = rows(chat, 1);
    struct settings s = standard();
    assert_true(sft_examples_wrapped(&s.sft, &d_texts));
    assert_false(sft_examples_wrapped(&s.sft, &d_pairs));
    assert_false(sft_examples_wrapped(&s.sft, &d_chat));
    s.sft.packing = PACKING_NONE;
    assert_false(sft_examples_wrapped(&s.sft, &d_texts));
    s.sft.packing = PACKING_WRAPPED;
    assert_true(sft_examples_wrapped(&s.sft, &d_chat));
    const struct sft_format how = format(&s, true);
    struct sft_examples x;
    assert_int_equal(sft_examples_make(&x, &d_pairs, &how), -1);
    assert_non_null(strstr(error_message(), "sft.packing: \"wrapped\""));
    sft_examples_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_end_with_the_end_token_once),
        cmocka_unit_test(test_completion_alone_is_learnt),
        cmocka_unit_test(test_completion_begins_where_the_tokens_part),
        cmocka_unit_test(test_blocks_run_on_across_texts),
        cmocka_unit_test(test_only_block_may_be_short),
        cmocka_unit_test(test_rows_are_cut_to_the_context),
        cmocka_unit_test(test_given_ids_are_taken_as_they_are),
        cmocka_unit_test(test_packing_follows_the_data),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
