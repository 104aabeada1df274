/* Tokenizers written by the test into a temporary folder: each stage of the file, and the properties that real files rely on
 * (scanners equal PCRE2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "normalize.h"
#include "pretokenize.h"
#include "rng.h"
#include "scan.h"
#include "support/tokenizer_file.h"
#include "unicode.h"

#include <stdio.h>
#include <string.h>

/* A SentencePiece vocabulary in the two forms it has: normalizer, and Metaspace. Ids in the order of the list. */
#define SP "\xe2\x96\x81"
#define SENTENCEPIECE_MODEL                                                                        \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,"                       \
    "\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0xC3>\":3,"             \
    "\"<0xA9>\":4,\"" SP "\":5,\"a\":6,\"b\":7,\"ab\":8,\"" SP "ab\":9,\"" SP SP "\":10,"          \
    "\"aa\":11,\"<0x0A>\":12},\"merges\":[\"a b\",\"" SP " ab\",\"" SP " " SP "\",\"a a\"]}"
#define SENTENCEPIECE_REST                                                                         \
    "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"      \
    "{\"id\":2,\"content\":\"</s>\",\"special\":true,\"normalized\":false,\"rstrip\":true}],"      \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"           \
    "{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"                \
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},"             \
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"          \
    "{\"String\":\"" SP "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"                      \
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
#define PREPEND_FORM                                                                               \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","                \
    "\"prepend\":\"" SP "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"                \
    "\"content\":\"" SP "\"}]},\"pre_tokenizer\":null,"
#define METASPACE_FORM                                                                             \
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" SP          \
    "\",\"prepend_scheme\":\"first\",\"split\":false},"

static void test_sentencepiece_forms(void **state)
{
    (void)state;
    struct tokenizer *t = open_text(
        "{\"truncation\":{\"max_length\":2},\"padding\":{\"x\":1}," PREPEND_FORM SENTENCEPIECE_REST
            SENTENCEPIECE_MODEL "}");
    assert_ids(t, "ab", 2, false, IDS(9));
    assert_ids(t, "ab", 2, true, IDS(1, 9));
    assert_ids(t, "", 0, true, IDS(1));
    assert_ids(t, "ab ab  ab", 9, false,
               IDS(9, 9, 5, 9)); /* a space and ab merge before two spaces do */
    tokenizer_close(t);
}

static void test_sentencepiece_merges_follow_rank(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{" PREPEND_FORM SENTENCEPIECE_REST SENTENCEPIECE_MODEL "}");
    assert_ids(t, "\xc3\xa9", 2, false, IDS(5, 3, 4)); /* bytes of a missing character */
    assert_ids(t,
               "\xe4\xb8\xad\xe4\xb8\xad"
               "a",
               7, false, IDS(5, 0, 6));            /* unknown ones are one <unk> */
    assert_ids(t, "aaa", 3, false, IDS(5, 11, 6)); /* leftmost first */
    assert_ids(t, "a</s>  \n b", 10, false,
               IDS(5, 6, 2, 5, 7));                        /* rstrip; each part is prepended to */
    assert_ids(t, "a\xff\x62", 3, false, IDS(5, 6, 0, 7)); /* U+FFFD is <unk> here */
    assert_text(t, false,
                "<s> ab\xc3\xa9"
                "a\xef\xbf\xbd"
                "a",
                IDS(1, 9, 3, 4, 6, 3, 6));
    assert_text(t, false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
                IDS(3, 4, 3)); /* a run is all or nothing */
    assert_text(t, true, "ab", IDS(1, 9, 2, 400, -1));
    tokenizer_close(t);
}

static void test_metaspace_prepends_to_the_first_part_only(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{" METASPACE_FORM SENTENCEPIECE_REST SENTENCEPIECE_MODEL "}");
    assert_ids(t, "ab", 2, false, IDS(9));
    assert_ids(t, " ab", 3, false, IDS(9));
    assert_ids(t, "<s>ab", 5, false, IDS(1, 8));
    assert_ids(t, "ab</s>ab", 8, false, IDS(9, 2, 8));
    tokenizer_close(t);
}

static void test_added_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = open_text(
        "{\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"vocab\":{\"a\":0,\"b\":1,\" \":2,"
        "\"\xc3\xa9\":3},\"merges\":[]},\"added_tokens\":["
        "{\"id\":4,\"content\":\"<x>\",\"normalized\":false},"
        "{\"id\":5,\"content\":\"<x>y\",\"normalized\":false},"
        "{\"id\":6,\"content\":\"ab\",\"normalized\":true,\"single_word\":true},"
        "{\"id\":7,\"content\":\"<m>\",\"normalized\":false,\"lstrip\":true,\"special\":true},"
        "{\"id\":9,\"content\":\"e\xcc\x81\xcc\x81\",\"normalized\":true}]}");
    assert_ids(t, "a<x>b", 5, false, IDS(0, 4, 1));
    assert_ids(t, "a<x>yb", 6, false, IDS(0, 5, 1));                /* longest */
    assert_ids(t, "ab aab ab", 9, false, IDS(6, 2, 0, 0, 1, 2, 6)); /* single_word */
    assert_ids(t, "a  <m>b", 7, false, IDS(0, 7, 1));               /* lstrip */
    assert_ids(t, "  <m>", 5, false, IDS(7));
    assert_ids(t, "e\xcc\x81", 3, false, IDS(3));        /* normalized to one character */
    assert_ids(t, "\xc3\xa9\xcc\x81", 4, false, IDS(9)); /* found in its normal form */
    assert_int_equal(tokenizer_vocab_size(t), 10);
    assert_null(tokenizer_token(t, 8));
    assert_text(t, false, "a <m> b", IDS(0, 7, 1)); /* no decoder: joined with spaces */
    assert_text(t, true, "a b", IDS(0, 7, 1, 8));
    tokenizer_close(t);
}

static void test_split_behaviors(void **state)
{
    (void)state;
    static const struct {
        const char *behavior, *want;
    } cases[] = {{"Removed", "the|final|countdown"},
                 {"Isolated", "the|-|final|-|-|countdown"},
                 {"MergedWithPrevious", "the-|final-|-|countdown"},
                 {"MergedWithNext", "the|-final|-|-countdown"},
                 {"Contiguous", "the|-|final|--|countdown"}};
    const char text[] = "the-final--countdown";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *spec = json_pack("{ss s{ss} ss sb}", "type", "Split", "pattern", "String", "-",
                                 "behavior", cases[i].behavior, "invert", 0);
        struct pretokenizer p;
        struct pretokenizer_work w = {0};
        struct text joined = {0};
        assert_int_equal(pretokenizer_open(&p, spec), 0);
        assert_int_equal(pretokenize(&p, &w, text, strlen(text), true), 0);
        for (size_t k = 0; k < w.words.n; k++) {
            text_add_string(&joined, k ? "|" : "");
            text_add(&joined, w.text + w.words.at[k].start, w.words.at[k].n);
        }
        assert_string_equal(joined.bytes, cases[i].want);
        text_free(&joined);
        pretokenizer_work_free(&w);
        pretokenizer_close(&p);
        json_decref(spec);
    }
}

