/* The language-model head: logits of a few rows at a time (HEAD_ROWS), never of all; log-probabilities, entropy, sampling, and
 * the way back. A row's statistics: maximum; sums of e^(z - max) and of e^(z - max) z in 16 lanes over the index mod 16, then
 * the tree; logarithm in double. */
#include "cpu/linear.h"
#include "fmath.h"

#include <omp.h>

enum { HEAD_ROWS = 64 };

struct scratch {
    float *x;      /* [HEAD_ROWS][H] gathered rows */
    float *dx;     /* [HEAD_ROWS][H] */
    float *logits; /* [HEAD_ROWS][V] */
    float *share;  /* [threads][V] of sampling */
};

size_t CPU(head_workspace)(int threads, int hidden, int vocab)
{
    return ((size_t)HEAD_ROWS * (2 * (size_t)hidden + (size_t)vocab) + (size_t)threads * (size_t)vocab) * sizeof(float);
}

static struct scratch carve(struct backend *be, int H, int V)
{
    struct scratch s;
    s.x = cpu_scratch(be, 0, CPU(head_workspace)(cpu_state(be)->threads, H, V));
    s.dx = s.x + (int64_t)HEAD_ROWS * H;
    s.logits = s.dx + (int64_t)HEAD_ROWS * H;
    s.share = s.logits + (int64_t)HEAD_ROWS * V;
    return s;
}

static void gather_rows(float *out, const float *x, int H, const int32_t *row, int n)
{
    for (int i = 0; i < n; i++)
        memcpy(out + (int64_t)i * H, x + (int64_t)row[i] * H, (size_t)H * sizeof *out);
}

static void scale_row(float *z, int V, float factor)
{
    for (int v = 0; v < V; v++)
        z[v] *= factor;
}

/* Logits of rows row[0 .. n-1], divided by the temperature. */
static void logits_of(struct backend *be, const struct scratch *s, const struct linear *head, const float *x, int H,
                      const int32_t *row, int n, float temperature)
{
    gather_rows(s->x, x, H, row, n);
    CPU(head_product)(be, s->logits, s->x, head, n);
    if (temperature != 1.0f)
        for (int i = 0; i < n; i++)
            scale_row(s->logits + (int64_t)i * head->out, head->out, 1.0f / temperature);
}

struct row_statistics {
    double lse, entropy;
};

static float row_max(const float *z, int V)
{
    v16 top = v16_all(-INFINITY);
    const int whole = V / LANES * LANES;
    for (int v = 0; v < whole; v += LANES)
        top = v16_greater(v16_load(z + v), top);
    float max = v16_max(top);
    for (int v = whole; v < V; v++)
        max = z[v] > max ? z[v] : max;
    return max;
}

static struct row_statistics row_statistics(const float *z, int V)
{
    const float max = row_max(z, V);
    const v16 shift = v16_all(max);
    v16 sum = v16_all(0.0f), weighted = v16_all(0.0f);
    const int whole = V / LANES * LANES;
    for (int v = 0; v < V; v += LANES) {
        float part[LANES];
        const float *at = z + v;
        if (v == whole) { /* beyond the end: far below, so that e^ is 0, and a weight of 0 */
            for (int i = 0; i < LANES; i++)
                part[i] = v + i < V ? z[v + i] : max - 200.0f;
            at = part;
        }
        v16 d = v16_sub(v16_load(at), shift), p = v16_exp(d);
        sum = v16_add(sum, p);
        weighted = v16_fma(p, d, weighted);
    }
    double total = v16_sum(sum), log_total = math_log(total);
    return (struct row_statistics){(double)max + log_total, log_total - (double)v16_sum(weighted) / total};
}

/* Logits to dz = g ([v = target] - p) - h p (log p + H), all over the temperature. */
static void row_gradient(float *z, int V, int32_t target, float g, float h, float lse, float entropy, float factor)
{
    const v16 shift = v16_all(lse), dg = v16_all(-g * factor), dh = v16_all(-h * factor), H = v16_all(entropy);
    for (int v = 0; v < V; v += LANES) {
        const int n = V - v < LANES ? V - v : LANES;
        v16 logp = v16_sub(v16_load_part(z + v, n), shift), p = v16_exp(logp);
        v16 d = v16_mul(p, v16_fma(dh, v16_add(logp, H), dg));
        v16_store_part(z + v, d, n);
    }
    z[target] += g * factor;
}

