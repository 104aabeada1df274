/* A growing list of token ids. */
#ifndef RLHF_SRC_TOKEN_LIST_H
#define RLHF_SRC_TOKEN_LIST_H

#include <stdint.h>

struct token_list {
    int32_t *ids; /* [n] */
    int64_t n, room;
};

void token_list_reserve(struct token_list *list,
                        int64_t more); /* room for more ids behind the n there are */
void token_list_add(struct token_list *list, int32_t id);
void token_list_add_all(struct token_list *list, const struct token_list *more);
void token_list_free(struct token_list *list);

#endif
