/* JSON Lines: the fields of an object into a row.
 *
 * A conversational row keeps its lists of messages in row->chat, in one of TRL's forms: {messages}, {prompt}, {prompt,
 * completion}, {prompt, chosen, rejected} or {chosen, rejected}; what else data sets on the hub have (one message instead of
 * a list, a string as the assistant's answer, a list "messages" that is the prompt of a pair) is brought into those here.
 */
#include "dataset_reader.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "jsonl.h"

/* Borrowed for one row. */
struct fields {
    struct dataset_reader *rd;
    const struct jsonl *j;
    json_t *object;
    struct dataset_row *r;
};

static json_t *field(const struct fields *f, const char *name)
{
    json_t *value = json_object_get(f->object, name);
    return json_is_null(value) ? NULL : value;
}

static int wrong_kind(const struct fields *f, const char *name, const json_t *value, const char *expected)
{
    return error_set(ERR_FILE, "%s:%lld: the field \"%s\" is %s, not %s", f->j->path, (long long)f->j->line, name,
                     jsonl_kind(value), expected);
}

/* ---- messages ---- */

static int check_message(const struct fields *f, const char *name, const json_t *message, size_t i)
{
    const char *path = f->j->path;
    const long long line = f->j->line;
    if (!json_is_object(message))
        return error_set(ERR_FILE, "%s:%lld: %s[%zu] is %s, not a message {\"role\": .., \"content\": ..}", path, line, name, i,
                         jsonl_kind(message));
    if (!json_is_string(json_object_get(message, "role")))
        return error_set(ERR_FILE, "%s:%lld: %s[%zu] has no \"role\" that is a string: a message is {\"role\": .., "
                         "\"content\": ..}", path, line, name, i);
    const json_t *content = json_object_get(message, "content");
    if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
        return error_set(ERR_FILE, "%s:%lld: %s[%zu]: \"content\" is %s, not a string", path, line, name, i,
                         jsonl_kind(content));
    return 0;
}

/* Puts a field into row->chat under key, as a list of messages. */
static int keep_messages(const struct fields *f, const char *name, const char *key)
{
    json_t *value = field(f, name);
    json_t *list = json_is_array(value)    ? json_incref(value)
                   : json_is_object(value) ? json_pack("[O]", value)
                                           : json_pack("[{s:s, s:O}]", "role", "assistant", "content", value);
    CHECK(list, "out of memory");
    if (!f->r->chat)
        f->r->chat = json_object();
    CHECK(f->r->chat && json_object_set_new(f->r->chat, key, list) == 0, "out of memory");
    if (json_array_size(list) == 0)
        return error_set(ERR_FILE, "%s:%lld: \"%s\" is a list without messages", f->j->path, (long long)f->j->line, name);
    size_t i;
    json_t *message;
    json_array_foreach(list, i, message)
        TRY(check_message(f, name, message, i));
    return 0;
}

/* What TRL hands to the template beside the messages. "tools" may be JSON in a string. */
static int keep_extras(const struct fields *f)
{
    json_t *tools = field(f, "tools"), *extra = field(f, "chat_template_kwargs");
    if (json_is_string(tools)) {
        json_t *parsed = jsonl_parse(f->j, json_string_value(tools), json_string_length(tools));
        if (!parsed)
            return error_context("in \"tools\"");
        CHECK(json_object_set_new(f->object, "tools", parsed) == 0, "out of memory");
        tools = json_is_null(parsed) ? NULL : parsed;
    }
    if (tools && !json_is_array(tools))
        return wrong_kind(f, "tools", tools, "a list of tools");
    if (extra && !json_is_object(extra))
        return wrong_kind(f, "chat_template_kwargs", extra, "an object");
    if (json_array_size(tools))
        CHECK(json_object_set(f->r->chat, "tools", tools) == 0, "out of memory");
    if (extra)
        CHECK(json_object_set(f->r->chat, "chat_template_kwargs", extra) == 0, "out of memory");
    return 0;
}

/* ---- forms ---- */

/* A field that must be a string where it stands. */
static int keep_text(char **out, size_t *n, const struct fields *f, const char *name, const char *expected)
{
    const json_t *value = field(f, name);
    if (!value)
        return 0;
    if (!json_is_string(value))
        return wrong_kind(f, name, value, expected);
    *n = json_string_length(value);
    *out = dataset_bytes(json_string_value(value), *n);
    return 0;
}

