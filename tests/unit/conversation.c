/* Tests of src/conversation.h and chat_template.h: TRL's forms as text, in folders written here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template.h"
#include "conversation.h"
#include "error.h"
#include "file.h"

#define CHATML                                                                                                                   \
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>" \
    "{% endif %}"
#define USER(content) "{\"role\": \"user\", \"content\": \"" content "\"}"
#define ASSISTANT(content) "{\"role\": \"assistant\", \"content\": \"" content "\"}"

static char folder[] = "/tmp/rlhf-conversation-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static void put(const char *name, const char *bytes)
{
    char *path = file_join(folder, name);
    if (bytes)
        assert_int_equal(file_write_atomic(path, bytes, strlen(bytes)), 0);
    else
        remove(path);
    free(path);
}

static const struct settings *settings(void)
{
    static char names[7][16] = {"text", "prompt", "chosen", "rejected", "label", "completion", "messages"};
    static char path[128], none[1];
    static struct settings s;
    snprintf(path, sizeof path, "%s/data", folder);
    s = (struct settings){.model = {.path = folder},
                          .data = {.path = path, .text_field = names[0], .prompt_field = names[1], .chosen_field = names[2],
                                   .rejected_field = names[3], .label_field = names[4], .completion_field = names[5],
                                   .messages_field = names[6], .chat_template = none}};
    return &s;
}

/* Loads and renders rows; 0 or -1. */
static int render(struct dataset *d, const char *rows, unsigned need, enum conversation_use use)
{
    put("data", rows);
    error_clear();
    if (dataset_load(d, &settings()->data, need) != 0)
        fail_msg("%s", error_message());
    return conversation_render(d, settings(), use);
}

static void with_template(const char *template)
{
    put("tokenizer_config.json", "{\"eos_token\": \"</s>\"}");
    put("chat_template.json", NULL);
    put("special_tokens_map.json", NULL);
    put("chat_template.jinja", template);
}

enum { TEXT, PROMPT, COMPLETION, CHOSEN, REJECTED, STRINGS };

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *row;
        unsigned need;
        enum conversation_use use;
        const char *string[STRINGS];
    } cases[] = {
        {"{\"messages\": [" USER("q") ", " ASSISTANT("a") "]}", DATASET_TEXT, CONVERSATION_TEXTS,
         {[TEXT] = "<|user|>q</s><|assistant|>a</s>"}},
        {"{\"messages\": [" USER("q") "]}", DATASET_TEXT, CONVERSATION_TEXTS, {[TEXT] = "<|user|>q</s>"}},
        {"{\"messages\": [" USER("q") "]}", 0, CONVERSATION_PROMPTS, {[PROMPT] = "<|user|>q</s><|assistant|>"}},
        {"{\"prompt\": [" USER("q") "]}", 0, CONVERSATION_PROMPTS, {[PROMPT] = "<|user|>q</s><|assistant|>"}},
        {"{\"prompt\": [" USER("q") "]}", 0, CONVERSATION_TEXTS, {[PROMPT] = "<|user|>q</s><|assistant|>"}},
        {"{\"prompt\": [" USER("q") ", " ASSISTANT("be") "]}", 0, CONVERSATION_PROMPTS,
         {[PROMPT] = "<|user|>q</s><|assistant|>be"}},
        {"{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") "]}", DATASET_TEXT | DATASET_COMPLETION,
         CONVERSATION_TEXTS, {[PROMPT] = "<|user|>q</s><|assistant|>", [COMPLETION] = "a</s>"}},
        {"{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") ", " USER("r") "]}", DATASET_COMPLETION,
         CONVERSATION_TEXTS, {[PROMPT] = "<|user|>q</s><|assistant|>", [COMPLETION] = "a</s><|user|>r</s>"}},
        {"{\"prompt\": [" USER("q") "], \"chosen\": [" ASSISTANT("c") "], \"rejected\": [" ASSISTANT("r") "]}", DATASET_PAIR,
         CONVERSATION_TEXTS, {[PROMPT] = "<|user|>q</s><|assistant|>", [CHOSEN] = "c</s>", [REJECTED] = "r</s>"}},
        {"{\"chosen\": [" USER("q") ", " ASSISTANT("c") "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}", DATASET_PAIR,
         CONVERSATION_TEXTS, {[PROMPT] = "<|user|>q</s><|assistant|>", [CHOSEN] = "c</s>", [REJECTED] = "r</s>"}},
        {"{\"messages\": [" USER("q") "], \"chosen\": \"c\", \"rejected\": \"r\"}", DATASET_PAIR, CONVERSATION_TEXTS,
         {[PROMPT] = "<|user|>q</s><|assistant|>", [CHOSEN] = "c</s>", [REJECTED] = "r</s>"}},
        {"{\"text\": \"as it is\"}", DATASET_TEXT, CONVERSATION_TEXTS, {[TEXT] = "as it is"}},
    };
    with_template(CHATML);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset d;
        if (render(&d, cases[i].row, cases[i].need, cases[i].use) != 0)
            fail_msg("%s: %s", cases[i].row, error_message());
        const struct dataset_row *r = &d.row[0];
        const char *is[STRINGS] = {r->text, r->prompt, r->completion, r->chosen, r->rejected};
        for (int k = 0; k < STRINGS; k++)
            if (!is[k] != !cases[i].string[k] || (is[k] && strcmp(is[k], cases[i].string[k]) != 0))
                fail_msg("%s: string %d is %s", cases[i].row, k, is[k] ? is[k] : "not there");
        assert_null(r->chat);
        assert_int_equal(r->rendered, strncmp(cases[i].row, "{\"text\"", 7) != 0);
        dataset_free(&d);
    }
}

