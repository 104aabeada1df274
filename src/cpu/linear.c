/* Linear layers forward: base product by format, adapters, bias; packing. product.h has the order of sums. */
#include "cpu/linear.h"

#include <stdlib.h>

size_t CPU(panel_bytes)(enum dtype t, int in)
{
    return t == DTYPE_I8 ? (size_t)padded4(in) * LANES : (size_t)in * LANES * dtype_bytes(t);
}

size_t CPU(linear_weight_bytes)(struct backend *be, const struct linear *l)
{
    (void)be;
    return (size_t)panels_of(l->out) * CPU(panel_bytes)(l->dtype, l->in);
}

static size_t lora_a_bytes(const struct linear *l, int r)
{
    return (size_t)panels_of(r) * CPU(panel_bytes)(DTYPE_F32, l->in);
}

size_t CPU(lora_packed_bytes)(struct backend *be, const struct linear *l, int r)
{
    (void)be;
    return lora_a_bytes(l, r) + (size_t)panels_of(l->out) * CPU(panel_bytes)(DTYPE_F32, r);
}

/* n <= 16 floats to elements at .. of a floating weight */
static void put_part(void *weight, enum dtype t, int64_t at, const float *x, int n)
{
    uint16_t *h = (uint16_t *)weight + at;
    if (t == DTYPE_F32)
        memcpy((float *)weight + at, x, (size_t)n * sizeof *x);
    else if (n == LANES)
        halves_store(t, h, x);
    else
        for (int i = 0; i < n; i++)
            h[i] = t == DTYPE_F16 ? half_from_float(x[i]) : bf16_from_float(x[i]);
}

/* Element k of output o in floating panels. */
static int64_t panel_at(int o, int k, int in)
{
    return ((int64_t)(o / LANES) * in + k) * LANES + o % LANES;
}

static int64_t code_at(int o, int k, int in)
{
    return (int64_t)(o / LANES) * padded4(in) * LANES + (int64_t)(k / 4) * 64 + (o % LANES) * 4 + k % 4;
}

/* Magnitudes as integers: they order as the floats do, infinity and NaN last. */
enum { INFINITE = 0x7f800000 };

static int32_t magnitude_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x7fffffff;
}

/* The largest |x|, not a number where one of them is not. Those of at least the limit are passed over; limit INFINITE + 1: none. */
static float row_absmax(const float *x, int n, int32_t limit)
{
    ivec most = {0};
    int32_t lanes[VECTOR_LANES], max = 0;
    int i = 0;
    for (; i + VECTOR_LANES <= n; i += VECTOR_LANES) {
        const ivec bits = (ivec)*(const vec_anywhere *)(x + i) & 0x7fffffff;
        const ivec kept = bits & ((bits < limit) | (bits > INFINITE));
        most = (kept & (kept > most)) | (most & ~(kept > most));
    }
    memcpy(lanes, &most, sizeof lanes);
    for (int j = 0; j < VECTOR_LANES; j++)
        max = lanes[j] > max ? lanes[j] : max;
    for (; i < n; i++) {
        const int32_t bits = magnitude_bits(x[i]);
        if ((bits < limit || bits > INFINITE) && bits > max)
            max = bits;
    }
    float absmax;
    memcpy(&absmax, &max, 4);
    return absmax;
}

/* 127 / absmax, or 0 for rows whose codes are all 0: zeros, too small for a finite factor, or not finite. The last come
 * out as NaN, since absmax multiplies the sum. */
static float code_factor(float absmax)
{
    return absmax >= 0x1p-120f && absmax < INFINITY ? 127.0f / absmax : 0;
}

/* code[i] = x[i] * factor rounded half to even; 0 where |x| is at least the limit. Adding 1.5 * 2^23 leaves the integer in the
 * low bits. */