static bool is_list(const struct fields *f, const char *name)
{
    return json_is_array(field(f, name));
}

static bool starts_with_answer(const json_t *list)
{
    const char *role = json_string_value(json_object_get(json_array_get(list, 0), "role"));
    return role && !strcmp(role, "assistant");
}

/* chosen and rejected, with their prompt: "prompt" where it is a list, "messages" where it is one and the answers are answers
 * alone, else what both lists begin with. */
static int pair_row(const struct fields *f)
{
    static const char expected[] = "a string or a list of messages";
    const struct settings_data *s = f->rd->s;
    json_t *chosen = field(f, s->chosen_field), *rejected = field(f, s->rejected_field);
    struct dataset_row *r = f->r;
    const bool whole = json_is_array(chosen) && !starts_with_answer(chosen);
    const char *prompt = is_list(f, s->prompt_field)               ? s->prompt_field
                         : !whole && is_list(f, s->messages_field) ? s->messages_field
                                                                   : NULL;
    if (!prompt && !json_is_array(chosen) && !json_is_array(rejected)) {
        TRY(keep_text(&r->prompt, &r->n_prompt, f, s->prompt_field, expected));
        TRY(keep_text(&r->chosen, &r->n_chosen, f, s->chosen_field, expected));
        return keep_text(&r->rejected, &r->n_rejected, f, s->rejected_field, expected);
    }
    if (!chosen && !rejected)
        return 0; /* dataset_row_end says what is missing */
    if (!chosen || !rejected)
        return error_set(ERR_FILE, "%s:%lld: no field \"%s\" beside \"%s\"", f->j->path, (long long)f->j->line,
                         chosen ? s->rejected_field : s->chosen_field, chosen ? s->chosen_field : s->rejected_field);
    if (!json_is_string(chosen) && !json_is_array(chosen) && !json_is_object(chosen))
        return wrong_kind(f, s->chosen_field, chosen, expected);
    if (!json_is_string(rejected) && !json_is_array(rejected) && !json_is_object(rejected))
        return wrong_kind(f, s->rejected_field, rejected, expected);
    if (!prompt && json_typeof(chosen) != json_typeof(rejected))
        return error_set(ERR_FILE, "%s:%lld: \"%s\" is %s, \"%s\" is %s: both are to be lists of messages, or strings",
                         f->j->path, (long long)f->j->line, s->chosen_field, jsonl_kind(chosen), s->rejected_field,
                         jsonl_kind(rejected));
    if (!prompt && !whole)
        return error_set(ERR_FILE, "%s:%lld: \"%s\" begins with the assistant's answer, and no list \"%s\" says to what",
                         f->j->path, (long long)f->j->line, s->chosen_field, s->prompt_field);
    if (prompt)
        TRY(keep_messages(f, prompt, "prompt"));
    TRY(keep_messages(f, s->chosen_field, "chosen"));
    return keep_messages(f, s->rejected_field, "rejected");
}

/* prompt and completion, both strings or both messages (a string may be the answer to a list). */
static int completion_row(const struct fields *f)
{
    const struct settings_data *s = f->rd->s;
    struct dataset_row *r = f->r;
    json_t *completion = field(f, s->completion_field);
    if (!is_list(f, s->prompt_field)) {
        TRY(keep_text(&r->prompt, &r->n_prompt, f, s->prompt_field, "a string or a list of messages"));
        return keep_text(&r->completion, &r->n_completion, f, s->completion_field,
                         "a string, as the prompt is (or both are lists of messages)");
    }
    TRY(keep_messages(f, s->prompt_field, "prompt"));
    if (!json_is_string(completion) && !json_is_array(completion) && !json_is_object(completion))
        return wrong_kind(f, s->completion_field, completion, "a string or a list of messages");
    return keep_messages(f, s->completion_field, "completion");
}

/* A text or a prompt; strings stand before messages. */
static int single_row(const struct fields *f)
{
    const struct settings_data *s = f->rd->s;
    struct dataset_row *r = f->r;
    TRY(keep_text(&r->text, &r->n_text, f, s->text_field, "a string"));
    if (is_list(f, s->prompt_field)) {
        if (!r->text && !(f->rd->need & DATASET_TEXT))
            TRY(keep_messages(f, s->prompt_field, "prompt"));
    } else {
        TRY(keep_text(&r->prompt, &r->n_prompt, f, s->prompt_field, "a string or a list of messages"));
    }
    const bool has_string = r->text || (r->prompt && !(f->rd->need & DATASET_TEXT));
    if (!has_string && !r->chat && field(f, s->messages_field)) {
        if (!is_list(f, s->messages_field))
            return wrong_kind(f, s->messages_field, field(f, s->messages_field), "a list of messages");
        TRY(keep_messages(f, s->messages_field, "messages"));
    }
    return 0;
}

