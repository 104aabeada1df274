/* sample_*: records there and back, and records that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "sample.h"

static void make(struct sample *s, int64_t index)
{
    const int32_t prompt[3] = {5, 6, 7}, response[4] = {1, 2, 3, 0};
    const double part[2] = {0.5, -1.25};
    *s = (struct sample){
        .index = index, .source = 77, .finished = true, .raw_score = 2.5, .score = -0.125};
    sample_set_prompt(s, prompt, 3);
    sample_set_response(s, response, 4);
    sample_set_parts(s, part, 2);
    text_add(&s->prompt_text, "pro\0mpt", 7);
    text_add_string(&s->response_text, "antw\xc3\xb6rt");
    float *logprob = sample_array(s, SAMPLE_LOGPROB), *value = sample_array(s, SAMPLE_VALUE);
    for (int t = 0; t < 4; t++) {
        logprob[t] = -0.1f * (float)t;
        value[t] = 3.0f + (float)t;
    }
}

static void record_of(struct text *record, const struct sample *s)
{
    text_reserve(record, sample_bytes(s));
    sample_write(record->bytes, s);
    record->n = sample_bytes(s);
}

static void test_record_there_and_back(void **state)
{
    (void)state;
    struct sample a, b = {0};
    struct text record = {0}, again = {0};
    make(&a, 1234567890123);
    record_of(&record, &a);
    assert_int_equal(sample_read(&b, record.bytes, record.n), 0);
    assert_true(b.index == a.index && b.source == 77 && b.finished && b.raw_score == 2.5 &&
                b.score == -0.125);
    assert_int_equal(b.n_prompt, 3);
    assert_int_equal(b.n_response, 4);
    assert_memory_equal(b.prompt, a.prompt, sizeof(int32_t[3]));
    assert_memory_equal(b.response, a.response, sizeof(int32_t[4]));
    assert_memory_equal(b.part, a.part, sizeof(double[2]));
    assert_int_equal(b.prompt_text.n, 7);
    assert_memory_equal(b.prompt_text.bytes, "pro\0mpt", 7);
    assert_string_equal(text_string(&b.response_text), "antw\xc3\xb6rt");
    assert_memory_equal(b.array[SAMPLE_LOGPROB], a.array[SAMPLE_LOGPROB], sizeof(float[4]));
    assert_true(sample_has(&b, SAMPLE_VALUE) && !sample_has(&b, SAMPLE_REF_LOGPROB));
    record_of(&again, &b);
    assert_int_equal(again.n, record.n);
    assert_memory_equal(again.bytes, record.bytes, record.n);
    sample_free(&a);
    sample_free(&b);
    sample_free(&b);
    text_free(&record);
    text_free(&again);
}

static void test_empty_sample(void **state)
{
    (void)state;
    struct sample a = {0}, b = {0};
    struct text record = {0};
    sample_array(&a, SAMPLE_VALUE);
    record_of(&record, &a);
    assert_int_equal(sample_read(&b, record.bytes, record.n), 0);
    assert_int_equal(b.n_response, 0);
    sample_free(&b);
    text_free(&record);
}

/* Cut anywhere, extended, or with any byte of its header changed: an error or a sample, never a
 * crash (ASan runs this). */
static void test_damaged_records(void **state)
{
    (void)state;
    struct sample a, b = {0};
    struct text record = {0};
    make(&a, 3);
    record_of(&record, &a);
    for (size_t n = 0; n < record.n; n++) {
        unsigned char *cut = n ? malloc(n) : NULL; /* exact size, so that a read past it is seen */
        if (n)
            memcpy(cut, record.bytes, n);
        assert_int_equal(sample_read(&b, cut, n), -1);
        assert_true(b.n_prompt == 0 && b.n_response == 0 && b.arrays == 0);
        free(cut);
    }
    assert_non_null(strstr(error_message(), "sample 3 is cut short in its per-token numbers"));
    text_add(&record, "x", 1);
    assert_int_equal(sample_read(&b, record.bytes, record.n), -1);
    assert_non_null(strstr(error_message(), "1 bytes too many"));
    record.n--;
    for (size_t at = 0; at < 72; at++) {
        for (int bit = 0; bit < 8; bit++) {
            record.bytes[at] ^= (char)(1 << bit);
            (void)sample_read(&b, record.bytes, record.n);
            record.bytes[at] ^= (char)(1 << bit);
        }
    }
    sample_free(&a);
    sample_free(&b);
    text_free(&record);
}