static void code_row(int8_t *code, const float *x, int n, float factor, int32_t limit)
{
    if (factor == 0) {
        memset(code, 0, (size_t)n);
        return;
    }
    for (int i = 0; i < n; i += LANES) {
        const int left = n - i < LANES ? n - i : LANES;
        const v16 a = v16_load_part(x + i, left);
        const v16 y = v16_add(v16_mul(a, v16_all(factor)), v16_all(12582912.0f));
        int32_t bits[LANES];
        V16_PARTS(j)
        {
            const ivec in = ((ivec)a.part[j] & 0x7fffffff) < limit, kept = (ivec)y.part[j] & in;
            memcpy(bits + j * VECTOR_LANES, &kept, sizeof kept);
        }
        if (left == LANES)
            for (int j = 0; j < LANES; j++)
                code[i + j] = (int8_t)bits[j];
        else
            for (int j = 0; j < left; j++)
                code[i + j] = (int8_t)bits[j];
    }
}

/* Codes of outputs o .. o + n - 1, all in one panel. */
static void put_codes(struct linear *l, const float *rows, int o, int n)
{
    int8_t *panel = (int8_t *)l->weight + (int64_t)(o / LANES) * padded4(l->in) * LANES + o % LANES * 4;
    for (int i = 0; i < n; i++) {
        const float *row = rows + (int64_t)i * l->in;
        const float absmax = row_absmax(row, l->in, INFINITE + 1), factor = code_factor(absmax);
        l->absmax[o + i] = absmax;
        for (int first = 0; first < l->in; first += K_BLOCK) {
            int8_t code[K_BLOCK + 4] = {0};
            const int length = l->in - first < K_BLOCK ? l->in - first : K_BLOCK;
            code_row(code, row + first, length, factor, INFINITE + 1);
            for (int k = 0; k < length; k += 4)
                memcpy(panel + (int64_t)(first + k) * LANES + 4 * i, code + k, 4);
        }
    }
}

/* Floats of outputs o .. o + n - 1, all in one panel: blocks of 16 inputs are turned over. */
static void put_floats(struct linear *l, const float *rows, int o, int n)
{
    for (int k = 0; k < l->in; k += LANES) {
        const int length = l->in - k < LANES ? l->in - k : LANES;
        float block[LANES * LANES]; /* [k][o] */
        if (n == LANES && length == LANES)
            transpose16(block, LANES, rows + k, l->in);
        else
            for (int i = 0; i < n; i++)
                for (int j = 0; j < length; j++)
                    block[j * LANES + i] = rows[(int64_t)i * l->in + k + j];
        for (int j = 0; j < length; j++)
            put_part(l->weight, l->dtype, panel_at(o, k + j, l->in), block + j * LANES, n);
    }
}

/* A thread takes whole panels: rows of one lie in the same cache lines. */
static void put_rows(struct backend *be, struct linear *l, const float *rows, int first, int n)
{
    const int end = first + n;
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)n * l->in >= PARALLEL_MIN)
    for (int p = first / LANES; p < (end + LANES - 1) / LANES; p++) {
        const int low = p * LANES > first ? p * LANES : first, high = (p + 1) * LANES < end ? (p + 1) * LANES : end;
        const float *from = rows + (int64_t)(low - first) * l->in;
        if (l->dtype == DTYPE_I8)
            put_codes(l, from, low, high - low);
        else
            put_floats(l, from, low, high - low);
    }
}

void CPU(linear_put_rows)(struct backend *be, struct linear *l, const void *rows, enum dtype dtype, int first, int n)
{
    const int64_t all = (int64_t)n * l->in;
    if (dtype == DTYPE_F32) {
        put_rows(be, l, rows, first, n);
        return;
    }
    float *floats = malloc((size_t)all * sizeof *floats + 1);
    CHECK(floats, "out of memory");
    floats_from(floats, rows, dtype, all);
    put_rows(be, l, floats, first, n);
    free(floats);
}

