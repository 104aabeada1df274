/* What encoder models' tokenizers have: WordPiece in both layouts of the file, BertNormalizer, BertPreTokenizer, the decoder
 * with its clean-up, BertProcessing and RobertaProcessing, and truncation. The ids wanted are those that `tokenizers` 0.23.3
 * gives for the same files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "categories.h"
#include "error.h"
#include "file.h"
#include "support/tokenizer_file.h"
#include "trie.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB                                                                                                                    \
    "\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"un\":3,\"##aff\":4,\"##able\":5,\"##a\":6,\"a\":7,\"##f\":8,"              \
    "\"affable\":9,\"!\":10,\"'\":11,\"s\":12,\"cafe\":13,\"caf\":14,\"##\xc3\xa9\":15,\"\xe4\xb8\xad\":16,\"n't\":17,"          \
    "\"##.\":18,\",\":19,\"do\":20,\"not\":21,\"\xcf\x83\":22,\"##\xcf\x83\":23}"
#define LIMITS "\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":8"
#define MODEL  "\"model\":{\"type\":\"WordPiece\"," LIMITS "," VOCAB "}"
#define BERT(strip_accents, lowercase)                                                                                           \
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_"                     \
    "accents\":" strip_accents ",\"lowercase\":" lowercase "},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
#define AROUND "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],\"cls\":[\"[CLS]\",1]},"
#define ADDED                                                                                                                    \
    "\"added_tokens\":[{\"id\":1,\"content\":\"[CLS]\",\"special\":true,\"normalized\":false},"                                  \
    "{\"id\":2,\"content\":\"[SEP]\",\"special\":true,\"normalized\":false}],"
#define DECODER(cleanup) "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":" cleanup "},"

static void encodes(const struct tokenizer *t, const char *text, int n, const int32_t *want)
{
    assert_ids(t, text, strlen(text), false, n, want);
}

static void test_longest_piece_first(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{" BERT("null", "true") MODEL "}");
    encodes(t, "unaffable", IDS(0)); /* 9 characters, 8 are allowed */
    encodes(t, "unaffabl", IDS(0));  /* no piece for the end: the whole word is unknown */
    encodes(t, "unaffa", IDS(3, 4, 6));
    encodes(t, "unaf", IDS(3, 6, 8)); /* shorter pieces where the longest does not fit */
    encodes(t, "affable un a", IDS(9, 3, 7));
    encodes(t, "a!a's", IDS(7, 10, 7, 11, 12)); /* punctuation stands alone */
    encodes(t, "", 0, NULL);
    encodes(t, "xx a", IDS(0, 7));
    tokenizer_close(t);
}

static void test_old_layout_names_no_type(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{" BERT("null", "true") "\"model\":{" LIMITS "," VOCAB "}}");
    encodes(t, "unaffa affable", IDS(3, 4, 6, 9));
    assert_int_equal(tokenizer_vocab_size(t), 24);
    assert_string_equal(tokenizer_token(t, 4), "##aff");
    assert_int_equal(tokenizer_token_id(t, "##able"), 5);
    tokenizer_close(t);
}

/* Accents go with lower case unless the file says otherwise. */
static void test_bert_normalizer(void **state)
{
    (void)state;
    static const char text[] = "CAF\xc3\x89 caf\xc3\xa9";
    struct tokenizer *t = open_text("{" BERT("null", "true") MODEL "}");
    encodes(t, text, IDS(13, 13));
    encodes(t,
            "A\xe4\xb8\xad"
            "a",
            IDS(7, 16, 7)); /* ideographs stand alone */
    encodes(t,
            "a\xe2\x80\x8b!\x7f\xef\xbf\xbd\xc2\xa0"
            "a",
            IDS(7, 10, 7));                      /* zero width and control characters go */
    assert_ids(t, "a\0a", 3, false, IDS(7, 6));  /* NUL too */
    encodes(t, "\xce\xa3\xce\xa3", IDS(22, 23)); /* no final form of sigma */
    tokenizer_close(t);
    t = open_text("{" BERT("false", "true") MODEL "}");
    encodes(t, text, IDS(14, 15, 14, 15));
    tokenizer_close(t);
    t = open_text("{" BERT("true", "false") MODEL "}");
    encodes(t, text, IDS(0, 13));
    tokenizer_close(t);
    t = open_text("{" BERT("null", "false") MODEL "}");
    encodes(t, text, IDS(0, 14, 15));
    tokenizer_close(t);
}

