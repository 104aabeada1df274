/* A growing byte buffer: decoded text, messages, small files. Bytes may hold NUL; one NUL follows the last. */
#ifndef RLHF_SRC_TEXT_H
#define RLHF_SRC_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *bytes; /* [n] and a NUL; NULL when empty and never used */
    size_t n, room;
};

void text_reserve(struct text *t, size_t more); /* room for more bytes behind the n there are */
void text_add(struct text *t, const void *bytes, size_t n);
void text_add_string(struct text *t, const char *string);
void text_format(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *text_string(const struct text *t); /* never NULL; borrowed */
void text_clear(struct text *t);               /* keeps the room */
void text_free(struct text *t);

char *text_copy(const char *string); /* strdup that does not fail; the caller frees */
bool text_ends(const char *string, const char *end);

#endif
