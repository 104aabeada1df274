/* Conversational rows of a dataset as text: lists of messages through the model's chat template, as TRL does it
 * (trl/data_utils.py, apply_chat_template).
 *
 *   messages                       text = all of them; as prompts: prompt, as in the next line
 *   prompt                         prompt with the generation prompt behind it where the last message is not the assistant's,
 *                                  else the last message is left open, to be continued
 *   prompt, completion             prompt as above; completion = rendering of both, less the prompt that it begins with
 *   prompt, chosen, rejected       the same twice
 *   chosen, rejected               the prompt is the common beginning of both lists
 *   messages, chosen, rejected     the messages are the prompt; chosen and rejected may be one message or a string
 */
#ifndef RLHF_SRC_CONVERSATION_H
#define RLHF_SRC_CONVERSATION_H

#include "dataset.h"

/* What a row of messages alone is for. */
enum conversation_use {
    CONVERSATION_TEXTS,  /* language modelling: the whole of it */
    CONVERSATION_PROMPTS /* to be answered */
};

/* Renders every row that holds messages: its strings are set, chat is freed, rendered is true. Other rows stay as they are;
 * where there are none with messages, no template is needed or read. The template is data.chat_template, else that of the
 * model folder model.path (chat_template.h).
 * Errors: ERR_FILE: no template, a faulty one, what it raises (with the row's line), a prompt that the rendering with its
 * completion does not begin with. Ranks: local. */
int conversation_render(struct dataset *d, const struct settings *s, enum conversation_use use);

#endif
