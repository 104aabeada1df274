/* Conversational rows through the chat template. */
#include "conversation.h"

#include "error.h"

int conversation_render(struct dataset *d, const struct settings *s, enum conversation_use use)
{
    (void)s, (void)use;
    for (int64_t i = 0; i < d->n; i++)
        if (d->row[i].chat)
            return error_set(ERR_FILE, "%s:%lld: lists of messages are not rendered yet", d->path, (long long)d->row[i].line);
    return 0;
}