void CPU(weight_row)(float *y, const struct linear *l, int o)
{
    const int in = l->in;
    if (l->dtype == DTYPE_F32) {
        const float *w = (const float *)l->weight + panel_at(o, 0, in);
        for (int k = 0; k < in; k++)
            y[k] = w[(int64_t)k * LANES];
        return;
    }
    if (l->dtype == DTYPE_I8) {
        for (int k = 0; k < in; k++)
            y[k] = (float)((const int8_t *)l->weight)[code_at(o, k, in)] * (l->absmax[o] / 127.0f);
        return;
    }
    const uint16_t *w = (const uint16_t *)l->weight + panel_at(o, 0, in);
    for (int k = 0; k < in; k += LANES) {
        const int n = in - k < LANES ? in - k : LANES;
        uint16_t part[LANES] = {0};
        for (int i = 0; i < n; i++)
            part[i] = w[(int64_t)(k + i) * LANES];
        v16_store_part(y + k, halves_load(l->dtype, part), n);
    }
}

void CPU(linear_get_rows)(struct backend *be, const struct linear *l, float *rows, int first, int n)
{
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)n * l->in >= PARALLEL_MIN)
    for (int i = 0; i < n; i++)
        CPU(weight_row)(rows + (int64_t)i * l->in, l, first + i);
}

static void pack_floats(struct backend *be, void *panels, const float *w, int out, int in)
{
    struct linear l = {.out = out, .in = in, .dtype = DTYPE_F32, .weight = panels};
    put_rows(be, &l, w, 0, out);
}

void CPU(linear_refresh)(struct backend *be, struct linear *l)
{
    if (l->master)
        put_rows(be, l, l->master, 0, l->out);
    for (int i = 0; i < LINEAR_ADAPTERS; i++) {
        struct lora *a = l->adapter[i];
        if (!a || a->packed)
            continue;
        a->b_packed = (char *)a->a_packed + lora_a_bytes(l, a->r);
        pack_floats(be, a->a_packed, a->a, a->r, l->in);
        pack_floats(be, a->b_packed, a->b, l->out, a->r);
    }
}

/* What becomes of a product. */
struct epilogue {
    const float *row_scale; /* [out] factor of the product; NULL: 1 */
    const float *bias;      /* [out] or NULL */
    float add_scale;        /* != 0: y += add_scale * product, and nothing else */
};

static inline void finish(float *y, v16 total, const struct epilogue *e, int o, int n)
{
    if (e->add_scale != 0) {
        v16_store_part(y, v16_fma(v16_all(e->add_scale), total, v16_load_part(y, n)), n);
        return;
    }
    if (e->row_scale) {
        v16 s = v16_mul(v16_load_part(e->row_scale + o, n), v16_all(1.0f / 127.0f));
        total = v16_mul(total, s);
    }
    if (e->bias)
        total = v16_add(total, v16_load_part(e->bias + o, n));
    v16_store_part(y, total, n);
}

/* Panels [p, p + C) for all rows. */
static void product_panels(float *y, int64_t ldy, const float *x, int64_t ldx, const void *w, enum dtype t, int out, int K, int N,
                           int64_t p, int C, const struct epilogue *e)
{
    const int64_t next = t == DTYPE_I8 ? padded4(K) * LANES : (int64_t)K * LANES;
    const char *panel = (const char *)w + (size_t)p * CPU(panel_bytes)(t, K);
    for (int row = 0; row < N;) {
        int most = C > 1 ? 4 / C : ROW_TILE, R = N - row < most ? N - row : most;
        v16 total[16];
        for (int i = 0; i < R * C; i++)
            total[i] = v16_all(0.0f);
        product_tile(total, R, C, t, x + row * ldx, ldx, panel, LANES, next, K);
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                int o = (int)(p + c) * LANES, n = out - o < LANES ? out - o : LANES;
                finish(y + (row + r) * ldy + o, total[r * C + c], e, o, n);
            }
        }
        row += R;
    }
}

/* The same of one panel of 8 or 16 bits for many rows: a block of it is expanded to float once for all of them, and the
 * rows' sums wait in y between the blocks. */
