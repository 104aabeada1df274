/* safetensors: round trips, shards, and headers that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rlhf-hpc-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* A file of this header (its length is written before it) and n bytes of data. */
static void write_raw(const char *name, const char *header, size_t n_data)
{
    struct text t = {0};
    const uint64_t n = strlen(header);
    for (int i = 0; i < 8; i++)
        text_add(&t, &(char){(char)(n >> (8 * i))}, 1);
    text_add_string(&t, header);
    for (size_t i = 0; i < n_data; i++)
        text_add(&t, &(char){(char)i}, 1);
    assert_int_equal(file_write_atomic(in_folder(name), t.bytes, t.n), 0);
    text_free(&t);
}

static void assert_refused(const char *path, const char *part)
{
    struct safetensors s;
    error_clear();
    if (safetensors_open(&s, path) == 0)
        fail_msg("opened, should say: %s", part);
    if (!strstr(error_message(), part) || !strstr(error_message(), folder))
        fail_msg("'%s' does not say '%s'", error_message(), part);
    assert_null(strchr(error_message(), '\n'));
    assert_int_equal(error_kind(), ERR_FILE);
    assert_int_equal(s.n, 0);
    safetensors_close(&s);
}

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_malformed_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } cases[] = {
        {"", 0, "begin with {"},
        {"[]", 0, "begin with {"},
        {" {}", 0, "begin with {"},
        {"{ ", 0, "not JSON"},
        {"{}x", 0, "not JSON"},
        {"{\"a\":1}", 0, "needs dtype"},
        {"{\"a\":{}}", 0, "needs dtype"},
        {"{\"a\":null}", 0, "needs dtype"},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "needs dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "needs dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{}}}", 4, "needs dtype"},
        {"{\"a\":" T("F99", "[1]", "0", "4") "}", 4, "none of the format's"},
        {"{\"a\":" T("f32", "[1]", "0", "4") "}", 4, "none of the format's"},
        {"{\"a\":" T("F32", "[-1]", "0", "4") "}", 4, "not a size"},
        {"{\"a\":" T("F32", "[1.0]", "0", "4") "}", 4, "not a size"},
        {"{\"a\":" T("F32", "[\"1\"]", "0", "4") "}", 4, "not a size"},
        {"{\"a\":" T("F32", "[4294967296,4294967296]", "0", "4") "}", 4, "overflows"},
        {"{\"a\":" T("F32", "[4611686018427387904]", "0", "4") "}", 4, "overflows"},
        {"{\"a\":" T("F32", "[99999999999999999999]", "0", "4") "}", 4, "not JSON"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "9 dimensions"},
        {"{\"a\":" T("F32", "[1]", "4", "0") "}", 4, "backwards"},
        {"{\"a\":" T("F32", "[1]", "-4", "0") "}", 4, "backwards"},
        {"{\"a\":" T("F32", "[1]", "0", "4.0") "}", 4, "not [begin, end]"},
        {"{\"a\":" T("F32", "[1]", "0", "4,8") "}", 4, "not [begin, end]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "not [begin, end]"},
        {"{\"a\":" T("F32", "[2]", "0", "4") "}", 4, "need 8"},
        {"{\"a\":" T("F32", "[1]", "0", "8") "}", 8, "need 4"},
        {"{\"a\":" T("F32", "[1]", "4", "8") "}", 4, "cut short"},
        {"{\"a\":" T("F32", "[1]", "0", "9223372036854775807") "}", 4, "cut short"},
        {"{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "0", "4") "}", 4, "overlap"},
        {"{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[1]", "4", "8") "}", 8, "overlap"},
        {"{\"a\":" T("F32", "[1]", "4", "8") "}", 8, "unused bytes"},
        {"{\"a\":" T("F32", "[1]", "0", "4") "}", 5, "after the last"},
        {"{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "4", "8") "}", 8,
         "not JSON"},
        {"{\"\":" T("F32", "[1]", "0", "4") "}", 4, "name is empty"},
        {"{\"a\\nb\":" T("F32", "[1]", "0", "4") "}", 4, "not printable"},
        {"{\"a\\u0000b\":" T("F32", "[1]", "0", "4") "}", 4, "not JSON"},
        {"{\"\xff\":" T("F32", "[1]", "0", "4") "}", 4, "not JSON"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]", 4,
         "deeper"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_raw("bad.safetensors", cases[i].header, cases[i].n_data);
        assert_refused(in_folder("bad.safetensors"), cases[i].says);
    }
}

