/* Tests of src/dataset_jsonl.c: the forms a row may have, and what is wrong with rows that have none. */
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

#define USER(content) "{\"role\": \"user\", \"content\": \"" content "\"}"
#define ASSISTANT(content) "{\"role\": \"assistant\", \"content\": \"" content "\"}"

static char path[] = "/tmp/rlhf-dataset-jsonl-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkstemp(path) < 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove(path);
}

static const struct settings_data *settings(void)
{
    static char names[7][16] = {"text", "prompt", "chosen", "rejected", "label", "completion", "messages"};
    static struct settings_data s;
    s = (struct settings_data){.path = path, .text_field = names[0], .prompt_field = names[1], .chosen_field = names[2],
                               .rejected_field = names[3], .label_field = names[4], .completion_field = names[5],
                               .messages_field = names[6]};
    return &s;
}

static int load(struct dataset *d, const char *bytes, unsigned need)
{
    assert_int_equal(file_write_atomic(path, bytes, strlen(bytes)), 0);
    error_clear();
    return dataset_load(d, settings(), need);
}

/* The strings that a row is expected to keep: text, prompt, completion, chosen, rejected. */
enum { TEXT, PROMPT, COMPLETION, CHOSEN, REJECTED, STRINGS };

/* What a conversational row keeps, as JSON; else its strings. */
static void test_forms(void **state)
{
    (void)state;
    enum { SFT = DATASET_TEXT | DATASET_COMPLETION };
    static const struct {
        const char *row;
        unsigned need;
        const char *chat, *string[STRINGS];
    } cases[] = {
        {"{\"messages\": [" USER("q") "]}", SFT, "{\"messages\": [" USER("q") "]}", {0}},
        {"{\"messages\": [" USER("q") "]}", 0, "{\"messages\": [" USER("q") "]}", {0}},
        {"{\"messages\": [" USER("q") "], \"text\": \"t\"}", SFT, NULL, {[TEXT] = "t"}},
        {"{\"messages\": [" USER("q") "], \"prompt\": \"p\"}", DATASET_TEXT, "{\"messages\": [" USER("q") "]}", {[PROMPT] = "p"}},
        {"{\"messages\": [" USER("q") "], \"prompt\": \"p\"}", DATASET_PROMPT, NULL, {[PROMPT] = "p"}},
        {"{\"prompt\": [" USER("q") "]}", DATASET_PROMPT, "{\"prompt\": [" USER("q") "]}", {0}},
        {"{\"prompt\": \"p\", \"completion\": \"c\"}", SFT, NULL, {[PROMPT] = "p", [COMPLETION] = "c"}},
        {"{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") "]}", SFT,
         "{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") "]}", {0}},
        {"{\"prompt\": [" USER("q") "], \"completion\": \"a\"}", DATASET_COMPLETION,
         "{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") "]}", {0}},
        {"{\"prompt\": \"p\", \"completion\": \"c\", \"messages\": 3}", SFT, NULL, {[PROMPT] = "p", [COMPLETION] = "c"}},
        {"{\"prompt\": [" USER("q") "], \"completion\": \"a\"}", DATASET_PROMPT, "{\"prompt\": [" USER("q") "]}", {0}},
        {"{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}", DATASET_PAIR, NULL, {[PROMPT] = "p", [CHOSEN] = "c", [REJECTED] = "r"}},
        {"{\"chosen\": \"c\", \"rejected\": \"r\"}", DATASET_PAIR, NULL, {[CHOSEN] = "c", [REJECTED] = "r"}},
        {"{\"prompt\": [" USER("q") "], \"chosen\": " ASSISTANT("c") ", \"rejected\": [" ASSISTANT("r") "]}", DATASET_PAIR,
         "{\"prompt\": [" USER("q") "], \"chosen\": [" ASSISTANT("c") "], \"rejected\": [" ASSISTANT("r") "]}", {0}},
        {"{\"chosen\": [" USER("q") ", " ASSISTANT("c") "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}", DATASET_PAIR,
         "{\"chosen\": [" USER("q") ", " ASSISTANT("c") "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}", {0}},
        /* as LLaMA-Factory writes them; then as ultrafeedback_binarized */
        {"{\"messages\": [" USER("q") "], \"prompt\": \"q\", \"chosen\": \"c\", \"rejected\": \"r\"}", DATASET_PAIR,
         "{\"prompt\": [" USER("q") "], \"chosen\": [" ASSISTANT("c") "], \"rejected\": [" ASSISTANT("r") "]}", {0}},
        {"{\"prompt\": \"q\", \"messages\": [" USER("q") ", " ASSISTANT("c") "], \"chosen\": [" USER("q") ", " ASSISTANT("c")
         "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}", DATASET_PAIR,
         "{\"chosen\": [" USER("q") ", " ASSISTANT("c") "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}", {0}},
        {"{\"prompt\": [" USER("q") "], \"tools\": \"[{\\\"a\\\": 1}]\", \"chat_template_kwargs\": {\"k\": true}}", 0,
         "{\"prompt\": [" USER("q") "], \"tools\": [{\"a\": 1}], \"chat_template_kwargs\": {\"k\": true}}", {0}},
        {"{\"prompt\": [" USER("q") "], \"tools\": []}", 0, "{\"prompt\": [" USER("q") "]}", {0}},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": null}]}", 0,
         "{\"prompt\": [{\"role\": \"user\", \"content\": null}]}", {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset d;
        if (load(&d, cases[i].row, cases[i].need) != 0)
            fail_msg("%s: %s", cases[i].row, error_message());
        const struct dataset_row *r = &d.row[0];
        char *chat = r->chat ? json_dumps(r->chat, 0) : NULL;
        const char *is[STRINGS] = {r->text, r->prompt, r->completion, r->chosen, r->rejected};
        if (!chat != !cases[i].chat || (chat && strcmp(chat, cases[i].chat) != 0))
            fail_msg("%s: %s", cases[i].row, chat ? chat : "no messages");
        for (int k = 0; k < STRINGS; k++)
            if (!is[k] != !cases[i].string[k] || (is[k] && strcmp(is[k], cases[i].string[k]) != 0))
                fail_msg("%s: string %d is %s", cases[i].row, k, is[k] ? is[k] : "not there");
        free(chat);
        dataset_free(&d);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *row;
        unsigned need;
        const char *message;
    } cases[] = {
        {"{\"messages\": []}", 0, "\"messages\" is a list without messages"},
        {"{\"messages\": \"m\"}", 0, "the field \"messages\" is a string, not a list of messages"},
        {"{\"messages\": [3]}", 0, "messages[0] is an integer, not a message {\"role\": .., \"content\": ..}"},
        {"{\"messages\": [" USER("q") ", {\"from\": \"gpt\", \"value\": \"a\"}]}", 0,
         "messages[1] has no \"role\" that is a string: a message is {\"role\": .., \"content\": ..}"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": 3}]}", 0, "messages[0]: \"content\" is an integer, not a string"},
        {"{\"prompt\": 3}", 0, "the field \"prompt\" is an integer, not a string or a list of messages"},
        {"{\"prompt\": \"p\", \"completion\": [" ASSISTANT("a") "]}", DATASET_COMPLETION,
         "the field \"completion\" is an array, not a string, as the prompt is (or both are lists of messages)"},
        {"{\"prompt\": [" USER("q") "], \"completion\": 3}", DATASET_COMPLETION,
         "the field \"completion\" is an integer, not a string or a list of messages"},
        {"{\"prompt\": \"p\"}", DATASET_COMPLETION, "no field \"completion\"; there is \"prompt\""},
        {"{\"completion\": \"p\"}", DATASET_COMPLETION, "no field \"prompt\"; there is \"completion\""},
        {"{\"prompt\": \"p\"}", DATASET_TEXT | DATASET_COMPLETION, "no field \"text\"; there is \"prompt\""},
        {"{\"chosen\": [" USER("q") "], \"rejected\": \"r\"}", DATASET_PAIR,
         "\"chosen\" is an array, \"rejected\" is a string: both are to be lists of messages, or strings"},
        {"{\"chosen\": [" ASSISTANT("c") "], \"rejected\": [" ASSISTANT("r") "]}", DATASET_PAIR,
         "\"chosen\" begins with the assistant's answer, and no list \"prompt\" says to what"},
        {"{\"messages\": [" USER("q") "], \"chosen\": \"c\"}", DATASET_PAIR,
         "no field \"rejected\" beside \"chosen\""},
        {"{\"messages\": [" USER("q") "], \"chosen\": \"c\", \"rejected\": 3}", DATASET_PAIR,
         "the field \"rejected\" is an integer, not a string or a list of messages"},
        {"{\"prompt\": [" USER("q") "], \"tools\": 3}", 0, "the field \"tools\" is an integer, not a list of tools"},
        {"{\"prompt\": [" USER("q") "], \"tools\": \"[\"}", 0, NULL},
        {"{\"prompt\": [" USER("q") "], \"chat_template_kwargs\": []}", 0,
         "the field \"chat_template_kwargs\" is an array, not an object"},
        {"{\"text\": \"t\", \"label\": \"\"}", DATASET_LABEL,
         "the field \"label\" is no name, not a label (an integer or a name)"},
        {"{\"text\": \"t\", \"label\": \"a\\u0000b\"}", DATASET_LABEL,
         "the field \"label\" is no name, not a label (an integer or a name)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset d;
        char expected[512];
        assert_int_equal(load(&d, cases[i].row, cases[i].need), -1);
        snprintf(expected, sizeof expected, "%s:1: %s", path, cases[i].message);
        if (cases[i].message)
            assert_string_equal(error_message(), expected);
        else
            assert_non_null(strstr(error_message(), ":1: not valid JSON"));
        assert_int_equal(error_kind(), ERR_FILE);
        dataset_free(&d);
    }
}

