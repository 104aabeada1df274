/* Chat templates of model folders. */
#include "chat_template.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "document.h"
#include "error.h"
#include "file.h"
#include "jinja.h"

struct chat_template {
    struct jinja *standard, *tool_use; /* tool_use: NULL where there is one template */
    json_t *tokens;                    /* {"bos_token": "<s>", ..} */
    time_t now;
};

/* ---- files ---- */

static const char *const token_names[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

/* Special tokens of a file that are not known yet; strings, or objects with "content". */
static int read_tokens(json_t *tokens, const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    json_t *document = NULL;
    int rc = 0;
    if (file_exists(path) && !(document = document_read_reals(path)))
        rc = -1;
    for (size_t i = 0; i < sizeof token_names / sizeof *token_names; i++) {
        json_t *token = json_object_get(document, token_names[i]);
        if (json_is_object(token))
            token = json_object_get(token, "content");
        if (json_is_string(token) && !json_object_get(tokens, token_names[i]))
            json_object_set(tokens, token_names[i], token);
    }
    json_decref(document);
    free(path);
    return rc;
}

static int parse_value(struct jinja **out, const char *path, const json_t *template)
{
    struct text name = {0};
    text_format(&name, "%s (chat_template)", path);
    *out = jinja_parse(text_string(&name), json_string_value(template), json_string_length(template));
    text_free(&name);
    return *out ? 0 : -1;
}

/* [{"name": "default", "template": ".."}, ..] */
static int parse_list(struct chat_template *t, const char *path, const json_t *list)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *template = json_object_get(entry, "template");
        if (!name || !json_is_string(template))
            return error_set(ERR_FILE, "%s: chat_template[%zu] is no {\"name\": .., \"template\": ..}", path, i);
        if (!strcmp(name, "default") && !t->standard)
            TRY(parse_value(&t->standard, path, template));
        if (!strcmp(name, "tool_use") && !t->tool_use)
            TRY(parse_value(&t->tool_use, path, template));
    }
    return t->standard ? 0 : error_set(ERR_FILE, "%s: chat_template is a list without the template \"default\"", path);
}

/* The field chat_template of a JSON file; t stays without a template where there is none. */
static int read_field(struct chat_template *t, const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    json_t *document = NULL;
    int rc = 0;
    if (file_exists(path) && !(document = document_read_reals(path)))
        rc = -1;
    const json_t *template = json_object_get(document, "chat_template");
    if (json_is_string(template))
        rc = parse_value(&t->standard, path, template);
    else if (json_is_array(template))
        rc = parse_list(t, path, template);
    else if (template && !json_is_null(template))
        rc = error_set(ERR_FILE, "%s: chat_template is neither a string nor a list", path);
    json_decref(document);
    free(path);
    return rc;
}

static int read_jinja(struct jinja **out, const char *path)
{
    struct text source = {0};
    int rc = file_read(&source, path);
    if (!rc && !(*out = jinja_parse(path, text_string(&source), source.n)))
        rc = -1;
    text_free(&source);
    return rc;
}

static int read_folder(struct chat_template *t, const char *folder)
{
    char *path = file_join(folder, "chat_template.jinja"), *tools = file_join(folder, "additional_chat_templates/tool_use.jinja");
    int rc = file_exists(path) ? read_jinja(&t->standard, path) : 0;
    if (!rc && t->standard && file_exists(tools))
        rc = read_jinja(&t->tool_use, tools);
    free(path);
    free(tools);
    if (!rc && !t->standard)
        rc = read_field(t, folder, "chat_template.json");
    if (!rc && !t->standard)
        rc = read_field(t, folder, "tokenizer_config.json");
    if (!rc && !t->standard)
        rc = error_set(ERR_FILE, "%s: the model has no chat template (chat_template.jinja, or chat_template in "
                       "tokenizer_config.json) for data with messages; set data.chat_template to a .jinja file", folder);
    return rc;
}

static time_t date(void)
{
    const char *set = getenv("SOURCE_DATE_EPOCH");
    char *end = NULL;
    const long long seconds = set ? strtoll(set, &end, 10) : 0;
    return set && *set && !*end ? (time_t)seconds : time(NULL);
}

int chat_template_open(struct chat_template **out, const char *folder, const char *file)
{
    struct chat_template *t = *out = calloc(1, sizeof *t);
    CHECK(t, "out of memory");
    t->now = date();
    t->tokens = json_object();
    CHECK(t->tokens, "out of memory");
    int rc = read_tokens(t->tokens, folder, "tokenizer_config.json");
    if (!rc)
        rc = read_tokens(t->tokens, folder, "special_tokens_map.json");
    if (!rc)
        rc = *file ? read_jinja(&t->standard, file) : read_folder(t, folder);
    if (!rc)
        return 0;
    chat_template_close(t);
    *out = NULL;
    return -1;
}

