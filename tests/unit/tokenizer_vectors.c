/* Every line of every vector file of the data folder: ids, ids with special tokens, and
 * both ways of decoding must be those of Hugging Face's Rust library. Needs RLHF_HPC_DATA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ids_equal(const struct token_list *ids, const json_t *want)
{
    if ((size_t)ids->n != json_array_size(want))
        return false;
    for (int64_t i = 0; i < ids->n; i++)
        if (ids->ids[i] != json_integer_value(json_array_get(want, (size_t)i)))
            return false;
    return true;
}

static bool encodes_to(const struct tokenizer *t, const json_t *line, const char *key, bool special)
{
    const json_t *text = json_object_get(line, "text");
    struct token_list ids = {0};
    int rc = tokenizer_encode(t, &ids, json_string_value(text), json_string_length(text), special);
    bool equal = rc == 0 && ids_equal(&ids, json_object_get(line, key));
    token_list_free(&ids);
    return equal;
}

static bool decodes_to(const struct tokenizer *t, const json_t *line, const char *key, bool skip)
{
    const json_t *list = json_object_get(line, "ids_special"), *want = json_object_get(line, key);
    struct token_list ids = {0};
    struct text text = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        token_list_add(&ids, (int32_t)json_integer_value(json_array_get(list, i)));
    int rc = tokenizer_decode(t, &text, ids.ids, ids.n, skip);
    bool equal = rc == 0 && text.n == json_string_length(want) &&
                 !memcmp(text_string(&text), json_string_value(want), text.n);
    token_list_free(&ids);
    text_free(&text);
    return equal;
}

/* Runs one file; returns the number of lines that differ, -1 where the file is absent. */
static int run_file(const struct tokenizer *t, const char *path, int *n_lines)
{
    struct text file = {0};
    int wrong = 0, n = 0;
    if (!file_exists(path))
        return -1;
    assert_int_equal(file_read(&file, path), 0);
    for (char *line = file.bytes, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_error_t error;
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, &error);
        assert_non_null(row);
        n++;
        static const char *const keys[] = {"ids", "ids_special", "decoded", "decoded_skip"};
        bool equal[4] = {encodes_to(t, row, keys[0], false), encodes_to(t, row, keys[1], true),
                         decodes_to(t, row, keys[2], false), decodes_to(t, row, keys[3], true)};
        for (int i = 0; i < 4; i++)
            if (!equal[i])
                printf("%s:%d: %s differs\n", path, n, keys[i]);
        wrong += !(equal[0] && equal[1] && equal[2] && equal[3]);
        json_decref(row);
    }
    text_free(&file);
    *n_lines += n;
    return wrong;
}

/* The tokenizer at path on the vectors of this name, the disputed ones too. */
static void run_vectors(const char *path, const char *vectors)
{
    const char *data = getenv("RLHF_HPC_DATA");
    char file[4096];
    struct tokenizer *t;
    if (tokenizer_open(&t, path))
        fail_msg("%s", error_message());
    int n = 0;
    snprintf(file, sizeof file, "%s/vectors/%s.jsonl", data, vectors);
    int wrong = run_file(t, file, &n);
    assert_true(wrong >= 0);
    snprintf(file, sizeof file, "%s/vectors/%s.disputed.jsonl", data, vectors);
    int disputed = run_file(t, file, &n);
    wrong += disputed > 0 ? disputed : 0;
    printf("%s: %d of %d lines equal\n", path, n - wrong, n);
    assert_int_equal(wrong, 0);
    assert_true(n >= 428);
    tokenizer_close(t);
}

static void run_tokenizer(const char *folder, const char *name, const char *vectors)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%s", getenv("RLHF_HPC_DATA"), folder, name);
    run_vectors(path, vectors);
}

#define VECTOR_TEST(function, folder, name) VECTORS_OF(function, folder, name, name)
#define VECTORS_OF(function, folder, name, vectors)                                                        \
    static void function(void **state)                                                             \
    {                                                                                              \
        (void)state;                                                                               \
        run_tokenizer(folder, name, vectors);                                                       \
    }
VECTOR_TEST(test_gpt2, "tokenizers", "gpt2")
VECTOR_TEST(test_gpt_neox, "tokenizers", "gpt-neox-20b")
VECTOR_TEST(test_roberta, "tokenizers", "roberta-base")
VECTOR_TEST(test_llama2, "tokenizers", "llama-2")
VECTOR_TEST(test_mistral, "tokenizers", "mistral-7b-v0.1")
VECTOR_TEST(test_mistral_legacy, "tokenizers", "mistral-7b-v0.1-legacy")
VECTOR_TEST(test_llama3, "tokenizers", "llama-3")
VECTOR_TEST(test_qwen3, "tokenizers", "qwen3")
VECTOR_TEST(test_mini_gpt_neox, "models", "mini-gpt-neox-imdb")
VECTOR_TEST(test_mini_gpt2, "models", "mini-gpt2-imdb")
VECTOR_TEST(test_stories260k, "models", "stories260K")
VECTOR_TEST(test_bert, "tokenizers", "bert-base-uncased")
VECTORS_OF(test_distilbert, "tokenizers", "distilbert-base-uncased", "bert-base-uncased")
VECTORS_OF(test_mini_distilbert, "models", "mini-distilbert-sentiment", "bert-base-uncased")

/* A folder that has vocab.txt alone. */
static void test_bert_vocab(void **state)
{
    (void)state;
    char folder[] = "/tmp/rlhf-vectors-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *from = file_join(getenv("RLHF_HPC_DATA"), "tokenizers/bert-base-uncased/vocab.txt"), *to = file_join(folder, "vocab.txt");
    assert_int_equal(file_copy(to, from), 0);
    run_vectors(folder, "bert-base-uncased");
    free(from);
    free(to);
    file_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),          cmocka_unit_test(test_gpt_neox),
        cmocka_unit_test(test_roberta),       cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_mistral),       cmocka_unit_test(test_mistral_legacy),
        cmocka_unit_test(test_llama3),        cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_mini_gpt_neox), cmocka_unit_test(test_mini_gpt2),
        cmocka_unit_test(test_stories260k),   cmocka_unit_test(test_bert),
        cmocka_unit_test(test_distilbert),    cmocka_unit_test(test_mini_distilbert),
        cmocka_unit_test(test_bert_vocab),
    };
    if (!getenv("RLHF_HPC_DATA")) {
        printf("RLHF_HPC_DATA is not set: no vectors to compare with\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
