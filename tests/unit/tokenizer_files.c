/* What tokenizer.json and the files beside it may say: names of special tokens; what is refused, and with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "support/tokenizer_file.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

static void test_names_of_special_tokens(void **state)
{
    (void)state;
    const char config[] =
        "{\"model_max_length\":1000000000000000019884624838656,"
        "\"bos_token\":null,\"eos_token\":\"absent\"}";
    const char map[] = "{\"bos_token\":{\"content\":\"a\"},\"eos_token\":\"b\"}";
    write_file("tokenizer_config.json", config, strlen(config));
    write_file("special_tokens_map.json", map, strlen(map));
    struct tokenizer *t = open_text(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2},\"merges\":[]}}");
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 1);
    tokenizer_close(t);
    for (int i = 0; i < 2; i++) {
        char *path = file_join(folder, i ? "special_tokens_map.json" : "tokenizer_config.json");
        assert_int_equal(file_remove_tree(path), 0);
        free(path);
    }
}

/* Behaviours of Split on the example of the library's documentation. */
#define MODEL(rest) "{\"model\":{\"type\":\"BPE\"," rest "}}"
#define WORDPIECE(rest) "{\"model\":{\"type\":\"WordPiece\"," rest "}}"
#define PIECES "\"unk_token\":\"u\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":"
#define PLAIN       "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}"

static void test_broken_files(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message; /* message: a part of it */
    } cases[] = {
        {"", "tokenizer.json"},
        {"[]", "not a JSON object"},
        {"{", "tokenizer.json:1"},
        {"{}", "\"model\" must be an object"},
        {"{\"model\":[]}", "\"model\" must be an object"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", "model type \"unknown\" is not supported"},
        {"{\"model\":{\"type\":7}}", "model type \"\" is not supported"},
        {WORDPIECE("\"vocab\":{\"a\":0}"), "\"unk_token\" must be a string"},
        {WORDPIECE("\"unk_token\":\"u\",\"vocab\":{\"a\":0}"), "\"continuing_subword_prefix\" must be a string"},
        {WORDPIECE(PIECES "-1,\"vocab\":{\"u\":0}"), "\"max_input_chars_per_word\" must be a count"},
        {WORDPIECE(PIECES "1,\"vocab\":[]"), "\"vocab\" must be"},
        {WORDPIECE(PIECES "1,\"vocab\":{\"a\":0}"), "unk_token \"u\" is not in the vocabulary"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "\"Unigram\" is not supported"},
        {MODEL("\"vocab\":[],\"merges\":[]"), "\"vocab\" must be"},
        {MODEL("\"vocab\":{},\"merges\":[]"), "\"vocab\" must be"},
        {MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "not an integer"},
        {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), "has id -1"},
        {MODEL("\"vocab\":{\"a\":2000000000},\"merges\":[]"), "has id 2000000000"},
        {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "the same id 0"},
        {MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "duplicate"},
        {MODEL("\"vocab\":{\"a\":0}"), "\"merges\" must be an array"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[1]"), "merge 0 is neither"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), "merge 0 is neither"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merge 0 is neither"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), "merge 0 is neither"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "\"b\" of merge 0"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a\"]"), "\"aa\", made by merge 0"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\""), "unk_token \"u\""},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"), "dropout"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"fuse_unk\":1"), "\"fuse_unk\" must be"},
        {"{" PLAIN ",\"normalizer\":{\"type\":\"Precompiled\"}}", "\"Precompiled\" is not"},
        {"{" PLAIN ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", "\"clean_text\" must be true or false"},
        {"{" PLAIN ",\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
         "\"lowercase\":true,\"strip_accents\":1}}",
         "\"strip_accents\" must be true or false"},
        {"{" PLAIN ",\"normalizer\":{\"type\":7}}", "\"type\" must be a string"},
        {"{" PLAIN ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{}}}",
         "pattern"},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "\"UnicodeScripts\" is not"},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":"
         "{\"Regex\":\"(a\"}}}",
         "missing closing parenthesis"},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":"
         "{\"Regex\":\"[a&&[b]]\"}}}",
         "not supported"},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\",\"pattern\":"
         "{\"String\":\"a\"}}}",
         "unknown behavior \"Odd\""},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":"
         "{\"String\":\"\"}}}",
         "empty pattern"},
        {"{" PLAIN ",\"decoder\":{\"type\":\"CTC\"}}", "\"CTC\" is not supported"},
        {"{" PLAIN ",\"decoder\":{\"type\":\"WordPiece\"}}", "\"prefix\" must be a string"},
        {"{" PLAIN ",\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\"}}", "\"cleanup\" must be true or false"},
        {"{" PLAIN ",\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}}",
         "\"start\" must be a count"},
        {"{" PLAIN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}",
         "0 texts"},
        {"{" PLAIN ",\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"a\",0],"
         "\"cls\":[\"x\",9]}}",
         "no token's"},
        {"{" PLAIN ",\"added_tokens\":{}}", "\"added_tokens\" must be an array"},
        {"{" PLAIN ",\"added_tokens\":[{\"id\":1}]}", "without \"content\""},
        {"{" PLAIN ",\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]}", "has id 1, but 0"},
        {"{" PLAIN ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]}", "which is \"b\""},
        {"{" PLAIN ",\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":7,\"content\":\"y\"}]}",
         "the same id 7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tokenizer *t;
        error_clear();
        write_file("tokenizer.json", cases[i].json, strlen(cases[i].json));
        assert_int_equal(tokenizer_open(&t, folder), -1);
        assert_null(t);
        assert_int_equal(error_exit_code(), 1);
        if (!strstr(error_message(), cases[i].message) || !strstr(error_message(), folder))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, error_message(), cases[i].message);
    }
}

static void test_deep_nesting_is_refused(void **state)
{
    (void)state;
    struct text json = {0};
    struct tokenizer *t;
    text_add_string(&json, "{" PLAIN ",\"normalizer\":");
    for (int i = 0; i < 30; i++)
        text_add_string(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    text_add_string(&json, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 30; i++)
        text_add_string(&json, "]}");
    text_add_string(&json, "}");
    write_file("tokenizer.json", json.bytes, json.n);
    assert_int_equal(tokenizer_open(&t, folder), -1);
    assert_non_null(strstr(error_message(), "nested"));
    text_clear(&json);
    for (int i = 0; i < 100000; i++)
        text_add_string(&json, "[");
    write_file("tokenizer.json", json.bytes, json.n);
    assert_int_equal(tokenizer_open(&t, folder), -1);
    text_free(&json);
    assert_int_equal(tokenizer_open(&t, "/nonexistent"), -1);
    assert_non_null(strstr(error_message(), "/nonexistent"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_special_tokens),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_deep_nesting_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