/* ---- the other fields ---- */

static int keep_ids(const struct fields *f)
{
    struct dataset_row *r = f->r;
    const json_t *value = field(f, "input_ids");
    const char *path = f->j->path;
    const long long line = f->j->line;
    if (!value)
        return 0;
    if (!json_is_array(value) || json_array_size(value) == 0)
        return error_set(ERR_FILE, "%s:%lld: \"input_ids\" is %s, not an array of token numbers", path, line,
                         json_is_array(value) ? "empty" : jsonl_kind(value));
    r->n_ids = (int64_t)json_array_size(value);
    r->input_ids = malloc((size_t)r->n_ids * sizeof *r->input_ids);
    CHECK(r->input_ids, "out of memory for %lld token numbers", (long long)r->n_ids);
    for (int64_t i = 0; i < r->n_ids; i++) {
        const json_t *id = json_array_get(value, (size_t)i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return error_set(ERR_FILE, "%s:%lld: input_ids[%lld] is no token number", path, line, (long long)i);
        r->input_ids[i] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int keep_label(const struct fields *f)
{
    struct dataset_row *r = f->r;
    const char *name = f->rd->s->label_field;
    const json_t *value = field(f, name);
    const bool fits = json_is_integer(value) && json_integer_value(value) >= INT_MIN && json_integer_value(value) <= INT_MAX;
    if (json_is_boolean(value) || fits) {
        r->label = fits ? (int)json_integer_value(value) : json_is_true(value);
        r->has_label = true;
    } else if (json_is_string(value) && json_string_length(value) && strlen(json_string_value(value)) == json_string_length(value)) {
        r->label = -1;
        r->label_name = dataset_bytes(json_string_value(value), json_string_length(value));
        r->has_label = true;
    } else if (value && (f->rd->need & DATASET_LABEL)) {
        return error_set(ERR_FILE, "%s:%lld: the field \"%s\" is %s, not a label (an integer or a name)", f->j->path,
                         (long long)f->j->line, name,
                         json_is_integer(value)  ? "too large"
                         : json_is_string(value) ? "no name"
                                                 : jsonl_kind(value));
    }
    return 0;
}

/* Of a pair: how much better the chosen answer is to be (TRL's "margin"). */
static int keep_margin(const struct fields *f)
{
    const json_t *value = field(f, "margin");
    if (!value)
        return 0;
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return wrong_kind(f, "margin", value, "a number");
    f->r->margin = json_number_value(value);
    return 0;
}

static int json_row(struct dataset_reader *rd, const struct jsonl *j, json_t *object)
{
    struct fields f = {rd, j, object, dataset_row_begin(rd->d, j->line)};
    if (rd->need & DATASET_PAIR)
        TRY(pair_row(&f));
    else if ((rd->need & DATASET_COMPLETION) && field(&f, rd->s->completion_field) && field(&f, rd->s->prompt_field))
        TRY(completion_row(&f));
    else
        TRY(single_row(&f));
    if (f.r->chat)
        TRY(keep_extras(&f));
    TRY(keep_ids(&f));
    TRY(keep_label(&f));
    if (rd->need & DATASET_PAIR)
        TRY(keep_margin(&f));
    struct text there = {0};
    const char *key;
    json_t *value;
    if (dataset_row_missing(rd, f.r))
        json_object_foreach(object, key, value)
            text_format(&there, "%s\"%s\"", there.n ? ", " : "", key);
    int rc = dataset_row_end(rd, there.n ? there.bytes : "none");
    text_free(&there);
    return rc;
}

int dataset_read_jsonl(struct dataset_reader *rd, const char *bytes, size_t n)
{
    struct jsonl j;
    jsonl_open(&j, rd->path, bytes, n);
    json_t *object;
    int more;
    while ((more = jsonl_next(&j, &object)) > 0) {
        int rc = json_row(rd, &j, object);
        json_decref(object);
        TRY(rc);
    }
    return more;
}
