/* head_sample: which tokens the filters leave, where the cumulative sum ends, frequencies, ties; its bits by rows, and as
 * head_logprob gives them for the same token. Vocabularies from one token to those of real models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/layer.h"
#include "support/ops_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { H = 16, N_EOS = 2 };

struct run {
    const struct layer *head;
    const float *x; /* [n_x][H] */
    int n_x, n;
    const int32_t *row; /* [n] */
    struct sampling how;
    const uint32_t *random;
    const uint8_t *banned;
    const int32_t *eos; /* [N_EOS] */
    bool logits;        /* wanted */
};

/* What run_sample leaves: int32 token [n], then floats: logprob [n], the same by head_logprob [n], logits [n][V]. */
static size_t run_bytes(const struct run *c)
{
    const size_t V = c->logits ? (size_t)c->head->shape.out : 0;
    return (size_t)c->n * (3 + V) * sizeof(float);
}

static void run_sample(struct backend *be, void *context, void *out)
{
    const struct run *c = context;
    const int n = c->n, V = c->head->shape.out;
    const size_t bytes = (size_t)n * sizeof(float);
    struct linear head;
    layer_put(be, &head, NULL, c->head);
    const act_t *x = ops_in_acts(be, c->x, (int64_t)c->n_x * H);
    int32_t *token = ops_room(be, bytes);
    float *logprob = ops_room(be, bytes), *by_logprob = ops_room(be, bytes),
          *rest = ops_room(be, 2 * bytes);
    struct head_rows rows = {n, ops_in(be, c->row, (size_t)n * sizeof *c->row), NULL};
    be->ops->head_sample(be, token, logprob, &head, x, H, &rows, &c->how,
                         ops_in(be, c->random, (size_t)n * 4), ops_in(be, c->banned, (size_t)n),
                         ops_in(be, c->eos, N_EOS * sizeof *c->eos), c->eos ? N_EOS : 0);
    rows.target = token;
    be->ops->head_logprob(be, by_logprob, rest, rest + n, NULL, &head, x, H, &rows,
                          c->how.temperature > 0 ? c->how.temperature : 1);
    ops_out(be, out, token, bytes);
    ops_out(be, (float *)out + n, logprob, bytes);
    ops_out(be, (float *)out + 2 * n, by_logprob, bytes);
    if (c->logits) {
        float *logits = ops_room(be, bytes * (size_t)V);
        rows.target = NULL;
        be->ops->head_logits(be, logits, &head, x, H, &rows);
        ops_out(be, (float *)out + 3 * n, logits, bytes * (size_t)V);
    }
}

static int32_t *sample(const struct run *c)
{
    int32_t *got = ops_same_bits(run_sample, (void *)(uintptr_t)c, run_bytes(c));
    const float *logprob = (float *)got + c->n;
    for (int i = 0; i < c->n; i++)
        assert_true(got[i] >= 0 && got[i] < c->head->shape.out);
    assert_memory_equal(logprob, logprob + c->n,
                        (size_t)c->n * sizeof *logprob); /* head_logprob's bits */
    return got;
}

/* --- what is left of a row, in float64 --- */

struct token {
    float z;
    int32_t id;
};

/* By falling logit, of equal ones by id. */
static int token_order(const void *left, const void *right)
{
    const struct token *a = left, *b = right;
    return a->z != b->z ? (a->z < b->z ? 1 : -1) : a->id < b->id ? -1 : a->id > b->id;
}

/* p [V]: the distribution that the filters leave; logits as the backend's, eos NULL: none is banned. */
static void distribution(double *p, const float *logits, int V, const struct sampling *how,
                         const int32_t *eos)
{
    const float factor = 1.0f / (how->temperature > 0 ? how->temperature : 1.0f);
    struct token *t = ops_allocate(V, sizeof *t);
    int left = 0;
    for (int32_t v = 0; v < V; v++) {
        p[v] = 0;
        if (!eos || (v != eos[0] && v != eos[1]))
            t[left++] = (struct token){logits[v] * factor + 0.0f, v};
    }
    qsort(t, (size_t)left, sizeof *t, token_order);
    const int k = how->temperature <= 0                 ? 1
                  : how->top_k > 0 && how->top_k < left ? how->top_k
                                                        : left;
    double total = 0, sum = 0;
    for (int i = 0; i < k; i++)
        total += exp((double)t[i].z - (double)t[0].z);
    for (int i = 0; i < k && (how->top_p >= 1 || sum < (double)how->top_p * total); i++)
        sum += p[t[i].id] = exp((double)t[i].z - (double)t[0].z);
    for (int v = 0; v < V; v++)
        p[v] /= sum;
    free(t);
}