static void test_decoder_cleans_up(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{" ADDED DECODER("true") MODEL "}");
    assert_text(t, false, "[CLS] unaffable! a ' sn't do not", IDS(1, 3, 4, 5, 10, 7, 11, 12, 17, 20, 21));
    assert_text(t, true, "unaffable", IDS(1, 3, 4, 5, 2));
    assert_text(t, false, "##aff un", IDS(4, 3)); /* nothing to continue */
    assert_text(t, false, "!,. '", IDS(10, 19, 18, 11));
    assert_text(t, false, "", 0, NULL);
    tokenizer_close(t);
    t = open_text("{" ADDED DECODER("false") MODEL "}");
    assert_text(t, false, "[CLS] unaffable ! a ' s n't do not", IDS(1, 3, 4, 5, 10, 7, 11, 12, 17, 20, 21));
    assert_text(t, false, "! ,. '", IDS(10, 19, 18, 11));
    tokenizer_close(t);
}

/* Rules that no token of a vocabulary meets, but an added one may. */
static void test_cleanup_rules(void **state)
{
    (void)state;
    static const struct {
        const char *content, *want;
    } cases[] = {
        {"a . b ? c ! d , e", "a. b? c! d, e"}, {"a ' b 'm", "a'b'm"}, {"I do not", "I don't"}, {"a ' 've 're", "a''ve're"},
        {"a n't it 's", "an't it's"},           {" . . ", ".. "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[1024];
        snprintf(json, sizeof json, "{\"added_tokens\":[{\"id\":24,\"content\":\"%s\"}]," DECODER("true") MODEL "}",
                 cases[i].content);
        struct tokenizer *t = open_text(json);
        assert_text(t, false, cases[i].want, IDS(24));
        tokenizer_close(t);
    }
}

static void assert_truncated(const struct tokenizer *t, const char *text, int64_t max_ids, int n, const int32_t *want)
{
    struct token_list ids = {0};
    token_list_add(&ids, 99); /* stays: ids are appended */
    assert_int_equal(tokenizer_encode_truncated(t, &ids, text, strlen(text), max_ids), 0);
    assert_int_equal(ids.n, n + 1);
    assert_int_equal(ids.ids[0], 99);
    assert_memory_equal(ids.ids + 1, want, (size_t)n * sizeof *want);
    token_list_free(&ids);
}

static void test_truncation_keeps_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{\"truncation\":{\"max_length\":3}," BERT("null", "true") AROUND ADDED MODEL "}");
    static const char text[] = "un a un a [SEP] !";
    assert_ids(t, text, strlen(text), true, IDS(1, 3, 7, 3, 7, 2, 10, 2));
    assert_truncated(t, text, 2, IDS(1, 2));
    assert_truncated(t, text, 3, IDS(1, 3, 2));
    assert_truncated(t, text, 6, IDS(1, 3, 7, 3, 7, 2));
    assert_truncated(t, text, 8, IDS(1, 3, 7, 3, 7, 2, 10, 2));
    assert_truncated(t, text, 512, IDS(1, 3, 7, 3, 7, 2, 10, 2));
    assert_truncated(t, "", 2, IDS(1, 2));
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode_truncated(t, &ids, text, strlen(text), 1), -1);
    assert_int_equal(ids.n, 0);
    assert_non_null(strstr(error_message(), "no room for the 2 special tokens"));
    error_clear();
    tokenizer_close(t);
}

/* RobertaProcessing, and a <mask> that takes the white space before it. */
static void test_roberta(void **state)
{
    (void)state;
    struct tokenizer *t =
        open_text("{\"added_tokens\":[{\"id\":3,\"content\":\"<mask>\",\"lstrip\":true,\"normalized\":false,\"special\":true}],"
                  "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true},"
                  "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",2],\"cls\":[\"<s>\",0],"
                  "\"trim_offsets\":true,\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},"
                  "\"model\":{\"vocab\":{\"<s>\":0,\"a\":1,\"</s>\":2,\"\xc4\xa0\":4,\"\xc4\xa0"
                  "a\":5},"
                  "\"merges\":[\"\xc4\xa0 a\"]}}");
    assert_ids(t, "a  <mask> a", 11, true, IDS(0, 1, 3, 5, 2));
    assert_truncated(t, "a  <mask> a", 4, IDS(0, 1, 3, 2));
    assert_text(t, true, "<s>a a</s>", IDS(0, 1, 3, 5, 2)); /* only <mask> is said to be special */
    tokenizer_close(t);
}

static void test_byte_level_words(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},"
                                    "\"model\":{\"type\":\"WordPiece\"," LIMITS ",\"vocab\":{\"[UNK]\":0,\"\xc4\xa0\":1,"
                                    "\"##b\":2,\"\xc4\xa0"
                                    "a\":3}}}");
    encodes(t, "ab b", IDS(3, 2, 1, 2));
    tokenizer_close(t);
}

