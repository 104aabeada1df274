#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/tokenizer_file.h"

#include "error.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char folder[64];

int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/rlhf-tokenizer-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

void write_file(const char *name, const char *content, size_t n)
{
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, content, n), 0);
    free(path);
}

struct tokenizer *open_text(const char *json)
{
    struct tokenizer *t;
    write_file("tokenizer.json", json, strlen(json));
    if (tokenizer_open(&t, folder))
        fail_msg("%s", error_message());
    return t;
}

void assert_ids(const struct tokenizer *t, const char *text, size_t n, bool special, int n_want, const int32_t *want)
{
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode(t, &ids, text, n, special), 0);
    if (ids.n != n_want || (n_want && memcmp(ids.ids, want, (size_t)n_want * sizeof *want))) {
        for (int64_t i = 0; i < ids.n; i++)
            printf(" %d", ids.ids[i]);
        fail_msg("wrong ids of \"%s\"", text);
    }
    token_list_free(&ids);
}

void assert_text(const struct tokenizer *t, bool skip, const char *want, int n, const int32_t *ids)
{
    struct text text = {0};
    assert_int_equal(tokenizer_decode(t, &text, ids, n, skip), 0);
    assert_string_equal(text_string(&text), want);
    assert_true(text.n <= tokenizer_text_max(t, n));
    text_free(&text);
}