/* The token is the one at which the cumulative sum passes random / 2^32. Bounds of float32 sums of the shares. */
static void check_token(int32_t token, const double *p, const struct sampling *how, uint32_t random)
{
    double below = 0;
    for (int v = 0; v < token; v++)
        below += p[v];
    const double at = how->temperature > 0 ? random * 0x1p-32 : 0, bound = 1e-5;
    if (!(p[token] > 0 || how->top_p < 1) || at < below - bound || at > below + p[token] + bound)
        fail_msg("token %d, from %.9g, share %.3g, drawn by %.9g", token, below, p[token], at);
}

/* --- vocabularies --- */

static void check_vocabulary(int V, const struct sampling *how, bool ban)
{
    enum { ROWS = 4, N_X = 6 };
    static const int32_t row[ROWS] = {5, 0, 2, 5};
    static const uint8_t banned[ROWS] = {1, 0, 1, 0};
    const int32_t eos[N_EOS] = {V - 1, V / 2};
    struct layer head;
    layer_init(&head, V, H, DTYPE_BF16, MATMUL_PLAIN, false, 0, 3);
    float *x = ops_random(N_X * H, 2, 4);
    uint32_t random[ROWS];
    for (int i = 0; i < ROWS; i++)
        random[i] = rng_word(rng_key(9, RNG_TEST, 0, 0), 0, 0, 0, (uint32_t)(V + i));
    struct run c = {&head, x, N_X, ROWS, row, *how, random, ban ? banned : NULL, ban ? eos : NULL,
                    true};
    int32_t *got = sample(&c);
    double *p = ops_allocate(V, sizeof *p);
    for (int i = 0; i < ROWS; i++) {
        const float *logits = (float *)got + 3 * ROWS + (int64_t)i * V;
        distribution(p, logits, V, how, ban && banned[i] ? eos : NULL);
        check_token(got[i], p, how, random[i]);
    }
    free(p);

    c.logits = false;
    static const int order[ROWS] = {2, 3, 0, 1};
    int32_t other_row[ROWS];
    uint32_t other_random[ROWS];
    uint8_t other_banned[ROWS];
    for (int i = 0; i < ROWS; i++) {
        other_row[i] = row[order[i]];
        other_random[i] = random[order[i]];
        other_banned[i] = banned[order[i]];
    }
    struct run other = c;
    other.row = other_row;
    other.random = other_random;
    other.banned = ban ? other_banned : NULL;
    int32_t *permuted = ops_once(run_sample, &other, run_bytes(&other), 2);
    for (int i = 0; i < ROWS; i++) {
        struct run one = c;
        one.n = 1;
        one.row = row + order[i];
        one.random = random + order[i];
        one.banned = ban ? banned + order[i] : NULL;
        int32_t *alone = ops_once(run_sample, &one, run_bytes(&one), 2);
        for (int j = 0; j < 2; j++) { /* token, log-probability */
            assert_int_equal(alone[j], got[j * ROWS + order[i]]);
            assert_int_equal(permuted[j * ROWS + i], got[j * ROWS + order[i]]);
        }
        free(alone);
    }
    free(permuted);
    free(got);
    free(x);
    layer_free(&head);
}

static void test_vocabularies(void **state)
{
    (void)state;
    static const int V[] = {1, 31, 1000, 1025, 50257}, few[] = {2, 6, 2, 12, 2};
    const int n = ops_small() && !ops_on_cuda() ? 4 : 5;
    for (int i = 0; i < n; i++) {
        const struct sampling how[] = {
            {1, 0, 1},           {0.8f, 40, 0.95f},  {0, 0, 1},     {0.7f, 1, 1},
            {1, 5, 1},           {1, 0, 0.9f},       {1, 0, 1e-6f}, {1.5f, V[i], 1},
            {1, V[i] - 1, 0.5f}, {1, 0, 0.9999999f}, {0, 5, 0.5f},  {3, 700, 1},
        };
        for (int j = 0; j < (ops_small() ? few[i] : 12); j++)
            check_vocabulary(V[i], &how[j], V[i] > 2 && j % 2 == 1);
    }
}

/* --- equal logits --- */

