/* policy_loss_*: by hand, against finite differences, and the identities of a first mini-batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "policy_loss.h"
#include "rng.h"

enum { N = 400 };

static const struct policy_loss_settings SETTINGS = {
    .cliprange = 0.2, .cliprange_value = 0.2, .vf_coef = 0.1, .ent_coef = 0.01};

struct data {
    float logprob[N], value[N], entropy[N], old_logprob[N], old_value[N], advantage[N], ret[N];
};

static float draw(uint32_t i, uint32_t what)
{
    uint32_t words[4];
    rng_draw(words, rng_key(7, RNG_TEST, 0, 0), i, what, 0, 0);
    return 2.0f * rng_uniform(words[0]) - 1.0f;
}

static struct policy_loss_tokens view(const struct data *d, int from, int n)
{
    return (struct policy_loss_tokens){n,
                                       d->logprob + from,
                                       d->value + from,
                                       d->entropy + from,
                                       d->old_logprob + from,
                                       d->old_value + from,
                                       d->advantage + from,
                                       d->ret + from};
}

/* Ratios and values on both sides of both clips. */
static void fill(struct data *d)
{
    for (uint32_t i = 0; i < N; i++) {
        d->old_logprob[i] = -3.0f + 2.0f * draw(i, 0);
        d->logprob[i] = d->old_logprob[i] + 0.5f * draw(i, 1);
        d->old_value[i] = draw(i, 2);
        d->value[i] = d->old_value[i] + 0.5f * draw(i, 3);
        d->entropy[i] = 2.0f + draw(i, 4);
        d->advantage[i] = draw(i, 5);
        d->ret[i] = d->old_value[i] + draw(i, 6);
    }
}

static void test_by_hand(void **state)
{
    (void)state;
    /* ratios 1.5 and 0.5: the first is clipped (A > 0), the second is (A < 0), the third is not (A
     * < 0, ratio high) */
    struct data d = {.old_logprob = {-1, -1, -1},
                     .logprob = {(float)(-1 + 0.4054651081081644), (float)(-1 - 0.6931471805599453),
                                 (float)(-1 + 0.4054651081081644)},
                     .advantage = {2, -2, -2},
                     .entropy = {1, 2, 3},
                     .old_value = {0, 0, 1},
                     .value = {.5f, .5f, 1.1f},
                     .ret = {1, -1, 1}};
    const struct policy_loss_tokens t = view(&d, 0, 3);
    struct policy_loss l;
    policy_loss_ppo(&l, &t, &SETTINGS);
    assert_true(fabs(l.policy - (-2.4 + 1.6 + 3.0) / 3) < 1e-6);
    /* (0.2 - 1)^2 beats 0.5^2; 1.5^2 beats 1.2^2; 0.1^2 is inside */
    assert_true(fabs(l.value - 0.5 * (0.64 + 2.25 + 0.01) / 3) < 1e-6);
    assert_true(l.entropy == 2.0);
    assert_true(fabs(l.clipfrac - 2.0 / 3) < 1e-15 && fabs(l.value_clipfrac - 1.0 / 3) < 1e-15);
    assert_true(fabs(l.ratio - 3.5 / 3) < 1e-6 && fabs(l.ratio_var - 1.0 / 3) < 1e-6);
    assert_true(fabs(l.value_error - (0.25 + 2.25 + 0.01) / 3) < 1e-6 &&
                fabs(l.value_mean - 2.1 / 3) < 1e-6);
    assert_true(fabs(l.policykl - (0.6931471805599453 - 2 * 0.4054651081081644) / 3) < 1e-6);
    assert_true(fabs(l.approxkl - 0.5 * (0.4804530139182014 + 2 * 0.1644019538932) / 3) < 1e-6);
    assert_true(fabs(l.total - (l.policy + 0.1 * l.value - 0.01 * 2.0)) < 1e-15);
    float dl[3], de[3], dv[3];
    policy_loss_ppo_backward(dl, de, dv, &t, 3, &SETTINGS);
    assert_true(dl[0] == 0 && dl[1] == 0 && fabs(dl[2] - 1.0) < 1e-6);
    assert_true(dv[0] == 0 && fabs(dv[1] - 0.1 * 1.5 / 3) < 1e-7 &&
                fabs(dv[2] - 0.1 * 0.1 / 3) < 1e-7);
    assert_true(de[0] == (float)(-0.01 / 3));
}

static double total(const struct data *d, const struct policy_loss_settings *s)
{
    struct policy_loss l;
    const struct policy_loss_tokens t = view(d, 0, N);
    policy_loss_ppo(&l, &t, s);
    return l.total;
}

/* (L(x + h) - L(x - h)) / (the step as float took it). The loss is quadratic between its kinks in
 * value, exponential in logprob, so the error is of order h^2; tokens whose step crosses a kink are
 * told by one-sided differences that differ. */