static void test_new_response_drops_arrays(void **state)
{
    (void)state;
    struct sample a;
    make(&a, 1);
    sample_set_response(&a, (const int32_t[]){9}, 1);
    assert_false(sample_has(&a, SAMPLE_VALUE));
    assert_true(sample_array(&a, SAMPLE_VALUE)[0] == 0.0f);
    sample_set_response(&a, (const int32_t[]){9, 8, 7, 6, 5}, 5); /* longer than any before */
    for (int t = 0; t < 5; t++)
        assert_true(sample_array(&a, SAMPLE_VALUE)[t] == 0.0f);
    int32_t ids[8];
    assert_int_equal(sample_ids(ids, &a), 8);
    assert_memory_equal(ids, ((int32_t[]){5, 6, 7, 9, 8, 7, 6, 5}), sizeof ids);
    sample_free(&a);
}

static void test_list_counts(void **state)
{
    (void)state;
    struct sample_list list = {0};
    for (int i = 0; i < 200; i++)
        make(sample_list_add(&list), i);
    for (int i = 0; i < 200; i++)
        assert_int_equal(list.sample[i].index, i);
    assert_int_equal(sample_list_tokens(&list), 800);
    sample_list_clear(&list);
    assert_int_equal(sample_list_tokens(&list), 0);
    sample_list_free(&list);
    sample_list_free(&list);
}

/* A list with room is filled, cleared, filled again, and read into, all in the memory it had. */
static void test_reserved_list_keeps_its_memory(void **state)
{
    (void)state;
    const struct sample_size size = {3, 4, 2, 16, 16};
    struct sample_list list = {0};
    struct sample a;
    struct text record = {0};
    make(&a, 5);
    record_of(&record, &a);
    assert_true(record.n <= sample_bytes_max(&size));
    sample_list_reserve(&list, 100, &size);
    const struct sample *at = list.sample;
    const struct sample first = list.sample[0];
    for (int round = 0; round < 2; round++) {
        sample_list_clear(&list);
        for (int i = 0; i < 100; i++) {
            struct sample *s = sample_list_add(&list);
            assert_true(s->n_prompt == 0 && s->n_response == 0 && s->n_parts == 0 && s->arrays == 0 && s->response_text.n == 0);
            assert_int_equal(sample_read(s, record.bytes, record.n), 0);
            assert_true(sample_array(s, SAMPLE_RETURN)[3] == 0.0f);
            sample_array(s, SAMPLE_RETURN)[3] = 1.0f;
        }
        assert_ptr_equal(list.sample, at);
        assert_ptr_equal(list.sample[0].prompt, first.prompt);
        assert_ptr_equal(list.sample[0].response, first.response);
        assert_ptr_equal(list.sample[0].part, first.part);
        assert_ptr_equal(list.sample[0].response_text.bytes, first.response_text.bytes);
        assert_ptr_equal(list.sample[0].array[SAMPLE_RETURN], first.array[SAMPLE_RETURN]);
    }
    sample_free(&a);
    sample_list_free(&list);
    text_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_there_and_back),
        cmocka_unit_test(test_empty_sample),
        cmocka_unit_test(test_damaged_records),
        cmocka_unit_test(test_new_response_drops_arrays),
        cmocka_unit_test(test_list_counts),
        cmocka_unit_test(test_reserved_list_keeps_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