static void product_expanded(float *y, int64_t ldy, const float *x, int64_t ldx, const void *w, enum dtype t, int out, int K,
                             int N, int64_t p, const struct epilogue *e)
{
    float block[K_BLOCK * LANES];
    const char *panel = (const char *)w + (size_t)p * CPU(panel_bytes)(t, K);
    const int o = (int)p * LANES, n = out - o < LANES ? out - o : LANES;
    for (int first = 0; first < K; first += K_BLOCK) {
        const int length = K - first < K_BLOCK ? K - first : K_BLOCK;
        expand_panel(block, panel, t, first, length);
        for (int row = 0; row < N;) {
            const int R = N - row < ROW_TILE ? N - row : ROW_TILE;
            v16 total[ROW_TILE];
            for (int r = 0; r < R; r++)
                total[r] = first ? v16_load_part(y + (row + r) * ldy + o, n) : v16_all(0.0f);
            product_tile(total, R, 1, DTYPE_F32, x + row * ldx + first, ldx, block, LANES, 0, length);
            for (int r = 0; r < R; r++) {
                if (first + length < K)
                    v16_store_part(y + (row + r) * ldy + o, total[r], n);
                else
                    finish(y + (row + r) * ldy + o, total[r], e, o, n);
            }
            row += R;
        }
    }
}

/* Panels side by side for few rows: enough sums at once to hide the latency of an fma. */
static int panels_at_once(int N, int64_t panels)
{
    const int want = N == 1 ? 4 : N == 2 ? 2 : 1;
    return panels >= want ? want : 1;
}

static void product(struct backend *be, float *y, int64_t ldy, const float *x, int64_t ldx, const void *w, enum dtype t, int out,
                  int K, int N, const struct epilogue *e)
{
    const int64_t panels = panels_of(out);
    const int group = panels_at_once(N, panels);
    const int64_t groups = (panels + group - 1) / group;
    const bool expand = t != DTYPE_F32 && N > ROW_TILE;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * out * K >= PARALLEL_PRODUCT)
    for (int64_t g = 0; g < groups; g++) {
        int64_t p = g * group, left = panels - p;
        if (expand) {
            product_expanded(y, ldy, x, ldx, w, t, out, K, N, p, e);
            continue;
        }
        if (left >= group) {
            product_panels(y, ldy, x, ldx, w, t, out, K, N, p, group, e);
            continue;
        }
        for (int64_t i = 0; i < left; i++)
            product_panels(y, ldy, x, ldx, w, t, out, K, N, p + i, 1, e);
    }
}

#if defined __AVX512VNNI__
enum { CODE_ROWS = 8 };
#else
enum { CODE_ROWS = 4 };
#endif

/* Rows quantised for llm.int8. */
struct codes {
    int8_t *code;      /* [N][padded4(K)] */
    float *absmax;     /* [N] */
    int32_t *outlier;  /* [N][K] features, ascending */
    int32_t *n_outlier; /* [N] */
};

static void quantise_rows(struct backend *be, const struct codes *q, const float *x, int K, int N, float threshold)
{
    const int64_t room = padded4(K);
    const int32_t limit = threshold > 0 ? magnitude_bits(threshold) : INFINITE + 1;
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)N * K >= PARALLEL_MIN)
    for (int n = 0; n < N; n++) {
        const float *row = x + (int64_t)n * K;
        int8_t *code = q->code + n * room;
        int32_t found = 0;
        for (int k = 0; threshold > 0 && k < K; k++) {
            const int32_t bits = magnitude_bits(row[k]);
            if (bits >= limit && bits <= INFINITE)
                q->outlier[(int64_t)n * K + found++] = k;
        }
        const float absmax = row_absmax(row, K, limit);
        code_row(code, row, K, code_factor(absmax), limit);
        for (int64_t k = K; k < room; k++)
            code[k] = 0;
        q->absmax[n] = absmax;
        q->n_outlier[n] = found;
    }
}

/* Exact int32 sums of R rows of codes against one panel, R <= CODE_ROWS. Two ways that never saturate: with VNNI x + 128 is
 * unsigned, and 128 sum(w), shared by the rows, is taken off; with AVX2 |x| times w with the sign of x, since codes within
 * +-127 let 16 bits hold two products. */