/* One character: often ASCII, white space or an apostrophe, else one that PCRE2's tables class as ours do. */
static size_t add_random_character(char *s, const struct unicode_classes *u, struct pattern_work *w,
                                   const struct pattern *class_of, uint32_t r)
{
    static const char *const common[] = {"'",
                                         "'s",
                                         "'RE",
                                         "'\xc5\xbf",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\r\n",
                                         "\t",
                                         "a",
                                         "Z",
                                         "1",
                                         "22",
                                         "!",
                                         ".",
                                         "\xc2\x85",
                                         "\xe3\x80\x80",
                                         "\xe1\xa0\x8e",
                                         "\xc2\xbd",
                                         "\xcc\x81"};
    if (r % 3) {
        const char *c = common[(r >> 8) % (sizeof common / sizeof common[0])];
        strcpy(s, c);
        return strlen(c);
    }
    uint32_t c = (r >> 8) % (r % 2 ? 0x3000 : 0x20000);
    c = c >= 0xd800 && c < 0xe000 ? 'x' : c ? c : 1;
    size_t n = (size_t)utf8_encode(s, c);
    struct match m = {.text = s, .n = n};
    int theirs = 0; /* other */
    for (int i = 0; i < 2; i++)
        if (pattern_next(&class_of[i], w, &m) == 1)
            theirs = i ? UNICODE_NUMBER : UNICODE_LETTER;
        else
            m = (struct match){.text = s, .n = n};
    int ours = (int)unicode_class(u, c);
    if (ours != UNICODE_SPACE && ours != theirs) { /* assigned after the Unicode of this PCRE2 */
        s[0] = '-';
        return 1;
    }
    return n;
}

static void test_scanners_equal_pcre2(void **state)
{
    (void)state;
    static const char *const regex[] = {SCAN_GPT2_REGEX, SCAN_LLAMA3_REGEX, SCAN_QWEN2_REGEX};
    struct unicode_classes *u = unicode_classes_open();
    struct pattern class_of[2];
    struct pattern_work w = {0};
    assert_int_equal(pattern_open_regex(&class_of[0], "\\p{L}", 5), 0);
    assert_int_equal(pattern_open_regex(&class_of[1], "\\p{N}", 5), 0);
    struct rng_key key = rng_key(2, RNG_TEST, 0, 0);
    for (int k = 0; k < 3; k++) {
        struct pattern p;
        assert_int_equal(pattern_open_regex(&p, regex[k], strlen(regex[k])), 0);
        scan_word scan = scan_find(regex[k]);
        assert_true(scan != NULL);
        for (uint64_t round = 0; round < 4000; round++) {
            char text[512];
            size_t n = 0;
            uint32_t i = 0, length = 1 + rng_word(key, (uint32_t)k, round, 1, 0) % 40;
            while (i < length)
                n += add_random_character(text + n, u, &w, class_of,
                                          rng_word(key, (uint32_t)k, round, 2, i++));
            struct match m = {.text = text, .n = n};
            for (size_t at = 0; at < n; at = m.end) {
                assert_int_equal(pattern_next(&p, &w, &m), 1);
                assert_int_equal(m.start, at);
                assert_int_equal(scan(u, text, at, n), m.end);
            }
        }
        pattern_close(&p);
    }
    pattern_close(&class_of[0]);
    pattern_close(&class_of[1]);
    pattern_work_free(&w);
    free(u);
}

