/* banner_tokens: ids with their tokens; special ones are told apart, whitespace can be seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "banner.h"
#include "error.h"
#include "file.h"

static const char TOKENIZER[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
    "{\"id\":4,\"content\":\"  \",\"special\":false,\"normalized\":false},"
    "{\"id\":5,\"content\":\"a\\n\\tb\",\"special\":false,\"normalized\":false}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"\xc4\xa0\":2,\"\xc4\xa0\x61\":3},\"merges\":[\"\xc4\xa0 a\"]}}";

static void test_special_and_whitespace(void **state)
{
    (void)state;
    char folder[] = "banner.XXXXXX";
    struct tokenizer *t;
    struct text out = {0};
    assert_non_null(mkdtemp(folder));
    char *path = file_join(folder, "tokenizer.json");
    assert_int_equal(file_write_atomic(path, TOKENIZER, strlen(TOKENIZER)), 0);
    if (tokenizer_open(&t, folder))
        fail_msg("%s", error_message());
    banner_tokens(&out, t, (const int32_t[]){0, 1, 3, 4, 5, 99}, 6);
    assert_string_equal(text_string(&out), " 0:\xc2\xab<s>\xc2\xbb 1:a 3:\xc4\xa0\x61 4:\xe2\x90\xa3\xe2\x90\xa3 5:a\\n\\tb 99:?");
    text_free(&out);
    tokenizer_close(t);
    free(path);
    file_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_and_whitespace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