static inline __attribute__((always_inline)) void code_tile(int32_t (*sum)[LANES], const int8_t *x, int64_t room,
                                                            const int8_t *panel, const int R)
{
#if defined __AVX512VNNI__
    __m512i acc[CODE_ROWS], shift = _mm512_setzero_si512();
    const __m512i bias = _mm512_set1_epi8((char)0x80);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        acc[r] = _mm512_setzero_si512();
    for (int64_t k = 0; k < room; k += 4) {
        const __m512i w = _mm512_loadu_si512(panel + LANES * k);
        shift = _mm512_dpbusd_epi32(shift, bias, w);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + r * room + k, 4);
            acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_xor_si512(_mm512_set1_epi32(four), bias), w);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        _mm512_storeu_si512(sum[r], _mm512_sub_epi32(acc[r], shift));
#elif defined __AVX2__
    __m256i acc[CODE_ROWS][2];
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < room; k += 4) {
        const __m256i *w = (const __m256i *)(panel + LANES * k);
        const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + r * room + k, 4);
            const __m256i a = _mm256_set1_epi32(four), size = _mm256_abs_epi8(a);
            const __m256i p0 = _mm256_maddubs_epi16(size, _mm256_sign_epi8(w0, a));
            const __m256i p1 = _mm256_maddubs_epi16(size, _mm256_sign_epi8(w1, a));
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(p0, ones));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(p1, ones));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        _mm256_storeu_si256((__m256i *)sum[r], acc[r][0]);
        _mm256_storeu_si256((__m256i *)(sum[r] + 8), acc[r][1]);
    }
#else
    memset(sum, 0, (size_t)R * sizeof *sum);
    for (int r = 0; r < R; r++)
        for (int64_t k = 0; k < room; k += 4)
            for (int i = 0; i < LANES; i++)
                for (int j = 0; j < 4; j++)
                    sum[r][i] += (int32_t)x[r * room + k + j] * panel[LANES * k + 4 * i + j];
#endif
}

static void code_sums(int32_t (*sum)[LANES], const int8_t *x, int64_t room, const int8_t *panel, int R)
{
    if (R == CODE_ROWS)
        code_tile(sum, x, room, panel, CODE_ROWS);
    else if (R == 2)
        code_tile(sum, x, room, panel, 2);
    else
        for (int r = 0; r < R; r++)
            code_tile(sum + r, x + r * room, room, panel, 1);
}

/* Exact sums to outputs o .. o + n - 1 of row `row`: factor, outliers in ascending order, bias. */
static void finish_codes(float *y, const int32_t *sum, const struct linear *l, const float *x, const struct codes *q, int row,
                         int o, int n)
{
    const int8_t *panel = (const int8_t *)l->weight + (int64_t)o * padded4(l->in);
    const v16 absmax = v16_load_part(l->absmax + o, n), scale = v16_mul(absmax, v16_all(1.0f / 127.0f));
    float product[LANES], code[LANES];
    for (int i = 0; i < LANES; i++)
        product[i] = (float)sum[i];
    const v16 factor = v16_mul(v16_mul(v16_all(q->absmax[row]), absmax), v16_all(1.0f / 16129.0f));
    v16 total = v16_mul(v16_load(product), factor);
    for (int j = 0; j < q->n_outlier[row]; j++) {
        const int k = q->outlier[(int64_t)row * l->in + j];
        for (int i = 0; i < LANES; i++)
            code[i] = panel[k / 4 * 64 + 4 * i + k % 4];
        total = v16_fma(v16_all(x[(int64_t)row * l->in + k]), v16_mul(v16_load(code), scale), total);
    }
    if (l->bias)
        total = v16_add(total, v16_load_part(l->bias + o, n));
    v16_store_part(y + (int64_t)row * l->out + o, total, n);
}

