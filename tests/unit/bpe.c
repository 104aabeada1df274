/* The BPE model and its training: merges follow the definition, whole words with ignore_merges, a trained tokenizer brings
 * any text back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpe.h"
#include "bpe_train.h"
#include "error.h"
#include "file.h"
#include "rng.h"
#include "support/tokenizer_file.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

#define SP "\xe2\x96\x81"

/* Byte-level: a trained vocabulary has all bytes, so that everything comes back. */
static const char *const corpus[] = {"the cat sat on the mat, the cat's mat",
                                     "that the hat is that",
                                     "caf\xc3\xa9 at the cat caf\xc3\xa9 12 12 12"};

static void train_small(const char *name, int vocab_size)
{
    static const char *const special[] = {"<|endoftext|>", "<pad>"};
    size_t lengths[3];
    for (int i = 0; i < 3; i++)
        lengths[i] = strlen(corpus[i]);
    char *path = file_join(folder, name);
    if (bpe_train(path, corpus, lengths, 3, vocab_size, special, 2))
        fail_msg("%s", error_message());
    free(path);
}

static void test_trained_tokenizer_brings_any_text_back(void **state)
{
    (void)state;
    train_small("tokenizer.json", 280);
    struct tokenizer *t;
    assert_int_equal(tokenizer_open(&t, folder), 0);
    assert_int_equal(tokenizer_vocab_size(t), 280);
    assert_int_equal(tokenizer_token_id(t, "<|endoftext|>"), 0);
    assert_true(tokenizer_is_special(t, 1));
    assert_false(tokenizer_is_special(t, 2));
    assert_string_equal(tokenizer_token(t, 2), "!");
    assert_null(tokenizer_token(t, 280));
    assert_null(tokenizer_token(t, -1));
    assert_true(tokenizer_token_id(t, "\xc4\xa0the") >=
                258); /* the most frequent word was learnt */
    struct rng_key key = rng_key(1, RNG_TEST, 0, 0);
    for (uint64_t round = 0; round < 300; round++) {
        char text[256];
        size_t n = 0;
        while (n < 200) {
            uint32_t c = (uint32_t)rng_range(rng_word(key, 0, round, 0, (uint32_t)n), 0,
                                             round % 2 ? 0x80 : 0xd800);
            n += (size_t)utf8_encode(text + n, c);
        }
        struct token_list ids = {0};
        struct text back = {0};
        assert_int_equal(tokenizer_encode(t, &ids, text, n, true), 0);
        assert_int_equal(tokenizer_decode(t, &back, ids.ids, ids.n, true), 0);
        assert_int_equal(back.n, n);
        assert_memory_equal(back.bytes, text, n);
        token_list_free(&ids);
        text_free(&back);
    }
    tokenizer_close(t);
}

/* Any ids in any order, most of them broken UTF-8: no text is longer than what is reserved for it, so none moves. */
static void test_text_max_holds_for_any_ids(void **state)
{
    (void)state;
    enum { N = 40 };
    train_small("tokenizer.json", 280);
    struct tokenizer *t;
    struct text text = {0};
    assert_int_equal(tokenizer_open(&t, folder), 0);
    tokenizer_reserve(t, N);
    text_reserve(&text, tokenizer_text_max(t, N));
    const char *at = text.bytes;
    struct rng_key key = rng_key(2, RNG_TEST, 0, 0);
    for (uint64_t round = 0; round < 1000; round++) {
        int32_t ids[N];
        for (uint32_t i = 0; i < N; i++) /* one id alone, or any */
            ids[i] = round < 280 ? (int32_t)round : (int32_t)rng_range(rng_word(key, 0, round, 0, i), 0, 280);
        text_clear(&text);
        assert_int_equal(tokenizer_decode(t, &text, ids, N, false), 0);
        assert_true(text.n <= tokenizer_text_max(t, N));
        assert_ptr_equal(text.bytes, at);
    }
    text_free(&text);
    tokenizer_close(t);
}

static void test_training_twice_gives_the_same_file(void **state)
{
    (void)state;
    struct text a = {0}, b = {0};
    char *path[] = {file_join(folder, "a.json"), file_join(folder, "b.json")};
    train_small("a.json", 300);
    train_small("b.json", 300);
    assert_int_equal(file_read(&a, path[0]), 0);
    assert_int_equal(file_read(&b, path[1]), 0);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.bytes, b.bytes, a.n);
    for (int i = 0; i < 2; i++)
        free(path[i]);
    text_free(&a);
    text_free(&b);
}

static void test_training_refuses_a_vocabulary_too_small(void **state)
{
    (void)state;
    char *path = file_join(folder, "small.json");
    static const char *const special[] = {"<pad>"};
    assert_int_equal(bpe_train(path, NULL, NULL, 0, 256, special, 1), -1);
    assert_int_equal(error_exit_code(), 2);
    assert_false(file_exists(path));
    free(path);
}

/* The definition: the pair of lowest rank, leftmost, until none is left. Tokens are letters of a small alphabet. */
static int64_t merge_by_definition(const struct bpe *b, const json_t *merges, int32_t *id,
                                   int64_t n)
{
    for (;;) {
        int64_t at = -1;
        int32_t made = -1;
        for (size_t rank = 0; rank < json_array_size(merges) && at < 0; rank++) {
            const char *left = json_string_value(json_array_get(json_array_get(merges, rank), 0));
            const char *right = json_string_value(json_array_get(json_array_get(merges, rank), 1));
            for (int64_t i = 0; i + 1 < n && at < 0; i++)
                if (!strcmp(b->vocab.entry[id[i]].content, left) &&
                    !strcmp(b->vocab.entry[id[i + 1]].content, right)) {
                    char joined[256];
                    int length = snprintf(joined, sizeof joined, "%s%s", left, right);
                    at = i;
                    made = vocab_find(&b->vocab, joined, (size_t)length);
                }
        }
        if (at < 0)
            return n;
        id[at] = made;
        memmove(id + at + 1, id + at + 2, (size_t)(n - at - 2) * sizeof *id);
        n--;
    }
}