static void test_short_files_and_long_headers_are_refused(void **state)
{
    (void)state;
    static const unsigned char huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    static const unsigned char beyond[] = {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    char deep[100000];
    assert_int_equal(file_write_atomic(in_folder("x"), "", 0), 0);
    assert_refused(in_folder("x"), "too few");
    assert_int_equal(file_write_atomic(in_folder("x"), huge, 7), 0);
    assert_refused(in_folder("x"), "too few");
    assert_int_equal(file_write_atomic(in_folder("x"), huge, sizeof huge), 0);
    assert_refused(in_folder("x"), "header of 18446744073709551615 bytes");
    assert_int_equal(file_write_atomic(in_folder("x"), beyond, sizeof beyond), 0);
    assert_refused(in_folder("x"), "cut short");
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"a\":", 5);
    deep[sizeof deep - 1] = 0;
    write_raw("x", deep, 0);
    assert_refused(in_folder("x"), "deeper");
    assert_refused(in_folder("absent"), "No such file");
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    const float data[3] = {1, 2, 3};
    const struct safetensors_out out = {"weight", DTYPE_F32, 1, {3}, data, NULL};
    struct text whole = {0};
    assert_int_equal(safetensors_write(in_folder("whole"), &out, 1), 0);
    assert_int_equal(file_read(&whole, in_folder("whole")), 0);
    for (size_t n = 0; n < whole.n; n++) {
        assert_int_equal(file_write_atomic(in_folder("cut"), whole.bytes, n), 0);
        assert_refused(in_folder("cut"), "");
    }
    text_free(&whole);
}

/* A flipped byte of the header is an error or another sound header; the sanitizers watch the reads. */
static void test_flipped_bytes_do_no_harm(void **state)
{
    (void)state;
    const float data[4] = {1, 2, 3, 4};
    const struct safetensors_out out[] = {{"a", DTYPE_F32, 2, {1, 3}, data, NULL},
                                          {"b", DTYPE_F16, 1, {2}, data, NULL}};
    struct text whole = {0};
    assert_int_equal(safetensors_write(in_folder("whole"), out, 2), 0);
    assert_int_equal(file_read(&whole, in_folder("whole")), 0);
    for (size_t i = 0; i < whole.n; i++) {
        whole.bytes[i] ^= (char)(1 + i * 7 % 255);
        assert_int_equal(file_write_atomic(in_folder("flipped"), whole.bytes, whole.n), 0);
        struct safetensors s;
        if (safetensors_open(&s, in_folder("flipped")) == 0)
            for (int k = 0; k < s.n; k++) {
                float values[8];
                if (safetensors_is_float(&s.entry[k]) && s.entry[k].n <= 8)
                    assert_int_equal(safetensors_floats(values, &s.entry[k], 0, s.entry[k].n), 0);
            }
        safetensors_close(&s);
        whole.bytes[i] ^= (char)(1 + i * 7 % 255);
    }
    text_free(&whole);
}

static void test_what_is_written_reads_back(void **state)
{
    (void)state;
    const float f32[6] = {1.5f, -2, 0, 3e-9f, 65504, 7};
    const uint16_t f16[2] = {0x3c00, 0xc000}, bf16[2] = {0x3f80, 0xc040};
    const int32_t i32[1] = {-5};
    const struct safetensors_out out[] = {{"z.weight", DTYPE_F32, 2, {2, 3}, f32, NULL},
                                          {"half", DTYPE_F16, 1, {2}, f16, NULL},
                                          {"brain", DTYPE_BF16, 1, {2}, bf16, NULL},
                                          {"scalar", DTYPE_I32, 0, {0}, i32, NULL},
                                          {"nothing", DTYPE_F32, 2, {0, 4}, NULL, NULL}};
    struct safetensors s;
    float values[6];
    assert_int_equal(safetensors_write(in_folder("model.safetensors"), out, 5), 0);
    assert_int_equal(safetensors_open(&s, folder), 0);
    assert_int_equal(s.n, 5);
    const struct safetensors_entry *e = safetensors_find(&s, "z.weight");
    assert_non_null(e);
    assert_int_equal(e->n_dims, 2);
    assert_int_equal(e->shape[1], 3);
    assert_int_equal((uintptr_t)e->bytes % 8, 0);
    assert_int_equal(safetensors_floats(values, e, 0, 6), 0);
    assert_memory_equal(values, f32, sizeof f32);
    assert_int_equal(safetensors_floats(values, e, 4, 2), 0);
    assert_memory_equal(values, f32 + 4, 8);
    assert_int_equal(safetensors_floats(values, safetensors_find(&s, "half"), 0, 2), 0);
    assert_true(values[0] == 1 && values[1] == -2);
    assert_int_equal(safetensors_floats(values, safetensors_find(&s, "brain"), 0, 2), 0);
    assert_true(values[0] == 1 && values[1] == -3);
    e = safetensors_find(&s, "scalar");
    assert_true(e->n_dims == 0 && e->n == 1 && e->dtype == DTYPE_I32 && !safetensors_is_float(e));
    assert_int_equal(safetensors_floats(values, e, 0, 1), -1);
    assert_non_null(strstr(error_message(), "dtype I32"));
    assert_int_equal(safetensors_find(&s, "nothing")->n, 0);
    assert_null(safetensors_find(&s, "z"));
    safetensors_close(&s);
    safetensors_close(&s);
    assert_int_equal(unlink(in_folder("model.safetensors")), 0);
}

