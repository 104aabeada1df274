/* corpus: labels, what the lexicon says of them, variety, beginnings that do not tell, reviews by index alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus.h"
#include "error.h"
#include "file.h"
#include "reward_lexicon.h"

enum { N_REVIEWS = 10000, SEED = 1 };

struct review {
    struct text text;
    int label;
};

struct corpus {
    struct review *reviews; /* [N_REVIEWS] */
    void *lexicon;
    char *lexicon_path;
};

static int make_corpus(void **state)
{
    struct corpus *c = calloc(1, sizeof *c);
    const char *srcdir = getenv("srcdir");
    c->lexicon_path = file_join(srcdir ? srcdir : ".", "input/tiny/lexicon.tsv");
    *state = c;
    if (reward_lexicon_open(&c->lexicon, &(struct reward_spec){.path = c->lexicon_path}) != 0) {
        fprintf(stderr, "%s\n", error_message());
        return -1;
    }
    c->reviews = calloc(N_REVIEWS, sizeof *c->reviews);
    for (int i = 0; i < N_REVIEWS; i++) {
        if (corpus_review(&c->reviews[i].text, &c->reviews[i].label, SEED, i) != 0)
            return -1;
    }
    return 0;
}

static int free_corpus(void **state)
{
    struct corpus *c = *state;
    for (int i = 0; c->reviews && i < N_REVIEWS; i++)
        text_free(&c->reviews[i].text);
    free(c->reviews);
    reward_lexicon_close(c->lexicon);
    free(c->lexicon_path);
    free(c);
    return 0;
}

static double score(const struct corpus *c, const char *bytes, size_t n)
{
    double value;
    const struct reward_text text = {.prompt = "", .response = bytes, .response_bytes = n};
    assert_int_equal(reward_lexicon_score(c->lexicon, &text, 1, &value), 0);
    return value;
}