static void expect_error(const char *rows, unsigned need, const char *message)
{
    struct dataset d;
    assert_int_equal(render(&d, rows, need, CONVERSATION_TEXTS), -1);
    if (!strstr(error_message(), message) || error_kind() != ERR_FILE || strchr(error_message(), '\n'))
        fail_msg("\"%s\" has no \"%s\"", error_message(), message);
    dataset_free(&d);
}

static void test_errors(void **state)
{
    (void)state;
    const char *completion = "{\"prompt\": [" USER("q") "], \"completion\": [" ASSISTANT("a") "]}\n";
    const char *messages = "\n{\"messages\": [" USER("q") "]}\n";
    with_template("{{ raise_exception('only ' ~ messages|length) }}");
    expect_error(messages, DATASET_TEXT, "/data:2: ");
    expect_error(messages, DATASET_TEXT, "chat_template.jinja:1: the template refuses: only 1");
    with_template("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}");
    expect_error(completion, DATASET_COMPLETION, "with its completion the conversation does not begin with the text of its prompt");
    with_template("{{ messages[0].content }}");
    expect_error("{\"prompt\": [" USER("q") ", " ASSISTANT("a") "]}\n", 0, "leaves out the last message");
    with_template(CHATML);
    expect_error("{\"prompt\": [" USER("q") ", {\"role\": \"assistant\"}]}\n", 0, "no text to be continued");
    expect_error("{\"chosen\": [" USER("p") ", " ASSISTANT("c") "], \"rejected\": [" USER("q") ", " ASSISTANT("r") "]}\n",
                 DATASET_PAIR, "to begin with the same messages");
    expect_error("{\"text\": \"a\"}\n{\"messages\": [" USER("q") "]}\n", DATASET_TEXT,
                 ":2: messages, but line 1 holds strings: name one of the two");
    with_template("\n{% include 'x' %}");
    expect_error(messages, DATASET_TEXT, "chat_template.jinja:2: the tag {% include %} is not supported");
    with_template(NULL);
    expect_error(messages, DATASET_TEXT, "the model has no chat template");
    put("tokenizer_config.json", "{\"chat_template\": 3}");
    expect_error(messages, DATASET_TEXT, "tokenizer_config.json: chat_template is neither a string nor a list");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}");
    expect_error(messages, DATASET_TEXT, "chat_template is a list without the template \"default\"");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
    expect_error(messages, DATASET_TEXT, "chat_template[0] is no {\"name\": .., \"template\": ..}");
    put("tokenizer_config.json", "{\"chat_template\": \"{{ a\"}");
    expect_error(messages, DATASET_TEXT, "tokenizer_config.json (chat_template):1: {{ without its }}");
    put("tokenizer_config.json", "{");
    expect_error(messages, DATASET_TEXT, "tokenizer_config.json");
}

