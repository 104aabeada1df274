/* event_*: records byte by byte as TensorBoard's own writer makes them; CRC-32C of RFC 3720. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "event.h"
#include "file.h"
#include "hash.h"

/* RFC 3720, appendix B.4, and the check value of the CRC catalogue. */
static void test_crc32c_of_known_vectors(void **state)
{
    (void)state;
    static const unsigned char command[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) {
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(hash_crc32c(zeros, 32), 0x8a9136aau);
    assert_int_equal(hash_crc32c(ones, 32), 0x62a8ab43u);
    assert_int_equal(hash_crc32c(up, 32), 0x46dd794eu);
    assert_int_equal(hash_crc32c(down, 32), 0x113fdb5cu);
    assert_int_equal(hash_crc32c(command, 48), 0xd9963a56u);
    assert_int_equal(hash_crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(hash_crc32c("", 0), 0);
}

/* Written by tensorboard 2.21.0 (RecordWriter over Event messages): a version, a START at step 4, two scalars at step 300. */
static const unsigned char recorded[] = {
    0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa3, 0x7f, 0x4b, 0x22, 0x09, 0x00, 0x00, 0x20, 0x40, 0xfc, 0x54, 0xd9,
    0x41, 0x1a, 0x0d, 0x62, 0x72, 0x61, 0x69, 0x6e, 0x2e, 0x45, 0x76, 0x65, 0x6e, 0x74, 0x3a, 0x32, 0x2b, 0x35, 0x31, 0x10,
    0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x6d, 0x53, 0x2b, 0x09, 0x09, 0x00, 0x00, 0x20, 0x40, 0xfc, 0x54, 0xd9,
    0x41, 0x10, 0x04, 0x3a, 0x02, 0x08, 0x01, 0x7c, 0x7b, 0xef, 0x07, 0x2e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc5,
    0xcb, 0x57, 0xfa, 0x09, 0x00, 0x00, 0x50, 0x40, 0xfc, 0x54, 0xd9, 0x41, 0x10, 0xac, 0x02, 0x2a, 0x20, 0x0a, 0x13, 0x0a,
    0x0c, 0x6f, 0x62, 0x6a, 0x65, 0x63, 0x74, 0x69, 0x76, 0x65, 0x2f, 0x6b, 0x6c, 0x15, 0x00, 0x00, 0x80, 0x3e, 0x0a, 0x09,
    0x0a, 0x02, 0x6c, 0x72, 0x15, 0x0a, 0x8f, 0x6c, 0x37, 0x74, 0x78, 0x7c, 0x18,
};

static void test_records_as_tensorboard_writes_them(void **state)
{
    (void)state;
    static const struct event_scalar scalar[] = {{"objective/kl", 0.25f}, {"lr", 1.41e-5f}};
    struct text out = {0};
    event_add_version(&out, 1700000000.5);
    event_add_start(&out, 1700000000.5, 4);
    event_add_scalars(&out, 1700000001.25, 300, scalar, 2);
    assert_int_equal(out.n, sizeof recorded);
    assert_memory_equal(out.bytes, recorded, sizeof recorded);
    text_free(&out);
}

static int count_files(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        n += strncmp(entry->d_name, "events.out.tfevents.", 20) == 0;
    closedir(d);
    return n;
}

/* Two files opened within a second must not share a name, and the later one must be read later. */
static void test_new_file_sorts_behind(void **state)
{
    (void)state;
    char folder[] = "event.XXXXXX";
    struct event_file first, second;
    struct text bytes = {0};
    assert_non_null(mkdtemp(folder));
    assert_int_equal(event_open(&first, folder, 1), 0);
    assert_int_equal(event_open(&second, folder, 4), 0);
    assert_int_equal(count_files(folder), 2);
    assert_true(strcmp(first.path, second.path) < 0);
    assert_int_equal(event_write(&second, 4, &(struct event_scalar){"lr", 1}, 1), 0);
    assert_int_equal(file_read(&bytes, second.path), 0); /* before it is closed: flushed */
    assert_int_equal(bytes.n, 40 + 31 + 40);
    event_close(&first);
    event_close(&second);
    assert_int_equal(event_write(&second, 5, NULL, 0), 0);
    file_remove_tree(folder);
    text_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_of_known_vectors),
        cmocka_unit_test(test_records_as_tensorboard_writes_them),
        cmocka_unit_test(test_new_file_sorts_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