/* Bytes of the first n words, all when there are fewer. */
static size_t words_end(const char *text, int n)
{
    const char *end = text;
    for (; n > 0 && *end; n--) {
        end += *end == ' ';
        end += strcspn(end, " ");
    }
    return (size_t)(end - text);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sentences end in a full stop; no other full stop occurs. Returns how many; adds copies to list, if any. */
static int split_sentences(char **list, const char *text)
{
    int n = 0;
    for (const char *p = text; *p; n++) {
        const size_t length = strcspn(p, ".");
        assert_int_equal(p[length], '.');
        if (list)
            list[n] = strndup(p, length);
        p += length + 1;
        p += *p == ' ';
    }
    return n;
}

static void test_labels_are_half_positive(void **state)
{
    const struct corpus *c = *state;
    int n_positive = 0;
    for (int i = 0; i < N_REVIEWS; i++) {
        assert_in_range(c->reviews[i].label, 0, 1);
        n_positive += c->reviews[i].label;
    }
    print_message("positive: %d of %d\n", n_positive, N_REVIEWS);
    assert_in_range(n_positive, N_REVIEWS * 48 / 100, N_REVIEWS * 52 / 100);
}

static void test_lexicon_agrees_with_labels(void **state)
{
    const struct corpus *c = *state;
    double sum[2] = {0};
    int n[2] = {0}, n_right = 0;
    for (int i = 0; i < N_REVIEWS; i++) {
        const struct review *r = &c->reviews[i];
        const double value = score(c, r->text.bytes, r->text.n);
        sum[r->label] += value;
        n[r->label]++;
        n_right += r->label ? value > 0 : value < 0;
    }
    const double positive = sum[1] / n[1], negative = sum[0] / n[0];
    print_message("score per word: positive %.4f, negative %.4f; sign right: %d of %d\n", positive,
                  negative, n_right, N_REVIEWS);
    assert_true(positive > 0.05);
    assert_true(negative < -0.05);
    /* what is said against the label weighs 1 and stands beside what weighs 2 or more: a wrong sign
     * is a word missing from the list, or one with a wrong weight */
    assert_int_equal(n_right, N_REVIEWS);
}

static void test_reviews_are_two_to_four_plain_sentences(void **state)
{
    const struct corpus *c = *state;
    for (int i = 0; i < N_REVIEWS; i++) {
        const struct text *t = &c->reviews[i].text;
        assert_int_equal(strlen(t->bytes), t->n);
        for (size_t k = 0; k < t->n; k++) /* make-corpus puts the text in JSON as it is */
            assert_true(isalpha((unsigned char)t->bytes[k]) || strchr(" .,-'", t->bytes[k]));
        assert_true(isupper((unsigned char)t->bytes[0]));
        assert_null(strstr(t->bytes, "  "));
        assert_in_range(split_sentences(NULL, t->bytes), 2, 4);
    }
}

static void test_sentences_are_distinct(void **state)
{
    const struct corpus *c = *state;
    char **list = calloc(4 * N_REVIEWS, sizeof *list);
    int n = 0, n_distinct = 0;
    for (int i = 0; i < N_REVIEWS; i++)
        n += split_sentences(list + n, c->reviews[i].text.bytes);
    qsort(list, (size_t)n, sizeof *list, compare_strings);
    for (int i = 0; i < n; i++)
        n_distinct += i == 0 || strcmp(list[i], list[i - 1]) != 0;
    print_message("distinct sentences: %d of %d\n", n_distinct, n);
    assert_true(n_distinct >= 4000);
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

/* Prompts are the first words of reviews: most must leave it to the policy which way the review turns. */
static void test_beginnings_rarely_tell(void **state)
{
    const struct corpus *c = *state;
    for (int words = 3; words <= 6; words++) {
        int n_telling = 0;
        for (int i = 0; i < N_REVIEWS; i++) {
            const char *text = c->reviews[i].text.bytes;
            n_telling += score(c, text, words_end(text, words)) != 0;
        }
        print_message("first %d words tell: %.1f %%\n", words, 100.0 * n_telling / N_REVIEWS);
        if (words <= 5) /* as long as make-corpus cuts them */
            assert_true(n_telling <= N_REVIEWS / 4);
    }
}

static bool has_word(const struct corpus *c, const char *word)
{
    const size_t n = strlen(word);
    for (int i = 0; i < N_REVIEWS; i++) {
        const char *text = c->reviews[i].text.bytes;
        for (const char *p = text; (p = strstr(p, word)) != NULL; p += n) {
            if ((p == text || !isalpha((unsigned char)p[-1])) && !isalpha((unsigned char)p[n]))
                return true;
        }
    }
    return false;
}

static void test_lexicon_lists_only_words_of_the_corpus(void **state)
{
    const struct corpus *c = *state;
    FILE *f = fopen(c->lexicon_path, "r");
    char line[128], word[64];
    int n = 0, weight;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(sscanf(line, "%63[a-z]\t%d\n", word, &weight), 2);
        assert_true(weight != 0 && abs(weight) <= 3);
        if (!has_word(c, word))
            fail_msg("%s is in no review", word);
        n++;
    }
    fclose(f);
    assert_true(n > 100);
}

static void test_review_is_the_same_after_other_calls(void **state)
{
    const struct corpus *c = *state;
    struct text t = {0};
    int label;
    for (int i = N_REVIEWS - 1; i >= 0; i -= 7) {
        assert_int_equal(corpus_review(&t, &label, SEED + 1, i / 2), 0);
        assert_int_equal(corpus_review(&t, &label, SEED, i), 0);
        assert_string_equal(t.bytes, c->reviews[i].text.bytes);
        assert_int_equal(label, c->reviews[i].label);
    }
    text_free(&t);
}

static void test_seeds_differ(void **state)
{
    const struct corpus *c = *state;
    struct text t = {0};
    int label, n_equal = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(corpus_review(&t, &label, SEED + 1, i), 0);
        n_equal += strcmp(t.bytes, c->reviews[i].text.bytes) == 0;
    }
    assert_true(n_equal < 10);
    text_free(&t);
}

static void test_index_out_of_range_is_refused(void **state)
{
    (void)state;
    struct text t = {0};
    int label;
    assert_int_equal(corpus_review(&t, &label, SEED, -1), -1);
    assert_int_equal(error_kind(), ERR_INPUT);
    assert_int_equal(corpus_review(&t, &label, SEED, (int64_t)UINT32_MAX + 1), -1);
    assert_int_equal(corpus_review(&t, &label, SEED, UINT32_MAX), 0);
    error_clear();
    text_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_are_half_positive),
        cmocka_unit_test(test_lexicon_agrees_with_labels),
        cmocka_unit_test(test_reviews_are_two_to_four_plain_sentences),
        cmocka_unit_test(test_sentences_are_distinct),
        cmocka_unit_test(test_beginnings_rarely_tell),
        cmocka_unit_test(test_lexicon_lists_only_words_of_the_corpus),
        cmocka_unit_test(test_review_is_the_same_after_other_calls),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_index_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, make_corpus, free_corpus);
}