void chat_template_close(struct chat_template *t)
{
    if (!t)
        return;
    jinja_free(t->standard);
    jinja_free(t->tool_use);
    json_decref(t->tokens);
    free(t);
}

/* ---- messages ---- */

static void set(json_t *object, const char *key, json_t *value)
{
    CHECK(json_object_set(object, key, value) == 0, "out of memory");
}

/* What a message was thought before it was said, under any of its names. */
static json_t *reasoning_of(json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (int i = 0; i < 3; i++) {
        json_t *reasoning = json_object_get(message, names[i]);
        if (reasoning && !json_is_null(reasoning))
            return reasoning;
    }
    return NULL;
}

/* A message as templates expect it: no field is null, reasoning has both of its names. */
static json_t *prepared(json_t *message)
{
    json_t *out = json_object(), *reasoning = reasoning_of(message), *value;
    const char *key;
    size_t n;
    CHECK(out, "out of memory");
    if (reasoning)
        set(out, "thinking", reasoning);
    json_object_keylen_foreach(message, key, n, value)
        if (!json_is_null(value))
            CHECK(json_object_setn(out, key, n, value) == 0, "out of memory");
    if (reasoning)
        set(out, "reasoning_content", reasoning);
    return out;
}

static const char CONTINUE_TAG[] = "CONTINUE_FINAL_MESSAGE_TAG "; /* transformers' own */

static json_t *with_tag(const json_t *string)
{
    struct text text = {0};
    text_add(&text, json_string_value(string), json_string_length(string));
    text_add_string(&text, CONTINUE_TAG);
    json_t *tagged = json_stringn(text.bytes, text.n);
    CHECK(tagged, "out of memory");
    text_free(&text);
    return tagged;
}

/* Puts the tag behind the last message's text; it shows where the text ends in the rendering. */
static int tag_last(json_t *messages)
{
    json_t *last = json_array_get(messages, json_array_size(messages) - 1), *content = json_object_get(last, "content");
    if (json_is_string(content)) {
        CHECK(json_object_set_new(last, "content", with_tag(content)) == 0, "out of memory");
        return 0;
    }
    json_t *parts = json_deep_copy(content);
    for (size_t i = json_array_size(parts); i-- > 0;) {
        json_t *part = json_array_get(parts, i), *text = json_object_get(part, "text");
        if (!json_is_string(text))
            continue;
        CHECK(json_object_set_new(part, "text", with_tag(text)) == 0, "out of memory");
        CHECK(json_object_set_new(last, "content", parts) == 0, "out of memory");
        return 0;
    }
    json_decref(parts);
    return error_set(ERR_FILE, "the last message has no text to be continued");
}

/* Cuts the text from the tag on; the blanks before it go too where the template trims them behind it. */
static int cut_at_tag(struct text *out, size_t from)
{
    const size_t n = sizeof CONTINUE_TAG - 2; /* without its blank */
    size_t at = out->n;
    while (at-- > from)
        if (out->n - at >= n && !memcmp(out->bytes + at, CONTINUE_TAG, n))
            break;
    if (at + 1 == from)
        return error_set(ERR_FILE, "the template leaves out the last message, which is to be continued");
    const int kept = at + n < out->n && out->bytes[at + n] == ' ';
    while (!kept && at > from && strchr(" \t\n\r\f\v", out->bytes[at - 1]) && out->bytes[at - 1])
        at--;
    out->n = at;
    out->bytes[at] = 0;
    return 0;
}

/* ---- rendering ---- */

static json_t *variables_of(const struct chat_template *t, const struct chat *c, json_t *messages, enum chat_ending ending)
{
    json_t *all = json_copy(t->tokens);
    CHECK(all, "out of memory");
    if (c->extra)
        CHECK(json_object_update(all, (json_t *)c->extra) == 0, "out of memory");
    set(all, "messages", messages);
    if (json_array_size(c->tools))
        set(all, "tools", (json_t *)c->tools);
    else
        set(all, "tools", json_null());
    set(all, "documents", json_null());
    set(all, "add_generation_prompt", json_boolean(ending == CHAT_GENERATE));
    return all;
}

int chat_template_render(const struct chat_template *t, struct text *out, const struct chat *c, enum chat_ending ending)
{
    json_t *messages = json_array(), *message;
    const size_t from = out->n;
    size_t i;
    CHECK(messages, "out of memory");
    json_array_foreach(c->messages, i, message)
        CHECK(json_array_append_new(messages, prepared(message)) == 0, "out of memory");
    int rc = ending == CHAT_CONTINUE ? tag_last(messages) : 0;
    if (!rc) {
        json_t *variables = variables_of(t, c, messages, ending);
        rc = jinja_render(t->tool_use && json_array_size(c->tools) ? t->tool_use : t->standard, out, variables, t->now);
        json_decref(variables);
    }
    if (!rc && ending == CHAT_CONTINUE)
        rc = cut_at_tag(out, from);
    json_decref(messages);
    return rc;
}
