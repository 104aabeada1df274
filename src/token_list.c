/* Doubling, as in text.c. */
#include "token_list.h"

#include "error.h"

#include <stdlib.h>

void token_list_reserve(struct token_list *list, int64_t more)
{
    if (list->n + more <= list->room)
        return;
    int64_t room = list->room ? list->room : 64;
    while (room < list->n + more)
        room *= 2;
    list->ids = realloc(list->ids, (size_t)room * sizeof *list->ids);
    CHECK(list->ids, "out of memory for %lld token ids", (long long)room);
    list->room = room;
}

void token_list_add(struct token_list *list, int32_t id)
{
    token_list_reserve(list, 1);
    list->ids[list->n++] = id;
}

void token_list_add_all(struct token_list *list, const struct token_list *more)
{
    token_list_reserve(list, more->n);
    for (int64_t i = 0; i < more->n; i++)
        list->ids[list->n++] = more->ids[i];
}

void token_list_free(struct token_list *list)
{
    free(list->ids);
    *list = (struct token_list){0};
}
