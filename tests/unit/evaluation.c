/* evaluation_*: totals of samples written by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "evaluation.h"

static void add(struct sample_list *list, double score, int n, const int32_t *ids, const float *logprob, const float *reference)
{
    struct sample *s = sample_list_add(list);
    s->raw_score = score;
    sample_set_response(s, ids, n);
    memcpy(sample_array(s, SAMPLE_LOGPROB), logprob, (size_t)n * sizeof *logprob);
    memcpy(sample_array(s, SAMPLE_REF_LOGPROB), reference, (size_t)n * sizeof *reference);
}

static void test_totals_of_three_samples(void **state)
{
    (void)state;
    struct sample_list list = {0};
    struct evaluation e;
    add(&list, 1, 3, (int32_t[]){7, 8, 7}, (float[]){-1, -2, -0.5f}, (float[]){-1.5f, -2, -1}); /* KL 1 */
    add(&list, 2, 1, (int32_t[]){7}, (float[]){-3}, (float[]){-1});                             /* -2 */
    add(&list, 6, 2, (int32_t[]){7, 8}, (float[]){-1, -1}, (float[]){-2, -4});                  /* 4 */
    evaluation_describe(&e, &list);
    assert_int_equal(e.n, 3);
    assert_true(e.score == 3 && e.kl == 1 && e.response_length == 2);
    assert_true(fabs(e.score_std - sqrt(7)) < 1e-15); /* squares 4 + 1 + 9, over 2 */
    assert_true(fabs(e.score_stderr - sqrt(7.0 / 3)) < 1e-15);
    assert_true(evaluation_distinct_2(&list) == 2.0 / 3); /* 7 8, 8 7, 7 8: none across samples */
    sample_list_free(&list);
}

static void test_one_sample_has_no_deviation(void **state)
{
    (void)state;
    struct sample_list list = {0};
    struct evaluation e;
    add(&list, 5, 1, (int32_t[]){3}, (float[]){-1}, (float[]){-1});
    evaluation_describe(&e, &list);
    assert_true(e.n == 1 && e.score == 5 && e.score_std == 0 && e.score_stderr == 0 && e.kl == 0);
    assert_true(evaluation_distinct_2(&list) == 0);
    sample_list_free(&list);
}

static void test_pairs_keep_their_order(void **state)
{
    (void)state;
    struct sample_list list = {0};
    const float zero[4] = {0};
    add(&list, 0, 4, (int32_t[]){1, 2, 1, 70000}, zero, zero);
    add(&list, 0, 2, (int32_t[]){70000, 1}, zero, zero);
    assert_true(evaluation_distinct_2(&list) == 1);
    sample_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_totals_of_three_samples),
        cmocka_unit_test(test_one_sample_has_no_deviation),
        cmocka_unit_test(test_pairs_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