void CPU(head_logprob)(struct backend *be, float *logprob, float *entropy, float *lse, float *slope, const struct linear *head,
                       const float *x, int H, const struct head_rows *rows, float temperature)
{
    const int V = head->out;
    struct scratch s = carve(be, H, V);
    for (int first = 0; first < rows->n; first += HEAD_ROWS) {
        const int n = rows->n - first < HEAD_ROWS ? rows->n - first : HEAD_ROWS;
        logits_of(be, &s, head, x, H, rows->row + first, n, temperature);
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)n * V >= PARALLEL_MIN)
        for (int i = 0; i < n; i++) {
            float *z = s.logits + (int64_t)i * V;
            const int32_t target = rows->target[first + i];
            struct row_statistics r = row_statistics(z, V);
            logprob[first + i] = (float)((double)z[target] - r.lse);
            entropy[first + i] = (float)r.entropy;
            lse[first + i] = (float)r.lse;
            if (slope)
                row_gradient(z, V, target, 1.0f, 0.0f, (float)r.lse, 0.0f, 1.0f / temperature);
        }
        if (slope)
            CPU(product_transposed)(be, slope + (int64_t)first * H, false, s.logits, head, head->master, V, H, n);
    }
}

void CPU(head_slope_backward)(struct backend *be, float *dx, const float *dlogprob, const float *slope, int H,
                              const struct head_rows *rows)
{
    (void)be;
    for (int i = 0; i < rows->n; i++) {
        const v16 d = v16_all(dlogprob[i]);
        const float *from = slope + (int64_t)i * H;
        float *to = dx + (int64_t)rows->row[i] * H;
        for (int k = 0; k < H && dlogprob[i] != 0; k += LANES) {
            const int n = H - k < LANES ? H - k : LANES;
            v16_store_part(to + k, v16_fma(d, v16_load_part(from + k, n), v16_load_part(to + k, n)), n);
        }
    }
}

void CPU(head_logits)(struct backend *be, float *logits, const struct linear *head, const float *x, int H,
                      const struct head_rows *rows)
{
    struct scratch s = carve(be, H, head->out);
    for (int first = 0; first < rows->n; first += HEAD_ROWS) {
        const int n = rows->n - first < HEAD_ROWS ? rows->n - first : HEAD_ROWS;
        logits_of(be, &s, head, x, H, rows->row + first, n, 1.0f);
        memcpy(logits + (int64_t)first * head->out, s.logits, (size_t)n * (size_t)head->out * sizeof *logits);
    }
}

static int32_t argmax(const float *z, int V)
{
    const float max = row_max(z, V);
    int32_t v = 0;
    while (v < V - 1 && z[v] != max)
        v++;
    return v;
}

/* e[i] = e^(z[i] - max) of n <= CHUNK logits; their sum: 16 lanes and the tree, then what is left over. */
enum { CHUNK = 256 };
static float exponentials(float *e, const float *z, int n, float max)
{
    v16 lanes = v16_all(0.0f);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        const v16 x = v16_exp(v16_sub(v16_load(z + i), v16_all(max)));
        v16_store(e + i, x);
        lanes = v16_add(lanes, x);
    }
    float sum = v16_sum(lanes);
    for (; i < n; i++) {
        e[i] = fast_exp(z[i] - max);
        sum += e[i];
    }
    return sum;
}

/* An unsigned number that grows with the float; -0 and 0 are the same. */
static uint32_t order_key(float z)
{
    uint32_t bits;
    z += 0.0f;
    memcpy(&bits, &z, 4);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Keeps the fewest largest logits whose weights (NULL: 1 each) add up to the goal, at least one, of equal ones those of the
 * lower index; the others become -infinity. The smallest kept value is found by its bytes, the highest first: no sorting. */
static void keep_largest(float *z, int V, const float *weight, double goal)
{
    uint32_t key = 0;
    double above = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        double held[256] = {0};
        for (int v = 0; v < V; v++) {
            const uint32_t k = order_key(z[v]);
            if (shift == 24 || k >> (shift + 8) == key)
                held[k >> shift & 255] += weight ? (double)weight[v] : 1;
        }
        int byte = 255;
        while (byte > 0 && (held[byte] == 0 || above + held[byte] < goal))
            above += held[byte--];
        key = key << 8 | (uint32_t)byte;
    }
    bool any = above > 0;
    for (int v = 0; v < V; v++) {
        const uint32_t k = order_key(z[v]);
        if (k == key && (above < goal || !any)) {
            above += weight ? (double)weight[v] : 1;
            any = true;
        } else if (k <= key) {
            z[v] = -INFINITY;
        }
    }
}

/* Removes what the filters exclude: top-k, then top-p of what it leaves. */
static void filter(float *z, int V, const struct sampling *how, float *share)
{
    if (how->top_k > 0 && how->top_k < V)
        keep_largest(z, V, NULL, how->top_k);
    if (how->top_p >= 1)
        return;
    const float max = row_max(z, V);
    double total = 0;
    for (int v = 0; v < V; v += CHUNK)
        total += exponentials(share + v, z + v, V - v < CHUNK ? V - v : CHUNK, max);
    keep_largest(z, V, share, (double)how->top_p * total);
}

