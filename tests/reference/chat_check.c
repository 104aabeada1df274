/* Compares renderings with those that record_chat.py recorded.
 *
 *   chat_check TEMPLATES CASES     each CASES/<name>.jsonl with TEMPLATES/<name>.jinja
 *
 * Prints each conversation that is rendered otherwise, and a line with the totals. Exit code 1 if there is one. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template.h"
#include "error.h"
#include "file.h"
#include "jsonl.h"

static json_t *read_rows(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    struct text bytes = {0};
    struct jsonl j;
    json_t *rows = json_array(), *row;
    int more = file_read(&bytes, path);
    CHECK(rows, "out of memory");
    jsonl_open(&j, path, bytes.bytes, bytes.n);
    while (!more && (more = jsonl_next(&j, &row)) > 0) {
        json_array_append_new(rows, row);
        more = 0;
    }
    if (more < 0) {
        fprintf(stderr, "%s\n", error_message());
        exit(1);
    }
    text_free(&bytes);
    free(path);
    return rows;
}

/* Is it as expected: the text, or an error, with the template's message where it raises one? */
static int agrees(const struct chat_template *t, json_t *conversation, const json_t *expected, struct text *is)
{
    json_t *extra = json_deep_copy(conversation), *tools = json_object_get(conversation, "tools");
    const json_t *text = json_object_get(expected, "text"), *error = json_object_get(expected, "error");
    const struct chat c = {json_object_get(conversation, "messages"), json_is_array(tools) ? tools : NULL, extra};
    json_object_del(extra, "messages");
    json_object_del(extra, "tools");
    json_object_del(extra, "add_generation_prompt");
    error_clear();
    const int rc = chat_template_render(
        t, is, &c, json_is_true(json_object_get(conversation, "add_generation_prompt")) ? CHAT_GENERATE : CHAT_WHOLE);
    json_decref(extra);
    if (rc == 0)
        return text && is->n == json_string_length(text) && !memcmp(is->bytes, json_string_value(text), is->n);
    text_clear(is);
    text_add_string(is, error_message());
    const char *refuses = strstr(error_message(), "the template refuses: "), *said = json_string_value(error);
    return error && (said ? refuses && strstr(refuses, said) : !refuses);
}

static int check(const char *templates, const char *cases, const char *name, json_t *conversations)
{
    char file[256];
    json_t *expected = read_rows(cases, name);
    struct chat_template *t = NULL;
    int failures = 0;
    snprintf(file, sizeof file, "%.*s.jinja", (int)(strlen(name) - 6), name);
    char *path = file_join(templates, file);
    if (chat_template_open(&t, templates, path) != 0) {
        printf("%s: %s\n", name, error_message());
        failures = (int)json_array_size(expected);
    }
    for (size_t i = 0; t && i < json_array_size(expected); i++) {
        struct text is = {0};
        char *shown;
        if (!agrees(t, json_array_get(conversations, i), json_array_get(expected, i), &is)) {
            failures++;
            shown = json_dumps(json_array_get(expected, i), JSON_ENCODE_ANY);
            printf("%s %zu:\n  expected %s\n  rendered %s\n", name, i, shown, text_string(&is));
            free(shown);
        }
        text_free(&is);
    }
    chat_template_close(t);
    json_decref(expected);
    free(path);
    return failures;
}

int main(int argc, char **argv)
{
    int failures = 0, n = 0;
    if (argc != 3)
        return 2;
    setenv("TZ", "UTC", 1);
    setenv("SOURCE_DATE_EPOCH", "1721995200", 1); /* 26 July 2024, noon, as record_chat.py has it */
    json_t *conversations = read_rows(argv[2], "conversations.jsonl");
    DIR *dir = opendir(argv[2]);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        const size_t length = strlen(e->d_name);
        if (length > 6 && !strcmp(e->d_name + length - 6, ".jsonl") && strcmp(e->d_name, "conversations.jsonl") != 0) {
            failures += check(argv[1], argv[2], e->d_name, conversations);
            n++;
        }
    }
    if (dir)
        closedir(dir);
    printf("%d templates x %zu conversations, %d rendered otherwise\n", n, json_array_size(conversations), failures);
    json_decref(conversations);
    return failures || !n;
}