static void expect_text(const char *row, const char *text)
{
    struct dataset d;
    if (render(&d, row, DATASET_TEXT, CONVERSATION_TEXTS) != 0)
        fail_msg("%s", error_message());
    assert_string_equal(d.row[0].text, text);
    dataset_free(&d);
}

/* Each place of a template takes the place of those below it; special tokens as strings and as objects. */
static void test_places(void **state)
{
    (void)state;
    const char *row = "{\"messages\": [" USER("q") "]}", *tools = "{\"messages\": [" USER("q") "], \"tools\": [{\"a\": 1}]}";
    with_template(NULL);
    put("special_tokens_map.json", "{\"eos_token\": {\"content\": \"<e>\"}, \"bos_token\": \"<not>\"}");
    put("tokenizer_config.json", "{\"bos_token\": {\"content\": \"<b>\"}, \"eos_token\": null, \"chat_template\": [{\"name\": "
                                 "\"tool_use\", \"template\": \"{{ tools | tojson }}\"}, {\"name\": \"default\", \"template\": "
                                 "\"{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ tools is none }}\"}]}");
    expect_text(row, "<b><e>True");
    expect_text(tools, "[{\"a\": 1}]");
    put("chat_template.json", "{\"chat_template\": \"json\"}");
    expect_text(row, "json");
    put("chat_template.jinja", "{{ messages[0].content }}{{ bos_token }}\n");
    expect_text(row, "q<b>");
    expect_text(tools, "q<b>");
    char *additional = file_join(folder, "additional_chat_templates");
    assert_int_equal(file_make_folders(additional), 0);
    free(additional);
    put("additional_chat_templates/tool_use.jinja", "use {{ tools | length }}");
    expect_text(row, "q<b>");
    expect_text(tools, "use 1");
    put("own.jinja", "own{{ bos_token }}{{ extra }}");
    char *path = file_join(folder, "own.jinja");
    struct settings s = *settings();
    struct dataset d;
    s.data.chat_template = path;
    put("data", "{\"messages\": [" USER("q") "], \"chat_template_kwargs\": {\"extra\": 5}}");
    assert_int_equal(dataset_load(&d, &s.data, DATASET_TEXT), 0);
    assert_int_equal(conversation_render(&d, &s, CONVERSATION_TEXTS), 0);
    assert_string_equal(d.row[0].text, "own<b>5");
    dataset_free(&d);
    free(path);
}

/* As transformers prepares messages: no nulls, reasoning under both names, the last message left open. */
static void test_messages(void **state)
{
    (void)state;
    with_template("{% for m in messages %}{{ m | tojson }}{% endfor %}");
    expect_text("{\"messages\": [{\"role\": \"user\", \"content\": null, \"x\": 1}]}", "{\"role\": \"user\", \"x\": 1}");
    expect_text("{\"messages\": [{\"role\": \"a\", \"reasoning\": \"r\"}]}",
                "{\"thinking\": \"r\", \"role\": \"a\", \"reasoning\": \"r\", \"reasoning_content\": \"r\"}");
    static const struct {
        const char *template, *content, *prompt;
    } cases[] = {
        {"[{{ messages[-1].content }}]", "\"a \"", "[a "},
        {"[{{ messages[-1].content | trim }}]", "\"a \"", "[a"},
        {"[{{ messages[-1].content }}] x", "\"a\\u0000b\"", "[a"},
        {"[{{ messages[-1].content[0].text }}]", "[{\"type\": \"text\", \"text\": \"t\"}]", "[t"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset d;
        char row[256];
        with_template(cases[i].template);
        snprintf(row, sizeof row, "{\"prompt\": [{\"role\": \"assistant\", \"content\": %s}]}", cases[i].content);
        if (render(&d, row, 0, CONVERSATION_PROMPTS) != 0)
            fail_msg("%s", error_message());
        assert_string_equal(d.row[0].prompt, cases[i].prompt);
        assert_int_equal(d.row[0].n_prompt, i == 2 ? 4 : strlen(cases[i].prompt));
        dataset_free(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_messages),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