/* Inverse of the cumulative distribution, in index order: first the chunk, by the sums of chunks (scratch [V / CHUNK, up]),
 * then the token in it. */
static int32_t draw(const float *z, int V, uint32_t random, float *chunk)
{
    const float max = row_max(z, V);
    float e[CHUNK];
    double total = 0, sum = 0;
    for (int v = 0; v < V; v += CHUNK) {
        chunk[v / CHUNK] = exponentials(e, z + v, V - v < CHUNK ? V - v : CHUNK, max);
        total += chunk[v / CHUNK];
    }
    const double target = rng_uniform_double(random) * total;
    int first = 0;
    while (first + CHUNK < V && sum + chunk[first / CHUNK] <= target) {
        sum += chunk[first / CHUNK];
        first += CHUNK;
    }
    const int n = V - first < CHUNK ? V - first : CHUNK;
    int32_t last = first;
    exponentials(e, z + first, n, max);
    for (int i = 0; i < n && sum <= target; i++) {
        sum += e[i];
        if (e[i] > 0)
            last = first + i;
    }
    return last;
}

void CPU(head_sample)(struct backend *be, int32_t *token, float *logprob, const struct linear *head, const float *x, int H,
                      const struct head_rows *rows, const struct sampling *how, const uint32_t *random, const uint8_t *banned,
                      const int32_t *eos, int n_eos)
{
    const int V = head->out;
    struct scratch s = carve(be, H, V);
    const bool filters = how->temperature > 0 && (how->top_k > 0 || how->top_p < 1);
    for (int first = 0; first < rows->n; first += HEAD_ROWS) {
        const int n = rows->n - first < HEAD_ROWS ? rows->n - first : HEAD_ROWS;
        logits_of(be, &s, head, x, H, rows->row + first, n, how->temperature > 0 ? how->temperature : 1.0f);
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)n * V >= PARALLEL_MIN)
        for (int i = 0; i < n; i++) {
            float *z = s.logits + (int64_t)i * V;
            struct row_statistics r = row_statistics(z, V);
            for (int e = 0; banned && banned[first + i] && e < n_eos; e++)
                z[eos[e]] = -INFINITY;
            float *share = s.share + (int64_t)omp_get_thread_num() * V;
            if (filters)
                filter(z, V, how, share);
            int32_t t = how->temperature > 0 ? draw(z, V, random[first + i], share) : argmax(z, V);
            logprob[first + i] = (float)((double)z[t] - r.lse);
            token[first + i] = t;
        }
    }
}

/* End of a group that begins at row `first`: HEAD_ROWS rows; with dW wanted, of one sequence only, so that what is rounded
 * does not depend on the batch. */
static int group_end(const struct head_rows *rows, int first, const struct batch *b, bool one_sequence)
{
    int end = first;
    while (end < rows->n && end - first < HEAD_ROWS &&
           (!one_sequence || b->sequence[rows->row[end]] == b->sequence[rows->row[first]]))
        end++;
    return end;
}

void CPU(head_logprob_backward)(struct backend *be, float *dx, const float *dlogprob, const float *dentropy, const float *lse,
                                const float *entropy, const struct linear *head, const float *x, int H,
                                const struct head_rows *rows, float temperature, struct grads *g, const struct batch *b)
{
    const int V = head->out;
    struct scratch s = carve(be, H, V);
    for (int first = 0, end; first < rows->n; first = end) {
        int32_t row[HEAD_ROWS], place[HEAD_ROWS], n = 0;
        end = group_end(rows, first, b, head->master != NULL);
        for (int i = first; i < end; i++) {
            if (dlogprob[i] == 0 && (!dentropy || dentropy[i] == 0))
                continue;
            row[n] = rows->row[i];
            place[n++] = i;
        }
        if (!n)
            continue;
        logits_of(be, &s, head, x, H, row, n, temperature);
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)n * V >= PARALLEL_MIN)
        for (int i = 0; i < n; i++)
            row_gradient(s.logits + (int64_t)i * V, V, rows->target[place[i]], dlogprob[place[i]],
                         dentropy ? dentropy[place[i]] : 0.0f, lse[place[i]], entropy[place[i]], 1.0f / temperature);
        CPU(product_transposed)(be, s.dx, false, s.logits, head, head->master, V, H, n);
        for (int i = 0; i < n; i++)
            for (int k = 0; k < H; k++)
                dx[(int64_t)row[i] * H + k] += s.dx[(int64_t)i * H + k];
        if (head->master)
            CPU(contract)(be, s.logits, V, s.x, H, 1.0f, (const int32_t[]){0, n}, 1, g, head->offset_weight);
    }
}
