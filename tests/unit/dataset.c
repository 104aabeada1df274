/* Tests of src/dataset.c, on small files in a temporary folder, and on real ones under $RLHF_HPC_DATA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset.h"
#include "error.h"
#include "file.h"

struct fixture {
    char folder[64];
    char path[128];
    struct settings_data s;
};

static int setup(void **state)
{
    static char names[7][16] = {"text", "prompt", "chosen", "rejected", "label", "completion", "messages"};
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    strcpy(f->folder, "/tmp/rlhf-dataset-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/f", f->folder);
    f->s = (struct settings_data){.path = f->path,
                                  .eval_path = f->path,
                                  .text_field = names[0],
                                  .prompt_field = names[1],
                                  .chosen_field = names[2],
                                  .rejected_field = names[3],
                                  .label_field = names[4],
                                  .completion_field = names[5],
                                  .messages_field = names[6]};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc = file_remove_tree(f->folder);
    free(f);
    return rc;
}

static void put(const struct fixture *f, const char *bytes)
{
    assert_int_equal(file_write_atomic(f->path, bytes, strlen(bytes)), 0);
}

static void expect_error(const struct fixture *f, unsigned need, const char *message)
{
    struct dataset d;
    error_clear();
    assert_int_equal(dataset_load(&d, &f->s, need), -1);
    assert_int_equal(error_kind(), ERR_FILE);
    size_t n = strlen(f->path);
    assert_memory_equal(error_message(), f->path, n);
    assert_string_equal(error_message() + n, message);
    dataset_free(&d);
    dataset_free(&d);
}

static void test_jsonl(void **state)
{
    struct fixture *f = *state;
    struct dataset d;
    put(f, "{\"text\": \"a\\u0000b\", \"label\": 1, \"id\": 3}\n"
           "\n"
           "{\"prompt\": \"p\", \"text\": null, \"label\": \"spam\"}\n"
           "{\"input_ids\": [0, 5, 2147483647], \"label\": false}\n"
           "{\"text\": \"\", \"chosen\": [{\"role\": \"user\"}]}\n"); /* chosen is not asked for */
    assert_int_equal(dataset_load(&d, &f->s, 0), 0);
    assert_int_equal(d.n, 4);
    assert_int_equal(d.row[0].n_text, 3);
    assert_memory_equal(d.row[0].text, "a\0b", 4);
    assert_true(d.row[0].has_label && d.row[0].label == 1);
    assert_null(d.row[1].text);
    assert_string_equal(d.row[1].prompt, "p");
    assert_true(d.row[1].has_label && d.row[1].label == -1);
    assert_string_equal(d.row[1].label_name, "spam");
    assert_int_equal(d.row[1].line, 3);
    assert_int_equal(d.row[2].n_ids, 3);
    assert_int_equal(d.row[2].input_ids[2], INT32_MAX);
    assert_true(d.row[2].has_label && d.row[2].label == 0);
    assert_int_equal(d.row[3].n_text, 0);
    dataset_free(&d);
}

static void test_jsonl_named_fields(void **state)
{
    struct fixture *f = *state;
    struct settings_data s = f->s;
    char name[] = "review";
    f->s.text_field = name;
    put(f, "{\"review\": \"r\", \"text\": 3}\n");
    struct dataset d;
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT), 0);
    assert_string_equal(d.row[0].text, "r");
    dataset_free(&d);
    f->s = s;
    put(f, "{\"chosen\": \"c\", \"rejected\": \"r\", \"prompt\": \"p\"}\n");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_PAIR | DATASET_PROMPT), 0);
    assert_string_equal(d.row[0].chosen, "c");
    assert_string_equal(d.row[0].rejected, "r");
    dataset_free(&d);
}