/* Where Unicode's versions differ: these characters changed class or came after the version that the library has. */
static void test_characters_have_the_classes_of_the_library(void **state)
{
    (void)state;
    assert_true(category_is_punctuation('$') && category_is_punctuation(0x166d)); /* 12.0 made this a symbol */
    assert_false(category_is_punctuation(0x2e52));                                /* of 14.0 */
    assert_true(category_is_other(0xe000) && category_is_other(0xad));
    assert_false(category_is_other('\n') || category_is_other(0x110cd)); /* of 11.0 */
    assert_true(category_is_nonspacing(0x301) && category_is_nonspacing(0x1734));
    assert_false(category_is_nonspacing(0x1abf)); /* of 13.0 */
    assert_true(category_is_mark(0x903) && category_is_mark(0x20dd));
    assert_false(category_is_mark(0x9fe)); /* of 11.0 */
    assert_true(category_is_numeric(0x216b) && category_is_numeric(0x16d70));
    assert_int_equal(category_lowercase(0x16ea0), 0x16ebb); /* of 17.0 */
    assert_int_equal(category_lowercase(0xa7dc), 0x19b);
    assert_int_equal(category_lowercase(0x3a3), 0x3c3);
    assert_int_equal(category_lowercase('z'), 'z');
}

/* Old folders: the stages are those of the file that transformers makes of vocab.txt. */
static void test_vocab_alone(void **state)
{
    (void)state;
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\r\nfilm\na\n##s\nA\n!";
    char *old = file_join(folder, "old"), *path = file_join(old, "vocab.txt"), *config = file_join(old, "tokenizer_config.json");
    struct tokenizer *t;
    assert_int_equal(file_make_folders(old), 0);
    assert_int_equal(tokenizer_open(&t, old), -1);
    assert_non_null(strstr(error_message(), "tokenizer.json: cannot open"));
    assert_int_equal(file_write_atomic(path, vocab, strlen(vocab)), 0);
    assert_int_equal(tokenizer_open(&t, old), 0);
    assert_ids(t, "A films!", 8, true, IDS(2, 6, 5, 7, 9, 3));
    assert_ids(t, "a [MASK]", 8, false, IDS(6, 4));
    assert_text(t, true, "a films!", IDS(2, 6, 5, 7, 9, 3));
    tokenizer_close(t);
    assert_int_equal(file_write_atomic(config, "{\"do_lower_case\": false}", 24), 0);
    assert_int_equal(tokenizer_open(&t, old), 0);
    assert_ids(t, "A films!", 8, true, IDS(2, 8, 5, 7, 9, 3));
    tokenizer_close(t);
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } broken[] = {{"[UNK]\n\xff\n", 8, "vocab.txt:2: holds bytes"},
                  {"a\0b\n", 4, "vocab.txt:1: holds bytes"},
                  {"[UNK]\n[SEP]\n", 12, "no line \"[PAD]\""},
                  {"", 0, "no line \"[UNK]\""}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_int_equal(file_write_atomic(path, broken[i].bytes, broken[i].n), 0);
        assert_int_equal(tokenizer_open(&t, old), -1);
        assert_non_null(strstr(error_message(), broken[i].message));
    }
    error_clear();
    free(old);
    free(path);
    free(config);
}

static void test_trie(void **state)
{
    (void)state;
    struct trie t = {0};
    int32_t value = -1;
    assert_int_equal(trie_longest(&t, "a", 1, &value), 0);
    trie_add(&t, "", 0, 1);
    trie_add(&t, "ab", 2, 2);
    trie_add(&t, "abcd", 4, 3);
    trie_add(&t, "ab", 2, 4);
    assert_int_equal(trie_longest(&t, "abcx", 4, &value), 2);
    assert_int_equal(value, 2);
    assert_int_equal(trie_longest(&t, "abcde", 5, &value), 4);
    assert_int_equal(value, 3);
    assert_int_equal(trie_longest(&t, "abcd", 3, &value), 2);
    assert_int_equal(trie_longest(&t, "b", 1, &value), 0);
    trie_free(&t);
    trie_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_piece_first),
        cmocka_unit_test(test_old_layout_names_no_type),
        cmocka_unit_test(test_bert_normalizer),
        cmocka_unit_test(test_decoder_cleans_up),
        cmocka_unit_test(test_cleanup_rules),
        cmocka_unit_test(test_truncation_keeps_special_tokens),
        cmocka_unit_test(test_roberta),
        cmocka_unit_test(test_byte_level_words),
        cmocka_unit_test(test_characters_have_the_classes_of_the_library),
        cmocka_unit_test(test_vocab_alone),
        cmocka_unit_test(test_trie),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