static void test_unaligned_data_is_read(void **state)
{
    (void)state;
    struct safetensors s;
    float values[2];
    const unsigned char raw[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    write_raw("odd", "{\"b\":" T("BOOL", "[1]", "0", "1") ",\"a\":" T("F32", "[1]", "1", "5") "}",
              5);
    assert_int_equal(safetensors_open(&s, in_folder("odd")), 0);
    assert_int_equal(safetensors_find(&s, "b")->dtype, -1);
    assert_string_equal(safetensors_find(&s, "b")->type, "BOOL");
    assert_int_equal(safetensors_floats(values, safetensors_find(&s, "b"), 0, 1), -1);
    assert_int_equal(safetensors_floats(values, safetensors_find(&s, "a"), 0, 1), 0);
    assert_memory_equal(values, raw + 1, 4);
    safetensors_close(&s);
}

static void test_streamed_file_is_the_same(void **state)
{
    (void)state;
    const float data[3] = {1, 2, 3};
    const struct safetensors_out out[] = {{"a", DTYPE_F32, 1, {2}, data, NULL},
                                          {"b", DTYPE_F32, 1, {1}, data + 2, NULL}};
    struct text one = {0}, two = {0};
    struct safetensors_writer w;
    assert_int_equal(safetensors_write(in_folder("one"), out, 2), 0);
    assert_int_equal(safetensors_writer_begin(&w, in_folder("two"), out, 2), 0);
    assert_false(file_exists(in_folder("two")));
    for (int i = 0; i < 3; i++)
        assert_int_equal(safetensors_writer_put(&w, data + i, 4), 0);
    assert_int_equal(safetensors_writer_end(&w), 0);
    assert_int_equal(file_read(&one, in_folder("one")), 0);
    assert_int_equal(file_read(&two, in_folder("two")), 0);
    assert_int_equal(one.n, two.n);
    assert_memory_equal(one.bytes, two.bytes, one.n);
    assert_int_equal(safetensors_writer_begin(&w, in_folder("three"), out, 2), 0);
    safetensors_writer_abandon(&w);
    safetensors_writer_abandon(&w);
    assert_false(file_exists(in_folder("three")));
    assert_int_equal(safetensors_write(in_folder("absent/four"), out, 2), -1);
    text_free(&one);
    text_free(&two);
}

static void write_index(const char *text)
{
    assert_int_equal(
        file_write_atomic(in_folder("model.safetensors.index.json"), text, strlen(text)), 0);
}

static void test_shards(void **state)
{
    (void)state;
    const float data[1] = {4};
    const struct safetensors_out a = {"a", DTYPE_F32, 1, {1}, data, NULL},
                                 b = {"b", DTYPE_F32, 1, {1}, data, NULL};
    struct safetensors s;
    assert_refused(folder, "neither model.safetensors nor");
    assert_int_equal(safetensors_write(in_folder("1.safetensors"), &a, 1), 0);
    assert_int_equal(safetensors_write(in_folder("2.safetensors"), &b, 1), 0);
    write_index(
        "{\"metadata\":{},\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    assert_int_equal(safetensors_open(&s, folder), 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.n_files, 2);
    assert_non_null(strstr(safetensors_find(&s, "b")->file, "2.safetensors"));
    safetensors_close(&s);
    static const char *const bad[][2] = {
        {"{}", "no weight_map"},
        {"{\"weight_map\":{}}", "empty"},
        {"{\"weight_map\":{\"a\":1}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a file of this folder"},
        {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "No such file"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}",
         "is not in 1.safetensors"},
        {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", "is not in"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_index(bad[i][0]);
        assert_refused(folder, bad[i][1]);
    }
    assert_int_equal(safetensors_write(in_folder("2.safetensors"), &a, 1), 0);
    write_index("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    assert_refused(folder, "in two shards");
    assert_int_equal(unlink(in_folder("model.safetensors.index.json")), 0);
    assert_int_equal(file_write_atomic(in_folder("pytorch_model.bin"), "PK", 2), 0);
    assert_refused(folder, "pickled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_headers_are_refused),
        cmocka_unit_test(test_short_files_and_long_headers_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_flipped_bytes_do_no_harm),
        cmocka_unit_test(test_what_is_written_reads_back),
        cmocka_unit_test(test_unaligned_data_is_read),
        cmocka_unit_test(test_streamed_file_is_the_same),
        cmocka_unit_test(test_shards),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