static void test_jsonl_errors(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *bytes;
        unsigned need;
        const char *message;
    } cases[] = {
        {"", 0, ": holds no data"},
        {"\n\n", 0, ": holds no data"},
        {"{\"text\": \"a\"}\n{\"txt\": \"a\", \"id\": 1}\n", DATASET_TEXT,
         ":2: no field \"text\"; there is \"txt\", \"id\""},
        {"{}\n", 0, ":1: no field \"text\"; there is none"},
        {"{\"text\": \"a\"}\n", DATASET_PROMPT, ":1: no field \"prompt\"; there is \"text\""},
        {"{\"chosen\": \"a\"}\n", DATASET_PAIR, ":1: no field \"rejected\"; there is \"chosen\""},
        {"{\"text\": \"a\"}\n", DATASET_TEXT | DATASET_LABEL,
         ":1: no field \"label\"; there is \"text\""},
        {"{\"text\": \"a\", \"label\": 1.5}\n", DATASET_LABEL,
         ":1: the field \"label\" is a float, not a label (an integer or a name)"},
        {"{\"text\": \"a\", \"label\": 3000000000}\n", DATASET_LABEL,
         ":1: the field \"label\" is too large, not a label (an integer or a name)"},
        {"{\"text\": 3}\n", 0, ":1: the field \"text\" is an integer, not a string"},
        {"{\"input_ids\": []}\n", 0, ":1: \"input_ids\" is empty, not an array of token numbers"},
        {"{\"input_ids\": 3}\n", 0,
         ":1: \"input_ids\" is an integer, not an array of token numbers"},
        {"{\"input_ids\": [1, -1]}\n", 0, ":1: input_ids[1] is no token number"},
        {"{\"input_ids\": [1, 2.0]}\n", 0, ":1: input_ids[1] is no token number"},
        {"{\"input_ids\": [2147483648]}\n", 0, ":1: input_ids[0] is no token number"},
        {"[]\n", 0, ":1: an array where an object { .. } was expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(f, cases[i].bytes);
        expect_error(f, cases[i].need, cases[i].message);
    }
    assert_int_equal(remove(f->path), 0);
    struct dataset d;
    assert_int_equal(dataset_load(&d, &f->s, 0), -1);
    assert_non_null(strstr(error_message(), f->path));
    dataset_free(&d);
}

static void test_csv(void **state)
{
    struct fixture *f = *state;
    struct dataset d;
    f->s.format = DATA_FORMAT_CSV;
    put(f, "label,text\n1,\"a,\nb\"\n-2,c\nx,d\n");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT), 0);
    assert_int_equal(d.n, 3);
    assert_string_equal(d.row[0].text, "a,\nb");
    assert_int_equal(d.row[0].label, 1);
    assert_int_equal(d.row[1].label, -2);
    assert_int_equal(d.row[1].line, 4);
    assert_string_equal(d.row[2].label_name, "x");
    dataset_free(&d);
    expect_error(f, DATASET_PROMPT, ":2: no field \"prompt\"; there is \"label\", \"text\"");
    put(f, "label,text\n,a\n");
    expect_error(f, DATASET_LABEL, ":2: no field \"label\"; there is \"label\", \"text\"");
    put(f, "prompt,completion\np,\"c\nd\"\n");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT | DATASET_COMPLETION), 0);
    assert_string_equal(d.row[0].prompt, "p");
    assert_string_equal(d.row[0].completion, "c\nd");
    dataset_free(&d);
    put(f, "label,text\n1\n");
    expect_error(f, 0, ":2: 1 fields where the header has 2");
    put(f, "label,text\n");
    expect_error(f, 0, ": holds no data");
}

static void test_text_lines_and_blocks(void **state)
{
    struct fixture *f = *state;
    struct dataset d;
    f->s.format = DATA_FORMAT_TEXT;
    put(f, "one\r\n\n two <|endoftext|>\nthree");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT), 0);
    assert_int_equal(d.n, 3);
    assert_string_equal(d.row[0].text, "one");
    assert_string_equal(d.row[1].text, " two <|endoftext|>");
    assert_int_equal(d.row[1].line, 3);
    assert_string_equal(d.row[2].text, "three");
    dataset_free(&d);
    put(f, "<|endoftext|>\n\none\n\ntwo\n<|endoftext|>\r\n\n<|endoftext|>\nthree\n\n");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT), 0);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.row[0].text, "one\n\ntwo");
    assert_int_equal(d.row[0].line, 3);
    assert_string_equal(d.row[1].text, "three");
    assert_int_equal(d.row[1].line, 9);
    dataset_free(&d);
    expect_error(f, DATASET_PROMPT,
                 ":3: no field \"prompt\"; there is \"text\" alone: this is a plain text file");
    put(f, "\n\n");
    expect_error(f, 0, ": holds no data");
}