static void assert_normal(const char *type, const char *text, const char *want)
{
    json_t *spec = json_pack("{ss}", "type", type);
    struct normalizer nz;
    struct normalizer_work w = {0};
    size_t n = strlen(text);
    assert_int_equal(normalizer_open(&nz, spec), 0);
    assert_int_equal(normalize(&nz, &w, &text, &n), 0);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(text, want, n);
    normalizer_work_free(&w);
    normalizer_close(&nz);
    json_decref(spec);
}

static void test_normal_forms(void **state)
{
    (void)state;
    assert_normal("NFC", "plain", "plain");
    assert_normal("NFC", "cafe\xcc\x81 e\xcc\x81", "caf\xc3\xa9 \xc3\xa9");
    assert_normal("NFC", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    assert_normal("NFC", "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"); /* marks in canonical order */
    assert_normal("NFC", "\xe2\x84\xab", "\xc3\x85");               /* Angstrom sign */
    assert_normal("NFD", "\xc3\xa9", "e\xcc\x81");
    assert_normal("NFKC", "\xef\xac\x81", "fi");
    assert_normal("NFC", "\xcc\x83\xe0\xb4\xbb",
                  "\xcc\x83\xe0\xb4\xbb"); /* U+0D3B: newer than 9.0 */
    assert_normal("Lowercase",
                  "\xc3\x89"
                  "A",
                  "\xc3\xa9"
                  "a");
}

/* An added token that is white space, and takes the white space around it: quadratic if each looked at all of it. */
static void test_long_white_space_around_added_tokens(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct tokenizer *t = open_text("{\"added_tokens\":[{\"id\":1,\"content\":\" \",\"lstrip\":true,\"rstrip\":true}],"
                                    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    char *text = malloc(N);
    struct token_list ids = {0};
    memset(text, ' ', N);
    text[N - 1] = 'a';
    assert_int_equal(tokenizer_encode(t, &ids, text, N, false), 0);
    assert_int_equal(ids.n, N);
    assert_int_equal(ids.ids[N - 1], 0);
    token_list_free(&ids);
    free(text);
    tokenizer_close(t);
}

static void test_regex_that_backtracks_without_end_is_an_error(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},"
                                    "\"behavior\":\"Isolated\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode(t, &ids, text, sizeof text - 1, false), -1);
    assert_non_null(strstr(error_message(), "a regex of the tokenizer failed"));
    token_list_free(&ids);
    tokenizer_close(t);
}

static void test_regex_needs_no_match_limit(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct tokenizer *t = open_text(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|b)+|\\\\s+\"},"
        "\"behavior\":\"Removed\",\"invert\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
        "\"aa\":1},\"merges\":[\"a a\"]}}");
    char *text = malloc(N);
    struct token_list ids = {0};
    memset(text, 'a', N);
    assert_int_equal(tokenizer_encode(t, &ids, text, N, false), 0);
    assert_int_equal(ids.n, N / 2);
    token_list_free(&ids);
    free(text);
    tokenizer_close(t);
}

static void test_repair_of_invalid_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {{"a\xff"
                  "b",
                  "a\xef\xbf\xbd"
                  "b"},
                 {"\xe2\x96", "\xef\xbf\xbd"}, /* cut off: one */
                 {"\xe2\x96x", "\xef\xbf\xbdx"},
                 {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong: one a byte */
                 {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
                 {"\xf0\x9f\x98", "\xef\xbf\xbd"},
                 {"\xf5\x80", "\xef\xbf\xbd\xef\xbf\xbd"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct text out = {0};
        utf8_repair(&out, cases[i].bytes, strlen(cases[i].bytes));
        assert_string_equal(text_string(&out), cases[i].want);
        text_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentencepiece_forms),
        cmocka_unit_test(test_sentencepiece_merges_follow_rank),
        cmocka_unit_test(test_metaspace_prepends_to_the_first_part_only),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_split_behaviors),
        cmocka_unit_test(test_scanners_equal_pcre2),
        cmocka_unit_test(test_normal_forms),
        cmocka_unit_test(test_long_white_space_around_added_tokens),
        cmocka_unit_test(test_regex_that_backtracks_without_end_is_an_error),
        cmocka_unit_test(test_regex_needs_no_match_limit),
        cmocka_unit_test(test_repair_of_invalid_utf8),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
