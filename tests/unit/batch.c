/* batch_*: balance, determinism, completeness of the deal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "batch.h"
#include "rng.h"
#include <cmocka.h>

static void test_longest_first_by_hand(void **state)
{
    (void)state;
    const int64_t length[6] = {3, 9, 4, 9, 3, 0};
    struct batch_entry entry[6];
    int64_t load[2];
    int rank[6];
    batch_deal(rank, &(struct batch_deal){entry, load}, length, 6, 2);
    /* 9 -> 0, 9 -> 1, 4 -> 0, 3 (place 0) -> 1, 3 (place 4) -> 1 (12 < 13), 0 -> 0 (13 < 15) */
    const int want[6] = {1, 0, 0, 1, 1, 0};
    assert_memory_equal(rank, want, sizeof want);
    assert_true(load[0] == 14 && load[1] == 15);
}

static void test_deal_is_balanced_and_complete(void **state)
{
    (void)state;
    enum { N = 64 };
    struct batch_entry entry[N];
    int64_t length[N], load[8], all = 0;
    int rank[N], place[N];
    for (uint32_t i = 0; i < N; i++) {
        length[i] = rng_range(rng_word(rng_key(3, RNG_TEST, 0, 0), 0, i, 0, 0), 4, 200);
        all += length[i];
    }
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        int dealt = 0;
        batch_deal(rank, &(struct batch_deal){entry, load}, length, N, ranks);
        for (int r = 0; r < ranks; r++) {
            const int n = batch_share(place, rank, N, r);
            int64_t own = 0;
            for (int i = 0; i < n; i++) {
                own += length[place[i]];
                assert_true(i == 0 || place[i] > place[i - 1]);
            }
            assert_true(load[r] == own);
            assert_true(own * ranks <= all + 200 * ranks && own * ranks >= all - 200 * ranks);
            dealt += n;
        }
        assert_int_equal(dealt, N);
    }
}

static void test_more_ranks_than_samples(void **state)
{
    (void)state;
    const int64_t length[2] = {5, 5};
    struct batch_entry entry[2];
    int64_t load[5];
    int rank[2], place[2];
    batch_deal(rank, &(struct batch_deal){entry, load}, length, 2, 5);
    assert_int_equal(rank[0], 0);
    assert_int_equal(rank[1], 1);
    assert_int_equal(batch_share(place, rank, 2, 4), 0);
    batch_deal(rank, &(struct batch_deal){entry, load}, length, 0, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_first_by_hand),
        cmocka_unit_test(test_deal_is_balanced_and_complete),
        cmocka_unit_test(test_more_ranks_than_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
