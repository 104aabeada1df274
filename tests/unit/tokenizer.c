/* Tokenizers written by the test into a temporary folder: each stage of the file, what is refused, and the properties that
 * real files rely on (scanners equal PCRE2, both merge algorithms equal the definition, long texts are no problem). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpe.h"
#include "bpe_train.h"
#include "error.h"
#include "file.h"
#include "normalize.h"
#include "pretokenize.h"
#include "rng.h"
#include "scan.h"
#include "tokenizer.h"
#include "unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/rlhf-tokenizer-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static void write_file(const char *name, const char *content, size_t n)
{
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, content, n), 0);
    free(path);
}

static struct tokenizer *open_text(const char *json)
{
    struct tokenizer *t;
    write_file("tokenizer.json", json, strlen(json));
    if (tokenizer_open(&t, folder))
        fail_msg("%s", error_message());
    return t;
}

static void assert_ids(const struct tokenizer *t, const char *text, size_t n, bool special,
                       int n_want, const int32_t *want)
{
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode(t, &ids, text, n, special), 0);
    if (ids.n != n_want || memcmp(ids.ids, want, (size_t)n_want * sizeof *want)) {
        for (int64_t i = 0; i < ids.n; i++)
            printf(" %d", ids.ids[i]);
        fail_msg("wrong ids of \"%s\"", text);
    }
    token_list_free(&ids);
}
#define IDS(...)                                                                                   \
    (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (int32_t[])                         \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static void assert_text(const struct tokenizer *t, bool skip, const char *want, int n,
                        const int32_t *ids)
{
    struct text text = {0};
    assert_int_equal(tokenizer_decode(t, &text, ids, n, skip), 0);
    assert_string_equal(text_string(&text), want);
    assert_true(text.n <= tokenizer_text_max(t, n));
    text_free(&text);
}

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

static void test_names_of_special_tokens(void **state)
{
    (void)state;
    const char config[] =
        "{\"model_max_length\":1000000000000000019884624838656,"
        "\"bos_token\":{\"content\":\"a\"},\"eos_token\":\"b\",\"pad_token\":null}";
    const char map[] = "{\"pad_token\":\"c\",\"eos_token\":\"a\",\"unk_token\":\"absent\"}";
    write_file("tokenizer_config.json", config, strlen(config));
    write_file("special_tokens_map.json", map, strlen(map));
    struct tokenizer *t = open_text(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2},\"merges\":[]}}");
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 1);
    assert_int_equal(tokenizer_pad(t), 2);
    assert_int_equal(tokenizer_unk(t), -1);
    tokenizer_close(t);
    for (int i = 0; i < 2; i++) {
        char *path = file_join(folder, i ? "special_tokens_map.json" : "tokenizer_config.json");
        assert_int_equal(file_remove_tree(path), 0);
        free(path);
    }
}

/* Behaviours of Split on the example of the library's documentation. */
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

#define MODEL(rest) "{\"model\":{\"type\":\"BPE\"," rest "}}"
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
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}",
         "\"WordPiece\" is not supported"},
        {"{\"model\":{\"continuing_subword_prefix\":\"##\",\"vocab\":{\"a\":0}}}", "\"WordPiece\""},
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
        {"{" PLAIN ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", "\"BertNormalizer\" is not"},
        {"{" PLAIN ",\"normalizer\":{\"type\":7}}", "\"type\" must be a string"},
        {"{" PLAIN ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{}}}",
         "pattern"},
        {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}",
         "\"BertPreTokenizer\" is"},
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
        {"{" PLAIN ",\"decoder\":{\"type\":\"WordPiece\"}}", "\"WordPiece\" is not supported"},
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
        cmocka_unit_test(test_trained_tokenizer_brings_any_text_back),
        cmocka_unit_test(test_text_max_holds_for_any_ids),
        cmocka_unit_test(test_training_twice_gives_the_same_file),
        cmocka_unit_test(test_training_refuses_a_vocabulary_too_small),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_names_of_special_tokens),
        cmocka_unit_test(test_split_behaviors),
        cmocka_unit_test(test_scanners_equal_pcre2),
        cmocka_unit_test(test_merging_follows_the_definition),
        cmocka_unit_test(test_ignore_merges_takes_whole_words),
        cmocka_unit_test(test_normal_forms),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_long_white_space_around_added_tokens),
        cmocka_unit_test(test_regex_that_backtracks_without_end_is_an_error),
        cmocka_unit_test(test_regex_needs_no_match_limit),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_repair_of_invalid_utf8),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