static double difference(struct data *d, float *x, double middle, bool *kink)
{
    const float at = *x, h = 0x1p-10f;
    *x = at + h;
    const double high = total(d, &SETTINGS), up = (double)*x - at;
    *x = at - h;
    const double low = total(d, &SETTINGS), down = (double)at - *x;
    *x = at;
    const double right = (high - middle) / up, left = (middle - low) / down;
    *kink = fabs(right - left) > 8 * h / N; /* second derivatives are below 4 / N */
    return (high - low) / (up + down);
}

static void test_derivatives_by_finite_differences(void **state)
{
    (void)state;
    struct data d;
    float dl[N], de[N], dv[N];
    fill(&d);
    struct policy_loss l;
    const struct policy_loss_tokens t = view(&d, 0, N);
    policy_loss_ppo(&l, &t, &SETTINGS);
    assert_true(l.clipfrac > 0.1 && l.clipfrac < 0.9 && l.value_clipfrac > 0.1 &&
                l.value_clipfrac < 0.9);
    policy_loss_ppo_backward(dl, de, dv, &t, N, &SETTINGS);
    const double middle = total(&d, &SETTINGS);
    int kinks = 0;
    for (int i = 0; i < N; i++) {
        bool kink[3];
        const double wl = difference(&d, &d.logprob[i], middle, &kink[0]);
        const double we = difference(&d, &d.entropy[i], middle, &kink[1]);
        const double wv = difference(&d, &d.value[i], middle, &kink[2]);
        kinks += kink[0] + kink[2];
        const double bound =
            2e-6 / N; /* h^2 / 6 times a third derivative of at most 2 / N, and roundings of L */
        assert_true(kink[0] || fabs(wl - dl[i]) < bound);
        assert_true(!kink[1] && fabs(we - de[i]) < bound);
        assert_true(kink[2] || fabs(wv - dv[i]) < bound);
    }
    assert_true(kinks < N / 20);
}

/* A rank's samples in any grouping: the same bits as all tokens at once. */
static void test_derivatives_do_not_depend_on_grouping(void **state)
{
    (void)state;
    struct data d;
    float all[3][N], parts[3][N];
    fill(&d);
    const struct policy_loss_tokens t = view(&d, 0, N);
    policy_loss_ppo_backward(all[0], all[1], all[2], &t, N, &SETTINGS);
    for (int from = 0, n = 1; from < N; from += n, n = 1 + n * 3 % 17) {
        n = from + n > N ? N - from : n;
        const struct policy_loss_tokens part = view(&d, from, n);
        policy_loss_ppo_backward(parts[0] + from, parts[1] + from, parts[2] + from, &part, N,
                                 &SETTINGS);
    }
    assert_memory_equal(all, parts, sizeof all);
}

static void test_same_policy_has_ratio_one(void **state)
{
    (void)state;
    struct data d;
    struct policy_loss l;
    fill(&d);
    memcpy(d.logprob, d.old_logprob, sizeof d.logprob);
    memcpy(d.value, d.old_value, sizeof d.value);
    const struct policy_loss_tokens t = view(&d, 0, N);
    policy_loss_ppo(&l, &t, &SETTINGS);
    for (int i = 0; i < N; i++)
        assert_true(policy_loss_ratio(d.logprob[i], d.old_logprob[i]) == 1.0);
    assert_true(l.ratio == 1.0 && l.ratio_var == 0.0 && l.clipfrac == 0.0 &&
                l.value_clipfrac == 0.0);
    assert_true(l.approxkl == 0.0 && l.policykl == 0.0);
}

static void test_not_finite_stays_not_finite(void **state)
{
    (void)state;
    struct data d;
    struct policy_loss l;
    float dl[N], de[N], dv[N];
    fill(&d);
    d.logprob[3] = NAN;
    d.value[4] = NAN;
    const struct policy_loss_tokens t = view(&d, 0, N);
    policy_loss_ppo(&l, &t, &SETTINGS);
    assert_true(isnan(l.policy) && isnan(l.value) && isnan(l.total) && isnan(l.ratio));
    policy_loss_ppo_backward(dl, de, dv, &t, N, &SETTINGS);
    assert_true(isnan(dl[3]) && isnan(dv[4]) && isfinite(dl[4]) && isfinite(dv[3]));
}

static void test_guards(void **state)
{
    (void)state;
    const struct policy_loss l = {.ratio = 12.26, .policykl = 0.2};
    assert_true(policy_loss_guard(&l, 10.0) && !policy_loss_guard(&l, 13.0) &&
                !policy_loss_guard(&l, 0.0));
    assert_true(policy_loss_stop(&l, 0.1) && !policy_loss_stop(&l, 0.14));
}

static void test_no_tokens_give_zeros(void **state)
{
    (void)state;
    struct policy_loss l;
    policy_loss_ppo(&l, &(struct policy_loss_tokens){0}, &SETTINGS);
    assert_true(l.total == 0.0 && l.ratio == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_derivatives_by_finite_differences),
        cmocka_unit_test(test_derivatives_do_not_depend_on_grouping),
        cmocka_unit_test(test_same_policy_has_ratio_one),
        cmocka_unit_test(test_not_finite_stays_not_finite),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_no_tokens_give_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
