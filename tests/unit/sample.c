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

static void test_record_there_and_back(void **state)
{
    (void)state;
    struct sample a, b;
    struct text record = {0}, again = {0};
    make(&a, 1234567890123);
    sample_write(&record, &a);
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
    assert_null(b.array[SAMPLE_REF_LOGPROB]);
    sample_write(&again, &b);
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
    struct sample a = {0}, b;
    struct text record = {0};
    sample_array(&a, SAMPLE_VALUE);
    sample_write(&record, &a);
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
    struct sample a, b;
    struct text record = {0};
    make(&a, 3);
    sample_write(&record, &a);
    for (size_t n = 0; n < record.n; n++) {
        unsigned char *cut = n ? malloc(n) : NULL; /* exact size, so that a read past it is seen */
        if (n)
            memcpy(cut, record.bytes, n);
        assert_int_equal(sample_read(&b, cut, n), -1);
        assert_null(b.prompt);
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
            if (sample_read(&b, record.bytes, record.n) == 0)
                sample_free(&b);
            record.bytes[at] ^= (char)(1 << bit);
        }
    }
    sample_free(&a);
    text_free(&record);
}

static void test_new_response_drops_arrays(void **state)
{
    (void)state;
    struct sample a;
    make(&a, 1);
    sample_set_response(&a, (const int32_t[]){9}, 1);
    assert_null(a.array[SAMPLE_VALUE]);
    assert_true(sample_array(&a, SAMPLE_VALUE)[0] == 0.0f);
    sample_free(&a);
}

static void test_list_sorts_and_counts(void **state)
{
    (void)state;
    struct sample_list list = {0};
    for (int i = 0; i < 200; i++)
        make(sample_list_add(&list), i * 37 % 200);
    sample_list_sort(&list);
    for (int i = 0; i < 200; i++)
        assert_int_equal(list.sample[i].index, i);
    assert_int_equal(sample_list_tokens(&list), 800);
    sample_list_clear(&list);
    assert_int_equal(sample_list_tokens(&list), 0);
    sample_list_free(&list);
    sample_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_there_and_back),
        cmocka_unit_test(test_empty_sample),
        cmocka_unit_test(test_damaged_records),
        cmocka_unit_test(test_new_response_drops_arrays),
        cmocka_unit_test(test_list_sorts_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
