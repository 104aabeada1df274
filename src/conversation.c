/* Conversational rows through the chat template. */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

#include "chat_template.h"
#include "error.h"

struct renderer {
    struct chat_template *template;
    enum conversation_use use;
};

static json_t *part(const struct dataset_row *r, const char *key)
{
    return json_object_get(r->chat, key);
}

static int render(struct text *out, const struct renderer *how, const struct dataset_row *r, const json_t *messages,
                  enum chat_ending ending)
{
    const struct chat c = {messages, part(r, "tools"), part(r, "chat_template_kwargs")};
    return chat_template_render(how->template, out, &c, ending);
}

/* How a prompt ends: with the beginning of an answer, or within one that the assistant has begun. */
static enum chat_ending ending_of(const json_t *messages)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    return role && !strcmp(role, "assistant") ? CHAT_CONTINUE : CHAT_GENERATE;
}

/* Hands the bytes over; t is empty then. */
static void take(char **out, size_t *n, struct text *t)
{
    text_reserve(t, 1);
    t->bytes[t->n] = 0;
    *out = t->bytes;
    *n = t->n;
    *t = (struct text){0};
}

static int render_whole(char **out, size_t *n, const struct renderer *how, const struct dataset_row *r, const json_t *messages)
{
    struct text text = {0};
    int rc = render(&text, how, r, messages, CHAT_WHOLE);
    if (rc)
        text_free(&text);
    else
        take(out, n, &text);
    return rc;
}

static int render_prompt(struct dataset_row *r, const struct renderer *how, const json_t *messages)
{
    struct text text = {0};
    int rc = render(&text, how, r, messages, ending_of(messages));
    if (rc)
        text_free(&text);
    else
        take(&r->prompt, &r->n_prompt, &text);
    return rc;
}

/* The rendering of prompt and answer, less that of the prompt. */
static int render_answer(char **out, size_t *n, const struct renderer *how, const struct dataset_row *r, const json_t *prompt,
                         const json_t *answer, const char *name)
{
    json_t *all = json_copy((json_t *)prompt);
    struct text text = {0};
    CHECK(all && json_array_extend(all, (json_t *)answer) == 0, "out of memory");
    int rc = render(&text, how, r, all, CHAT_WHOLE);
    json_decref(all);
    if (!rc && (text.n < r->n_prompt || memcmp(text.bytes, r->prompt, r->n_prompt) != 0))
        rc = error_set(ERR_FILE, "with its %s the conversation does not begin with the text of its prompt: this chat template "
                       "writes the turns before an answer otherwise than those before a question", name);
    if (!rc) {
        struct text rest = {0};
        text_add(&rest, text.bytes + r->n_prompt, text.n - r->n_prompt);
        take(out, n, &rest);
    }
    text_free(&text);
    return rc;
}

/* The messages that both lists begin with. */
static json_t *common_beginning(const json_t *a, const json_t *b)
{
    json_t *out = json_array();
    CHECK(out, "out of memory");
    for (size_t i = 0; i < json_array_size(a) && i < json_array_size(b); i++) {
        if (!json_equal(json_array_get(a, i), json_array_get(b, i)))
            break;
        CHECK(json_array_append(out, json_array_get(a, i)) == 0, "out of memory");
    }
    return out;
}

static json_t *from(const json_t *list, size_t first)
{
    json_t *out = json_array();
    CHECK(out, "out of memory");
    for (size_t i = first; i < json_array_size(list); i++)
        CHECK(json_array_append(out, json_array_get(list, i)) == 0, "out of memory");
    return out;
}

/* chosen and rejected, which begin with the same messages: these are put apart as the prompt. */
static int split_pair(struct dataset_row *r)
{
    json_t *prompt = common_beginning(part(r, "chosen"), part(r, "rejected"));
    json_t *chosen = from(part(r, "chosen"), json_array_size(prompt)), *rejected = from(part(r, "rejected"), json_array_size(prompt));
    const bool sound = json_array_size(prompt) && json_array_size(chosen) && json_array_size(rejected);
    CHECK(json_object_set_new(r->chat, "prompt", prompt) == 0 && json_object_set_new(r->chat, "chosen", chosen) == 0 &&
              json_object_set_new(r->chat, "rejected", rejected) == 0, "out of memory");
    return sound ? 0 : error_set(ERR_FILE, "chosen and rejected are to begin with the same messages and to end with others");
}

static int render_row(struct dataset_row *r, const struct renderer *how)
{
    const json_t *messages = part(r, "messages");
    if (messages && how->use == CONVERSATION_TEXTS)
        return render_whole(&r->text, &r->n_text, how, r, messages);
    if (!messages && !part(r, "prompt"))
        TRY(split_pair(r));
    const json_t *prompt = messages ? messages : part(r, "prompt");
    TRY(render_prompt(r, how, prompt));
    if (part(r, "completion"))
        TRY(render_answer(&r->completion, &r->n_completion, how, r, prompt, part(r, "completion"), "completion"));
    if (part(r, "chosen")) {
        TRY(render_answer(&r->chosen, &r->n_chosen, how, r, prompt, part(r, "chosen"), "chosen answer"));
        TRY(render_answer(&r->rejected, &r->n_rejected, how, r, prompt, part(r, "rejected"), "rejected answer"));
    }
    return 0;
}

/* Rows of strings and rows of messages would be two kinds of prompts to the model. */
static int check_mixed(const struct dataset *d)
{
    for (int64_t i = 1; i < d->n; i++)
        if (!d->row[i].chat != !d->row[0].chat && !d->row[i].input_ids && !d->row[0].input_ids)
            return error_set(ERR_FILE, "%s:%lld: %s, but line %lld holds %s: name one of the two with data.text_field, "
                             "data.prompt_field and data.messages_field", d->path, (long long)d->row[i].line,
                             d->row[i].chat ? "messages" : "strings", (long long)d->row[0].line,
                             d->row[0].chat ? "messages" : "strings");
    return 0;
}

static bool has_chat(const struct dataset *d)
{
    for (int64_t i = 0; i < d->n; i++)
        if (d->row[i].chat)
            return true;
    return false;
}

int conversation_render(struct dataset *d, const struct settings *s, enum conversation_use use)
{
    struct renderer how = {.use = use};
    if (!has_chat(d))
        return 0;
    TRY(check_mixed(d));
    if (chat_template_open(&how.template, s->model.path, s->data.chat_template) != 0)
        return -1;
    int rc = 0;
    for (int64_t i = 0; !rc && i < d->n; i++) {
        struct dataset_row *r = &d->row[i];
        if (!r->chat)
            continue;
        rc = render_row(r, &how);
        if (rc)
            error_context("%s:%lld", d->path, (long long)r->line);
        json_decref(r->chat);
        r->chat = NULL;
        r->rendered = true;
    }
    chat_template_close(how.template);
    return rc;
}
