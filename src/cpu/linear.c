/* Linear layers forward: base product by format, adapters, bias; packing. product.h has the order of sums. */
#include "cpu/linear.h"

static size_t panel_bytes(enum dtype t, int in)
{
    return t == DTYPE_I8 ? (size_t)padded4(in) * LANES : (size_t)in * LANES * dtype_bytes(t);
}

size_t CPU(linear_weight_bytes)(struct backend *be, const struct linear *l)
{
    (void)be;
    return (size_t)panels_of(l->out) * panel_bytes(l->dtype, l->in);
}

static size_t lora_a_bytes(const struct linear *l, int r)
{
    return (size_t)panels_of(r) * panel_bytes(DTYPE_F32, l->in);
}

size_t CPU(lora_packed_bytes)(struct backend *be, const struct linear *l, int r)
{
    (void)be;
    return lora_a_bytes(l, r) + (size_t)panels_of(l->out) * panel_bytes(DTYPE_F32, r);
}

static void put_float(void *weight, enum dtype t, int64_t at, float value)
{
    if (t == DTYPE_F32)
        ((float *)weight)[at] = value;
    else
        ((uint16_t *)weight)[at] = t == DTYPE_F16 ? half_from_float(value) : bf16_from_float(value);
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

/* The larger of absmax and a >= 0; not a number where one of them is not. */
static float grow_absmax(float absmax, float a)
{
    return a > absmax || a != a ? a : absmax;
}

/* 127 / absmax, or 0 for rows whose codes are all 0: zeros, too small for a finite factor, or not finite. The last come
 * out as NaN, since absmax multiplies the sum. */
static float code_factor(float absmax)
{
    return absmax >= 0x1p-120f && absmax < INFINITY ? 127.0f / absmax : 0;
}

static int8_t code_of(float x, float factor)
{
    return factor > 0 ? (int8_t)rintf(x * factor) : 0;
}

static void put_codes(struct linear *l, const float *row, int o)
{
    int8_t *codes = l->weight;
    float absmax = 0;
    for (int k = 0; k < l->in; k++)
        absmax = grow_absmax(absmax, fabsf(row[k]));
    l->absmax[o] = absmax;
    const float factor = code_factor(absmax);
    for (int k = 0; k < l->in; k++)
        codes[code_at(o, k, l->in)] = code_of(row[k], factor);
}

void CPU(linear_put_rows)(struct backend *be, struct linear *l, const float *rows, int first, int n)
{
    (void)be;
    for (int i = 0; i < n; i++) {
        const float *row = rows + (int64_t)i * l->in;
        if (l->dtype == DTYPE_I8) {
            put_codes(l, row, first + i);
            continue;
        }
        for (int k = 0; k < l->in; k++)
            put_float(l->weight, l->dtype, panel_at(first + i, k, l->in), row[k]);
    }
}

void CPU(linear_get_rows)(struct backend *be, const struct linear *l, float *rows, int first, int n)
{
    (void)be;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < l->in; k++) {
            int64_t at = panel_at(first + i, k, l->in);
            float *y = &rows[(int64_t)i * l->in + k];
            if (l->dtype == DTYPE_I8)
                *y = (float)((const int8_t *)l->weight)[code_at(first + i, k, l->in)] * (l->absmax[first + i] / 127.0f);
            else
                floats_from(y, (const char *)l->weight + at * (int64_t)dtype_bytes(l->dtype), l->dtype, 1);
        }
    }
}

static void pack_floats(float *panels, const float *w, int out, int in)
{
    for (int o = 0; o < out; o++)
        for (int k = 0; k < in; k++)
            panels[panel_at(o, k, in)] = w[(int64_t)o * in + k];
}

void CPU(linear_refresh)(struct backend *be, struct linear *l)
{
    if (l->master)
        CPU(linear_put_rows)(be, l, l->master, 0, l->out);
    for (int i = 0; i < LINEAR_ADAPTERS; i++) {
        struct lora *a = l->adapter[i];
        if (!a)
            continue;
        a->b_packed = (char *)a->a_packed + lora_a_bytes(l, a->r);
        pack_floats(a->a_packed, a->a, a->r, l->in);
        pack_floats(a->b_packed, a->b, l->out, a->r);
    }
}

/* What becomes of a product. */
struct epilogue {
    const float *row_scale; /* [out] factor of the product; NULL: 1 */
    const float *bias;      /* [out] or NULL */
    float add_scale;        /* != 0: y += add_scale * product, and nothing else */
};

static void finish(float *y, v16 total, const struct epilogue *e, int o, int n)
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
    const char *panel = (const char *)w + (size_t)p * panel_bytes(t, K);
    for (int row = 0; row < N;) {
        int R = C > 1 ? 1 : N - row < ROW_TILE ? N - row : ROW_TILE;
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

static void product(struct backend *be, float *y, int64_t ldy, const float *x, int64_t ldx, const void *w, enum dtype t, int out,
                  int K, int N, const struct epilogue *e)
{
    const int64_t panels = panels_of(out);
    const int group = N <= 2 && panels >= 4 ? 4 : 1;
    const int64_t groups = (panels + group - 1) / group;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * out * K >= PARALLEL_PRODUCT)
    for (int64_t g = 0; g < groups; g++) {
        int64_t p = g * group, left = panels - p;
        if (group == 4 && left >= 4) {
            product_panels(y, ldy, x, ldx, w, t, out, K, N, p, 4, e);
            continue;
        }
        for (int64_t i = 0; i < (left < group ? left : group); i++)
            product_panels(y, ldy, x, ldx, w, t, out, K, N, p + i, 1, e);
    }
}

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
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)N * K >= PARALLEL_PRODUCT)
    for (int n = 0; n < N; n++) {
        const float *row = x + (int64_t)n * K;
        int8_t *code = q->code + n * room;
        int32_t found = 0;
        float absmax = 0;
        for (int k = 0; k < K; k++) {
            float a = fabsf(row[k]);
            if (threshold > 0 && a >= threshold)
                q->outlier[(int64_t)n * K + found++] = k;
            else
                absmax = grow_absmax(absmax, a);
        }
        const float factor = code_factor(absmax);
        for (int k = 0; k < K; k++)
            code[k] = threshold > 0 && fabsf(row[k]) >= threshold ? 0 : code_of(row[k], factor);
        for (int64_t k = K; k < room; k++)
            code[k] = 0;
        q->absmax[n] = absmax;
        q->n_outlier[n] = found;
    }
}