static void llm_int8(struct backend *be, float *y, const struct linear *l, const float *x, const struct codes *q, int N)
{
    const int64_t room = padded4(l->in), panels = panels_of(l->out);
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * l->out * l->in >= PARALLEL_PRODUCT)
    for (int64_t p = 0; p < panels; p++) {
        const int8_t *panel = (const int8_t *)l->weight + p * room * LANES;
        const int o = (int)p * LANES, lanes = l->out - o < LANES ? l->out - o : LANES;
        for (int n = 0; n < N; n += CODE_ROWS) {
            const int R = N - n < CODE_ROWS ? N - n : CODE_ROWS;
            int32_t sum[CODE_ROWS][LANES];
            code_sums(sum, q->code + n * room, room, panel, R);
            for (int r = 0; r < R; r++)
                finish_codes(y, sum[r], l, x, q, n + r, o, lanes);
        }
    }
}

/* The workspace of linear layers, carved for N rows of K inputs. */
static struct codes carve_codes(struct backend *be, int N, int K)
{
    struct codes q;
    q.absmax = cpu_scratch(be, 0, (size_t)N * (8 + (size_t)K * 4 + (size_t)padded4(K)));
    q.n_outlier = (int32_t *)(q.absmax + N);
    q.outlier = q.n_outlier + N;
    q.code = (int8_t *)(q.outlier + (int64_t)N * K);
    return q;
}

size_t CPU(linear_workspace)(int max_tokens, int max_in, int max_out)
{
    size_t widest = (size_t)(max_in > max_out ? max_in : max_out), N = (size_t)max_tokens;
    /* codes: absmax, counts, outliers, codes; adapters: dropped x, then three of r <= widest */
    size_t codes = N * (8 + (size_t)max_in * 5 + 64), adapters = N * widest * 4 * 4;
    return (codes > adapters ? codes : adapters) + 256;
}

static void add_adapter(struct backend *be, float *y, const struct linear *l, const struct lora *a, const float *x, int N,
                        const struct linear_pass *pass)
{
    float *u = cpu_scratch(be, 0, (size_t)N * (size_t)(l->in + a->r) * sizeof *u), *h = u + (int64_t)N * l->in;
    CHECK(a->r <= l->in, "adapter of rank %d on %d inputs", a->r, l->in);
    const float *dropped = CPU(dropped)(be, u, x, l->in, N, a, pass);
    product(be, h, a->r, dropped, l->in, a->a_packed, DTYPE_F32, a->r, l->in, N, &(struct epilogue){0});
    product(be, y, l->out, h, a->r, a->b_packed, DTYPE_F32, l->out, a->r, N, &(struct epilogue){.add_scale = a->scale});
}

void CPU(linear_forward)(struct backend *be, float *const *y, struct linear *const *l, int n_linears, const float *x, int N,
                         const struct linear_pass *pass)
{
    struct codes q = {0};
    if (l[0]->matmul == MATMUL_LLM_INT8) {
        q = carve_codes(be, N, l[0]->in);
        quantise_rows(be, &q, x, l[0]->in, N, l[0]->outlier_threshold);
    }
    for (int i = 0; i < n_linears; i++) {
        if (l[i]->matmul == MATMUL_LLM_INT8) {
            llm_int8(be, y[i], l[i], x, &q, N);
            continue;
        }
        struct epilogue e = {.row_scale = l[i]->dtype == DTYPE_I8 ? l[i]->absmax : NULL, .bias = l[i]->bias};
        product(be, y[i], l[i]->out, x, l[i]->in, l[i]->weight, l[i]->dtype, l[i]->out, l[i]->in, N, &e);
    }
    for (int i = 0; pass->adapter >= 0 && i < n_linears; i++)
        if (l[i]->adapter[pass->adapter])
            add_adapter(be, y[i], l[i], l[i]->adapter[pass->adapter], x, N, pass);
}

void CPU(head_product)(struct backend *be, float *y, const float *x, const struct linear *l, int N)
{
    product(be, y, l->out, x, l->in, l->weight, l->dtype, l->out, l->in, N, &(struct epilogue){0});
}
