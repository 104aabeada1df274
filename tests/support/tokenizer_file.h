/* A tokenizer.json that a test writes into its temporary folder. */
#ifndef RLHF_TESTS_SUPPORT_TOKENIZER_FILE_H
#define RLHF_TESTS_SUPPORT_TOKENIZER_FILE_H

#include "tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern char folder[64]; /* made and removed by the two below, set-up and tear-down of a group of tests */
int make_folder(void **state);
int remove_folder(void **state);

void write_file(const char *name, const char *content, size_t n);
struct tokenizer *open_text(const char *json); /* writes it as tokenizer.json; fails the test where it is refused */

void assert_ids(const struct tokenizer *t, const char *text, size_t n, bool special, int n_want, const int32_t *want);
void assert_text(const struct tokenizer *t, bool skip, const char *want, int n, const int32_t *ids);
#define IDS(...)                                                                                                                 \
    (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (int32_t[])                                                       \
    {                                                                                                                            \
        __VA_ARGS__                                                                                                              \
    }

#endif
