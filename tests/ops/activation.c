/* act_forward and act_backward against float64; the CPU's vector functions by their promised bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CPU_ISA plain
#include "cpu/vmath.h"
#include "support/ops_check.h"
#include "support/reference_ops.h"

#include <stdlib.h>

struct activations {
    enum activation act;
    int N, I;
    const float *up, *gate, *dy;
    bool in_place;
};

/* out: y, dup, dgate, each [N][I] */
static void run_activation(struct backend *be, void *context, void *out)
{
    const struct activations *c = context;
    const int64_t all = (int64_t)c->N * c->I;
    const act_t *up = ops_in_acts(be, c->up, all), *gate = ops_in_acts(be, c->gate, all);
    act_t *y = ops_room_acts(be, all), *dy = ops_in_acts(be, c->dy, all),
          *dup = c->in_place ? dy : ops_room_acts(be, all),
          *dgate = gate ? ops_room_acts(be, all) : NULL;
    be->ops->act_forward(be, y, up, gate, c->act, c->N, c->I);
    be->ops->act_backward(be, dup, dgate, dy, up, gate, c->act, c->N, c->I);
    float *parts = out;
    ops_out_acts(be, parts, y, all);
    ops_out_acts(be, parts + all, dup, all);
    if (dgate)
        ops_out_acts(be, parts + 2 * all, dgate, all);
}

static void check_activation(enum activation act, int N, int I, bool gated)
{
    const int64_t all = (int64_t)N * I;
    float *x = ops_random(3 * all, (unsigned)(act + 1), 2);
    struct activations c = {act, N, I, x, gated ? x + all : NULL, x + 2 * all, false};
    float *got = ops_same_bits(run_activation, &c, (size_t)all * 3 * sizeof *got);
    double *want = calloc((size_t)all * 3, sizeof *want);
    for (int64_t i = 0; i < all; i++) {
        const double up = x[i], gate = x[all + i], dy = x[2 * all + i];
        if (gated) {
            want[i] = reference_activation(act, gate) * up;
            want[all + i] = dy * reference_activation(act, gate);
            want[2 * all + i] = dy * up * reference_activation_slope(act, gate);
        } else {
            want[i] = reference_activation(act, up);
            want[all + i] = dy * reference_activation_slope(act, up);
        }
    }
    for (int part = 0; part < 3; part++)
        ops_close_acts(part == 0   ? "y"
                       : part == 1 ? "dup"
                                   : "dgate",
                       got + part * all, want + part * all, all, all < 10 ? 1e-4 : 1e-5);

    c.in_place = true;
    float *same = ops_once(run_activation, &c, (size_t)all * 3 * sizeof *got, 2);
    assert_memory_equal(same, got, (size_t)all * 3 * sizeof *got);
    free(same);

    /* the last row alone */
    const int64_t at = all - I;
    struct activations one = {act,  1, I, x + at, gated ? x + all + at : NULL, x + 2 * all + at,
                              false};
    float *alone = ops_once(run_activation, &one, (size_t)I * 3 * sizeof *alone, 1);
    for (int part = 0; part < 3; part++)
        assert_memory_equal(alone + part * I, got + part * all + at, (size_t)I * sizeof *alone);
    free(alone);
    free(want);
    free(got);
    free(x);
}

static void test_activations(void **state)
{
    (void)state;
    static const int shape[][2] = {{1, 1}, {3, 5}, {2, 16}, {5, 24}, {7, 129}, {6, 11008}};
    for (int act = ACT_GELU; act <= ACT_TANH; act++) {
        for (int i = 0; i < (ops_small() ? 5 : 6); i++) {
            const int I = ops_width(shape[i][1]);
            check_activation(act, shape[i][0], I, false);
            check_activation(act, shape[i][0], I, true);
        }
    }
}

static double first(vec x)
{
    return x[0];
}

static void test_vector_functions(void **state)
{
    (void)state;
    if (ops_on_cuda())
        skip();
    double worst_erf = 0, worst_tanh = 0, worst_exp = 0;
    for (int i = -400000; i <= 400000; i++) {
        const float x = (float)i * 2.5e-5f; /* -10 .. 10 */
        worst_erf = fmax(worst_erf, fabs(first(vec_erf(vec_all(x))) - erf(x)));
        worst_tanh = fmax(worst_tanh, fabs(first(vec_tanh(vec_all(x))) - tanh(x)));
        const float y = x * 9;
        const vec e = vec_exp(vec_all(y));
        const float scalar = fast_exp(y);
        assert_memory_equal(&e, &scalar, sizeof scalar);
        if (y > -87 && y < 88)
            worst_exp = fmax(worst_exp, fabs(scalar / exp(y) - 1));
    }
    assert_true(worst_erf < 1e-7);
    assert_true(worst_tanh < 2e-7);
    assert_true(worst_exp < 2.4e-7);
    assert_true(isnan(vec_erf(vec_all(NAN))[0]) && isnan(vec_tanh(vec_all(NAN))[0]) &&
                isnan(vec_exp(vec_all(NAN))[0]));
    assert_true(vec_erf(vec_all(INFINITY))[0] == 1 && vec_tanh(vec_all(-INFINITY))[0] == -1 &&
                vec_exp(vec_all(-INFINITY))[0] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_vector_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