/* Exact int32 sums of one row against one panel. Codes are within +-127, so that |x| times w fits where 16 bits add two. */
static void code_sums(int32_t sum[LANES], const int8_t *x, const int8_t *panel, int64_t groups)
{
#if defined __AVX512VNNI__
    __m512i acc = _mm512_setzero_si512();
    for (int64_t g = 0; g < groups; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        __m512i a = _mm512_set1_epi32(four), w = _mm512_loadu_si512(panel + 64 * g);
        w = _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(a), _mm512_setzero_si512(), w);
        acc = _mm512_dpbusd_epi32(acc, _mm512_abs_epi8(a), w);
    }
    _mm512_storeu_si512(sum, acc);
#elif defined __AVX2__
    __m256i acc0 = _mm256_setzero_si256(), acc1 = acc0;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t g = 0; g < groups; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        __m256i a = _mm256_set1_epi32(four), magnitude = _mm256_abs_epi8(a);
        __m256i w0 = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(panel + 64 * g)), a);
        __m256i w1 = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(panel + 64 * g + 32)), a);
        acc0 = _mm256_add_epi32(acc0, _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, w0), ones));
        acc1 = _mm256_add_epi32(acc1, _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, w1), ones));
    }
    _mm256_storeu_si256((__m256i *)sum, acc0);
    _mm256_storeu_si256((__m256i *)(sum + 8), acc1);
#else
    memset(sum, 0, LANES * sizeof *sum);
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < LANES; i++)
            for (int j = 0; j < 4; j++)
                sum[i] += (int32_t)x[4 * g + j] * panel[64 * g + 4 * i + j];
#endif
}

static void llm_int8(struct backend *be, float *y, const struct linear *l, const float *x, const struct codes *q, int N)
{
    const int K = l->in;
    const int64_t room = padded4(K), panels = panels_of(l->out);
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(cpu_state(be)->threads) if ((int64_t)N * l->out * K >= PARALLEL_PRODUCT)
    for (int64_t p = 0; p < panels; p++) {
        const int8_t *panel = (const int8_t *)l->weight + p * room * LANES;
        const int o = (int)p * LANES, lanes = l->out - o < LANES ? l->out - o : LANES;
        for (int n = 0; n < N; n++) {
            int32_t sum[LANES];
            float *out = y + (int64_t)n * l->out + o;
            code_sums(sum, q->code + n * room, panel, room / 4);
            for (int i = 0; i < lanes; i++)
                out[i] = (float)sum[i] * (q->absmax[n] * l->absmax[o + i] * (1.0f / 16129.0f));
            for (int j = 0; j < q->n_outlier[n]; j++) {
                int k = q->outlier[(int64_t)n * K + j];
                float a = x[(int64_t)n * K + k];
                for (int i = 0; i < lanes; i++)
                    out[i] = fmaf(a, (float)panel[k / 4 * 64 + 4 * i + k % 4] * (l->absmax[o + i] / 127.0f), out[i]);
            }
            for (int i = 0; l->bias && i < lanes; i++)
                out[i] += l->bias[o + i];
        }
    }
}

const float *CPU(dropped)(struct backend *be, float *out, const float *x, int K, int N, const struct lora *a,
                          const struct linear_pass *pass)
{
    if (!pass->dropout || a->dropout <= 0)
        return x;
    const struct batch *b = pass->batch;
    const float keep = 1.0f / (1.0f - a->dropout);
#pragma omp parallel for schedule(static) num_threads(cpu_state(be)->threads) if ((int64_t)N * K >= PARALLEL_PRODUCT)
    for (int n = 0; n < N; n++) {
        uint64_t sample = (uint64_t)b->sample[b->sequence[n]];
        for (int k = 0; k < K; k += 4) {
            uint32_t w[4];
            rng_draw(w, a->key, pass->step ^ (uint32_t)(sample >> 32) << 16, (uint32_t)sample, (uint32_t)b->position[n],
                     (uint32_t)k / 4);
            for (int j = 0; j < 4 && k + j < K; j++)
                out[(int64_t)n * K + k + j] = rng_uniform(w[j]) >= a->dropout ? x[(int64_t)n * K + k + j] * keep : 0.0f;
        }
    }
    return out;
}

/* The workspace of linear layers, carved for N rows of K inputs. */
static struct codes carve_codes(struct backend *be, int N, int K)
{
    struct codes q;
    q.absmax = cpu_scratch(be, 0, 0);
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
    float *u = cpu_scratch(be, 0, 0), *h = u + (int64_t)N * l->in;
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