/* All logits are the same: the filters keep the lowest ids, and the draw is linear in the random word. */
static void check_equal(const struct sampling *how, int kept)
{
    enum { V = 2500, ROWS = 16 };
    struct layer head;
    layer_init(&head, V, H, DTYPE_BF16, MATMUL_PLAIN, false, 0, 3);
    const float x[H] = {0};
    const int32_t row[ROWS] = {0};
    uint32_t random[ROWS];
    for (int i = 0; i < ROWS; i++)
        random[i] = i == ROWS - 1 ? UINT32_MAX : (uint32_t)i * (UINT32_MAX / ROWS) + 1000000u;
    const struct run c = {&head, x, 1, ROWS, row, *how, random, NULL, NULL, false};
    int32_t *got = sample(&c);
    for (int i = 0; i < ROWS; i++)
        assert_int_equal(got[i], (int)(random[i] * 0x1p-32 * kept));
    free(got);
    layer_free(&head);
}

static void test_equal_logits(void **state)
{
    (void)state;
    check_equal(&(struct sampling){1, 0, 1}, 2500);
    check_equal(&(struct sampling){1, 1, 1}, 1);
    check_equal(&(struct sampling){0.5f, 1030, 1}, 1030);
    check_equal(&(struct sampling){1, 0, 0.5f}, 1250);
    check_equal(&(struct sampling){1, 2000, 0.25f}, 500);
    check_equal(&(struct sampling){1, 0, 1e-9f}, 1);
}

/* --- the largest logit --- */

static void test_greedy(void **state)
{
    (void)state;
    enum { V = 1053, N = 40, FIRST = 9, SECOND = 1031 };
    static const int32_t eos[N_EOS] = {FIRST, 4};
    struct layer head;
    layer_init(&head, V, H, DTYPE_BF16, MATMUL_PLAIN, false, 0, 3);
    for (int k = 0; k < H; k++) /* the second is as the first, and both are longer than others */
        head.rows[SECOND * H + k] = head.rows[FIRST * H + k] =
            ops_exact(head.rows[FIRST * H + k] * 4);
    float *x = ops_random(N * H, 2, 1);
    int32_t row[N];
    uint8_t banned[N];
    for (int i = 0; i < N; i++) {
        row[i] = N - 1 - i;
        banned[i] = i % 2;
    }
    for (int k = 0; k < H; k++) {
        x[5 * H + k] = 0; /* all equal: token 0 */
        x[6 * H + k] = x[7 * H + k] = ops_exact(10 * head.rows[FIRST * H + k]);
    }
    struct run c = {&head, x, N, N, row, {0, 0, 1}, NULL, banned, eos, true};
    int32_t *got = sample(&c);
    const float *logits = (float *)got + 3 * N;
    for (int i = 0; i < N; i++) {
        int32_t want = -1;
        for (int32_t v = 0; v < V; v++)
            if (!(banned[i] && (v == eos[0] || v == eos[1])) &&
                (want < 0 || logits[i * V + v] > logits[i * V + want]))
                want = v;
        assert_int_equal(got[i], want);
    }
    assert_int_equal(got[N - 1 - 5], 0);
    assert_int_equal(got[N - 1 - 6], SECOND); /* row 33: the first is banned */
    assert_int_equal(got[N - 1 - 7], FIRST);
    free(got);
    free(x);
    layer_free(&head);
}

/* --- a banned token that would take it all --- */

static void test_banned_token_far_above(void **state)
{
    (void)state;
    enum { V = 1100, ROWS = 12 };
    static const int32_t eos[N_EOS] = {1050, 7};
    static const struct sampling how[] = {{1, 0, 1}, {1, 20, 1}, {1, 0, 0.9f}, {0, 0, 1}};
    struct layer head;
    layer_init(&head, V, H, DTYPE_BF16, MATMUL_PLAIN, false, 0, 3);
    float *x = ops_random(H, 2, 2);
    for (int k = 0; k < H; k++) /* logits of about -400 and 400 */
        for (int e = 0; e < N_EOS; e++)
            head.rows[eos[e] * H + k] = x[k] * (e ? -10.0f : 10.0f);
    const int32_t row[ROWS] = {0};
    uint32_t random[ROWS];
    uint8_t banned[ROWS];
    for (int i = 0; i < ROWS; i++) {
        random[i] = rng_word(rng_key(4, RNG_TEST, 0, 0), 0, 0, 0, (uint32_t)i);
        banned[i] = i % 2 == 0;
    }
    double p[V];
    for (int j = 0; j < 4; j++) {
        const struct run c = {&head, x, 1, ROWS, row, how[j], random, banned, eos, true};
        int32_t *got = sample(&c);
        const float *logprob = (float *)got + ROWS, *logits = (float *)got + 3 * ROWS;
        distribution(p, logits, V, &how[j], eos);
        for (int i = 0; i < ROWS; i++) {
            if (banned[i]) {
                check_token(got[i], p, &how[j], random[i]);
                assert_true(got[i] != eos[0] && got[i] != eos[1] && logprob[i] < -100);
            } else {
                assert_int_equal(got[i], eos[0]);
                assert_true(logprob[i] > -1e-5f && logprob[i] <= 0);
            }
        }
        free(got);
    }
    free(x);
    layer_free(&head);
}

