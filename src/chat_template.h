/* The chat template of a model folder, and messages through it, as transformers' apply_chat_template does it
 * (transformers/tokenization_utils_base.py and utils/chat_template_utils.py).
 *
 * The template is chat_template.jinja, else "chat_template" of chat_template.json, else of tokenizer_config.json: a string, or
 * a list of {name, template} of which "default" is taken, and "tool_use" for conversations with tools where there is one (beside
 * chat_template.jinja: additional_chat_templates/tool_use.jinja). It sees messages, tools, documents (none), add_generation_prompt,
 * the special tokens (bos_token, ..) of tokenizer_config.json and special_tokens_map.json, and what a row gives it besides.
 */
#ifndef RLHF_SRC_CHAT_TEMPLATE_H
#define RLHF_SRC_CHAT_TEMPLATE_H

#include "text.h"

#include <jansson.h>

struct chat_template;

/* Opens the template of a model folder, or the file `file` ("": none) with the folder's special tokens. The date that some
 * templates write is that of the call, or SOURCE_DATE_EPOCH (seconds since 1970) of the environment where it is set.
 * Errors: ERR_FILE: no template, unreadable, one that cannot be rendered here (the construct is named, with its line). */
int chat_template_open(struct chat_template **out, const char *folder, const char *file);
void chat_template_close(struct chat_template *t); /* takes NULL */

/* How the text of a conversation ends. */
enum chat_ending {
    CHAT_WHOLE,    /* with the last message */
    CHAT_GENERATE, /* with what an answer of the assistant begins with (add_generation_prompt) */
    CHAT_CONTINUE  /* within the last message, for more of it (continue_final_message) */
};

struct chat {
    const json_t *messages; /* a list of objects; borrowed, as the others */
    const json_t *tools;    /* a list; NULL: none */
    const json_t *extra;    /* an object: more variables; NULL: none */
};

/* Appends the text of a conversation. Errors: ERR_FILE: what the template raises, with its line; for CHAT_CONTINUE a template
 * that leaves out the last message. */
int chat_template_render(const struct chat_template *t, struct text *out, const struct chat *c, enum chat_ending ending);

#endif