static void test_min_chars_of_messages(void **state)
{
    (void)state;
    struct settings_data s = *settings();
    const char *rows = "{\"messages\": [" USER("\xc3\xa9\xc3\xa9") ", " ASSISTANT("ab") "]}\n"
                       "{\"messages\": [" USER("ab") ", " ASSISTANT("abc") "]}\n"
                       "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"abcde\"}]}]}\n";
    assert_int_equal(file_write_atomic(path, rows, strlen(rows)), 0);
    struct dataset d;
    s.min_chars = 5;
    assert_int_equal(dataset_load(&d, &s, DATASET_TEXT), 0);
    assert_int_equal(d.n, 2);
    assert_int_equal(d.row[0].line, 2);
    dataset_free(&d);
}

static void test_labels(void **state)
{
    (void)state;
    static char pos[] = "pos", neg[] = "neg", other[] = "x";
    char *const both[] = {pos, neg}, *const others[] = {pos, other};
    struct dataset d;
    char **name;
    assert_int_equal(load(&d, "{\"text\": \"a\", \"label\": \"pos\"}\n{\"text\": \"b\", \"label\": \"neg\"}\n"
                              "{\"text\": \"c\", \"label\": \"pos\"}\n", DATASET_TEXT | DATASET_LABEL), 0);
    assert_int_equal(dataset_label_names(&d, &name), 2);
    assert_string_equal(name[0], "neg");
    assert_string_equal(name[1], "pos");
    assert_int_equal(dataset_number_labels(&d, name, 2), 0);
    assert_true(d.row[0].label == 1 && d.row[1].label == 0 && d.row[2].label == 1);
    for (int i = 0; i < 2; i++)
        free(name[i]);
    free(name);
    assert_int_equal(dataset_number_labels(&d, both, 2), 0);
    assert_true(d.row[0].label == 0 && d.row[1].label == 1);
    assert_int_equal(dataset_number_labels(&d, others, 2), -1);
    assert_non_null(strstr(error_message(), ":2: the label \"neg\" is none of pos, x"));
    dataset_free(&d);
    assert_int_equal(load(&d, "{\"text\": \"a\", \"label\": 2}\n", DATASET_TEXT | DATASET_LABEL), 0);
    assert_int_equal(dataset_label_names(&d, &name), 0);
    free(name);
    assert_int_equal(dataset_number_labels(&d, both, 2), -1);
    assert_non_null(strstr(error_message(), ":1: the label 2 is not in 0 .. 1 (pos, neg)"));
    d.row[0].label = 12; /* of many labels the first are named */
    char *const many[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    assert_int_equal(dataset_number_labels(&d, many, 12), -1);
    assert_non_null(strstr(error_message(), ":1: the label 12 is not in 0 .. 11 (a, b, c, d, e, f, g, h, i, j, ..)"));
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_min_chars_of_messages),
        cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
