/* score_loss_*: values worked out by hand, derivatives against central differences, and scores far apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "score_loss.h"

#include <math.h>

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.17g is not %.17g", a, b);
}

static void test_even_scores(void **state)
{
    (void)state;
    double d[3];
    near(score_loss_class(d, (float[]){2, 2, 2}, 3, 1), log(3), 1e-15);
    near(d[0], 1.0 / 3, 1e-15);
    near(d[1], -2.0 / 3, 1e-15);
    near(score_loss_pair(d, (float[]){1, 1}, 0, 0), log(2), 1e-15);
    assert_true(d[0] == -0.5 && d[1] == 0.5);
    near(score_loss_pair(d, (float[]){1, 1}, 0, 0.25), log(2) + 1, 1e-15); /* (1 + 1)^2 / 4 */
    near(score_loss_pair(d, (float[]){3, 1}, 2, 0), log(2), 1e-15);        /* the margin is just met */
}

static void test_scores_far_apart(void **state)
{
    (void)state;
    double d[2];
    near(score_loss_pair(d, (float[]){-500, 500}, 0, 0), 1000, 1e-9);
    assert_true(d[0] == -1 && d[1] == 1);
    assert_true(score_loss_pair(d, (float[]){500, -500}, 0, 0) >= 0 && d[0] <= 0 && d[1] >= 0);
    near(score_loss_class(d, (float[]){-3e4f, 3e4f}, 2, 0), 6e4, 1e-6);
    assert_true(score_loss_class(d, (float[]){3e4f, -3e4f}, 2, 0) == 0 && d[0] == 0 && d[1] == 0);
}

static void test_derivatives_are_slopes(void **state)
{
    (void)state;
    const float step = 0x1p-10f, score[] = {0.75f, -1.5f, 2.25f};
    double d[3], unused[3];
    for (int i = 0; i < 3; i++) {
        float up[3], down[3];
        for (int k = 0; k < 3; k++)
            up[k] = down[k] = score[k];
        up[i] += step;
        down[i] -= step;
        score_loss_class(d, score, 3, 1);
        near(d[i], (score_loss_class(unused, up, 3, 1) - score_loss_class(unused, down, 3, 1)) / (2 * step), 1e-6);
        if (i < 2) {
            score_loss_pair(d, score, 0.3, 0.01);
            near(d[i], (score_loss_pair(unused, up, 0.3, 0.01) - score_loss_pair(unused, down, 0.3, 0.01)) / (2 * step), 1e-6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_even_scores),
        cmocka_unit_test(test_scores_far_apart),
        cmocka_unit_test(test_derivatives_are_slopes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