/* Random merges over the letters a to d and U+2581, which also makes tokens in which U+2581 stands inside. */
static json_t *random_model(struct rng_key key, uint32_t seed, json_t *merges)
{
    json_t *vocab = json_object(), *seen = json_object();
    const char *token[64] = {"a", "b", "c", "d", SP};
    int n = 5;
    for (int i = 0; i < n; i++)
        json_object_set_new(vocab, token[i], json_integer(i));
    for (uint32_t k = 0; n < 40 && k < 400; k++) {
        const char *left = token[rng_word(key, seed, k, 0, 0) % (uint32_t)n];
        const char *right = token[rng_word(key, seed, k, 0, 1) % (uint32_t)n];
        char joined[64];
        if (strlen(left) + strlen(right) > 16)
            continue;
        snprintf(joined, sizeof joined, "%s%s", left, right);
        if (seed % 2 && strncmp(right, SP, 3) == 0)
            continue; /* as SentencePiece: never after another character, so words are cut */
        char pair[64];
        snprintf(pair, sizeof pair, "%s %s", left, right);
        if (json_object_get(seen, pair))
            continue;
        json_object_set_new(seen, pair, json_true());
        json_array_append_new(merges, json_pack("[ss]", left, right));
        if (json_object_get(vocab, joined))
            continue;
        json_object_set_new(vocab, joined, json_integer(n));
        const char *name;
        json_t *value;
        json_object_foreach(vocab, name, value)
        {
            if (json_integer_value(value) == n)
                token[n] = name;
        }
        n++;
    }
    json_decref(seen);
    return json_pack("{ss so sO}", "type", "BPE", "vocab", vocab, "merges", merges);
}

static void test_merging_follows_the_definition(void **state)
{
    (void)state;
    static const char *const letter[] = {"a", "b", "c", "d", SP};
    struct rng_key key = rng_key(3, RNG_TEST, 0, 0);
    for (uint32_t seed = 0; seed < 40; seed++) {
        json_t *merges = json_array(), *model = random_model(key, seed, merges);
        struct bpe b;
        struct bpe_work w = {0};
        if (bpe_open(&b, model))
            fail_msg("%s", error_message());
        assert_int_equal(b.cut_at_space, seed % 2);
        for (uint64_t round = 0; round < 30; round++) {
            struct text word = {0};
            struct token_list ids = {0};
            int32_t want[256];
            int64_t n = 1 + rng_word(key, seed, round, 1, 0) % (round % 3 ? 12 : 200);
            for (int64_t i = 0; i < n; i++) {
                want[i] = (int32_t)(rng_word(key, seed, round, 2, (uint32_t)i) % 5);
                text_add_string(&word, letter[want[i]]);
            }
            n = merge_by_definition(&b, merges, want, n);
            for (int again = 0; again < 2; again++) { /* the second time from the cache */
                ids.n = 0;
                bpe_encode(&b, &w, &ids, word.bytes, word.n, false);
                assert_int_equal(ids.n, n);
                assert_memory_equal(ids.ids, want, (size_t)n * sizeof *want);
            }
            token_list_free(&ids);
            text_free(&word);
        }
        bpe_work_free(&w);
        bpe_close(&b);
        json_decref(model);
        json_decref(merges);
    }
}

static void test_ignore_merges_takes_whole_words(void **state)
{
    (void)state;
    struct tokenizer *t =
        open_text("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                  "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":"
                  "{\"a\":0,\"b\":1,\"ab\":2,\"aba\":3,\"\xc4\xa0"
                  "a\":4,\"\xc4\xa0\":5},"
                  "\"merges\":[[\"a\",\"b\"]]}}");
    assert_ids(t, "aba", 3, false, IDS(3)); /* no merge makes it */
    assert_ids(t, "abab", 4, false, IDS(2, 2));
    assert_ids(t, "a a", 3, false, IDS(0, 4));
    tokenizer_close(t);
}

static void test_long_texts(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    train_small("tokenizer.json", 280);
    struct tokenizer *t;
    char *text = malloc(N);
    assert_int_equal(tokenizer_open(&t, folder), 0);
    static const char *const patterns[] = {"the", " ", "\n", "e\xcc\x81\xcc\xa3", "\xff", "12"};
    for (size_t k = 0; k < sizeof patterns / sizeof patterns[0]; k++) {
        size_t length = strlen(patterns[k]), n = N / length * length;
        struct token_list ids = {0};
        struct text back = {0};
        for (size_t i = 0; i < n; i++)
            text[i] = patterns[k][i % length];
        assert_int_equal(tokenizer_encode(t, &ids, text, n, false), 0);
        assert_int_equal(tokenizer_decode(t, &back, ids.ids, ids.n, false), 0);
        if (text[0] != '\xff') {
            assert_int_equal(back.n, n);
            assert_memory_equal(back.bytes, text, n);
        } else {
            assert_int_equal(back.n, 3 * n);
        }
        token_list_free(&ids);
        text_free(&back);
    }
    free(text);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained_tokenizer_brings_any_text_back),
        cmocka_unit_test(test_text_max_holds_for_any_ids),
        cmocka_unit_test(test_training_twice_gives_the_same_file),
        cmocka_unit_test(test_training_refuses_a_vocabulary_too_small),
        cmocka_unit_test(test_merging_follows_the_definition),
        cmocka_unit_test(test_ignore_merges_takes_whole_words),
        cmocka_unit_test(test_long_texts),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