/* --- many draws --- */

/* Frequencies by chi-square; tokens of few expected draws are counted together. */
static void check_frequencies(const int32_t *drawn, int n, const double *p, int V)
{
    int32_t *count = ops_allocate(V, sizeof *count);
    for (int i = 0; i < n; i++)
        count[drawn[i]]++;
    double expected = 0, seen = 0, chi = 0;
    int bins = 0;
    for (int v = 0; v < V; v++) {
        assert_true(p[v] > 0 || count[v] == 0); /* never what is excluded */
        expected += n * p[v];
        seen += count[v];
        if (expected < 10 && v < V - 1)
            continue;
        chi += expected > 0 ? (seen - expected) * (seen - expected) / expected : 0;
        bins++;
        expected = seen = 0;
    }
    /* mean and half the variance of chi-square are one less than the bins */
    if (fabs(chi - (bins - 1)) > 4 * sqrt(2.0 * (bins - 1)) + 8)
        fail_msg("chi-square %.1f of %d bins", chi, bins);
    free(count);
}

static void check_draws(int V, int n, const struct sampling *how, bool ban)
{
    const int32_t eos[N_EOS] = {2, V / 3};
    struct layer head;
    layer_init(&head, V, H, DTYPE_BF16, MATMUL_PLAIN, false, 0, 5);
    float *x = ops_random(H, 2, 2);
    int32_t *row = ops_allocate(n, sizeof *row);
    uint32_t *random = ops_allocate(n, sizeof *random);
    uint8_t *banned = ops_allocate(n, 1);
    for (int i = 0; i < n; i++)
        random[i] = rng_word(rng_key(31, RNG_TEST, 0, 0), 0, 0, 0, (uint32_t)i);
    random[0] = 0;
    random[1] = UINT32_MAX;
    memset(banned, ban, (size_t)n);
    struct run c = {&head, x, 1, 1, row, *how, random, banned, eos, true};
    int32_t *one = sample(&c);
    double *p = ops_allocate(V, sizeof *p);
    distribution(p, (float *)one + 3, V, how, ban ? eos : NULL);
    c.n = n;
    c.logits = false;
    int32_t *got = ops_once(run_sample, &c, run_bytes(&c), 2);
    assert_int_equal(got[0], one[0]);
    for (int i = 0; i < n; i++)
        check_token(got[i], p, how, random[i]);
    check_frequencies(got, n, p, V);
    free(one);
    free(got);
    free(p);
    free(x);
    free(row);
    free(random);
    free(banned);
    layer_free(&head);
}

static void test_draws(void **state)
{
    (void)state;
    static const struct sampling how[] = {
        {1, 0, 1},     {0.6f, 0, 1},     {1, 1, 1},   {1, 5, 1},  {1.5f, 9, 1},      {1, 0, 0.75f},
        {1, 0, 1e-6f}, {0.8f, 12, 0.9f}, {1, 100, 1}, {1, 41, 1}, {0.7f, 3, 0.999f},
    };
    const int n = (int)(sizeof how / sizeof *how);
    for (int i = 0; i < n; i++)
        check_draws(41, ops_small() ? 96 : 20000, &how[i], i % 2 || i == 4);
    check_draws(1100, ops_small() ? 256 : 8192, &(struct sampling){1, 0, 1}, false);
    check_draws(1100, ops_small() ? 256 : 8192, &(struct sampling){0.6f, 50, 1}, true);
    check_draws(1100, ops_small() ? 256 : 8192, &(struct sampling){1.3f, 0, 0.8f}, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabularies), cmocka_unit_test(test_equal_logits),
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_banned_token_far_above),
        cmocka_unit_test(test_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