static void test_min_chars_counts_code_points(void **state)
{
    struct fixture *f = *state;
    struct dataset d;
    f->s.min_chars = 3;
    put(f, "{\"text\": \"ab\"}\n{\"text\": \"\xc3\xa9\xc3\xa9\"}\n{\"text\": "
           "\"\xe2\x82\xac\xc3\xa9z\"}\n"
           "{\"prompt\": \"p\"}\n{\"input_ids\": [1]}\n");
    assert_int_equal(dataset_load(&d, &f->s, 0), 0);
    assert_int_equal(d.n, 2);
    assert_int_equal(d.n_short, 3);
    assert_int_equal(d.row[0].line, 3);
    assert_int_equal(d.row[1].n_ids, 1);
    dataset_free(&d);
    f->s.min_chars = 10;
    put(f, "{\"text\": \"ab\"}\n");
    expect_error(f, 0, ": all 1 rows have fewer than data.min_chars = 10 characters");
}

static void put_review(const struct fixture *f, const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->path, folder);
    assert_int_equal(file_make_folders(path), 0);
    char *file = file_join(path, name);
    assert_int_equal(file_write_atomic(file, name, strlen(name)), 0);
    free(file);
}

static void test_imdb(void **state)
{
    struct fixture *f = *state;
    struct dataset d;
    f->s.format = DATA_FORMAT_IMDB;
    assert_int_equal(file_make_folders(f->path), 0);
    expect_error(f, 0,
                 ": no imdb folder: neither neg/ and pos/ nor train/neg/ and train/pos/ are in it");
    put_review(f, "train/pos", "2_9.txt");
    put_review(f, "train/pos", "10_9.txt");
    put_review(f, "train/neg", "0_1.txt");
    put_review(f, "train/neg", "ignored.feat");
    put_review(f, "train/unsup", "0_0.txt");
    put_review(f, "test/pos", "7_7.txt");
    assert_int_equal(dataset_load(&d, &f->s, DATASET_TEXT | DATASET_LABEL), 0);
    assert_int_equal(d.n, 3);
    assert_string_equal(d.row[0].text, "0_1.txt");
    assert_int_equal(d.row[0].label, 0);
    assert_string_equal(d.row[1].text, "10_9.txt");
    assert_string_equal(d.row[2].text, "2_9.txt");
    assert_int_equal(d.row[2].label, 1);
    dataset_free(&d);
    assert_int_equal(dataset_load_eval(&d, &f->s, 0), 0);
    assert_int_equal(d.n, 1);
    assert_string_equal(d.row[0].text, "7_7.txt");
    dataset_free(&d);
    strcat(f->path, "/train");
    assert_int_equal(dataset_load_eval(&d, &f->s, 0), 0);
    assert_int_equal(d.n, 3);
    dataset_free(&d);
    expect_error(f, DATASET_PROMPT,
                 ": no field \"prompt\"; there is \"text\" and \"label\": this is the imdb folder");
}

static int64_t count_real(struct fixture *f, const char *name, enum data_format format,
                          unsigned need)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("RLHF_HPC_DATA"), name);
    struct settings_data s = f->s;
    s.path = path;
    s.format = format;
    struct dataset d;
    if (dataset_load(&d, &s, need) != 0)
        fail_msg("%s", error_message());
    int64_t n = d.n;
    dataset_free(&d);
    return n;
}

static void test_real_files(void **state)
{
    if (!getenv("RLHF_HPC_DATA")) {
        print_message("RLHF_HPC_DATA is not set\n");
        skip();
    }
    assert_true(count_real(*state, "reviews/imdb.train.jsonl", DATA_FORMAT_JSONL,
                           DATASET_TEXT | DATASET_LABEL) > 100);
    assert_true(count_real(*state, "prompts/reviews.jsonl", DATA_FORMAT_JSONL, DATASET_PROMPT) >
                100);
    assert_true(count_real(*state, "text/tinystories.txt", DATA_FORMAT_TEXT, DATASET_TEXT) > 100);
    assert_true(count_real(*state, "text/tinyshakespeare.txt", DATA_FORMAT_TEXT, DATASET_TEXT) >
                100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_jsonl, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jsonl_named_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jsonl_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_csv, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_lines_and_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_min_chars_counts_code_points, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imdb, setup, teardown),
        cmocka_unit_test_setup_teardown(test_real_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
