/* The one product order of the CPU backend: y[n][o] = sum over k of x[n][k] w[o][k], in blocks of K_BLOCK inputs in ascending
 * order, each summed from zero in ascending order with fma, block sums added in order. Vectors run over 16 outputs, so
 * nothing is reduced across lanes, and tiles of any size give the same bits.
 *
 *   panel of 16 outputs, floating types   [K][16]         one vector a k
 *   panel of 16 outputs, int8             [K / 4][16][4]  four k of an output lie together (VNNI's order)
 */
#ifndef RLHF_SRC_CPU_PRODUCT_H
#define RLHF_SRC_CPU_PRODUCT_H

#include "cpu/cpu.h"

#if defined __AVX512F__
enum { ROW_TILE = 8 };
#elif defined __FMA__
enum { ROW_TILE = 6 };
#else
enum { ROW_TILE = 2 };
#endif

/* Work below this many multiply-adds is not worth a parallel region. */
enum { PARALLEL_PRODUCT = 1 << 18 };

static inline int64_t panels_of(int out)
{
    return (out + LANES - 1) / LANES;
}

static inline int64_t padded4(int k)
{
    return (k + 3) / 4 * 4;
}

/* 16 elements of a 16-bit type */
static inline v16 halves_load(enum dtype t, const uint16_t *h)
{
#if defined __AVX512F__
    const __m256i bits = _mm256_loadu_si256((const __m256i *)h);
    return (v16){{t == DTYPE_BF16 ? (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16) : (vec)_mm512_cvtph_ps(bits)}};
#elif defined __F16C__ && defined __AVX2__
    v16 y;
    V16_PARTS(i)
    {
        const __m128i bits = _mm_loadu_si128((const __m128i *)(h + 8 * i));
        y.part[i] = t == DTYPE_BF16 ? (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16) : (vec)_mm256_cvtph_ps(bits);
    }
    return y;
#else
    float f[LANES];
    for (int i = 0; i < LANES; i++)
        f[i] = t == DTYPE_BF16 ? bf16_to_float(h[i]) : half_to_float(h[i]);
    return v16_load(f);
#endif
}

/* 16 floats rounded half to even to a 16-bit type, with half_from_float's and bf16_from_float's bits. */
static inline void halves_store(enum dtype t, uint16_t *h, const float *x)
{
    if (t == DTYPE_BF16) {
        for (int i = 0; i < LANES; i++) {
            uint32_t bits;
            memcpy(&bits, &x[i], 4);
            const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;
            h[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
        }
        return;
    }
#if defined __F16C__
    int nan = 0;
    for (int i = 0; i < LANES; i += 8) {
        const __m256 y = _mm256_loadu_ps(x + i);
        nan |= _mm256_movemask_ps(_mm256_cmp_ps(y, y, _CMP_UNORD_Q));
        _mm_storeu_si128((__m128i *)(h + i), _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
    }
    if (!nan)
        return;
#endif
    for (int i = 0; i < LANES; i++)
        h[i] = half_from_float(x[i]);
}

static inline v16 product_load(enum dtype t, const void *w, int64_t at)
{
    return t == DTYPE_F32 ? v16_load((const float *)w + at) : halves_load(t, (const uint16_t *)w + at);
}

/* Codes of the four k of group g, as four vectors of floats. */
static inline void product_load_codes(v16 out[4], const int8_t *w, int64_t g)
{
    V16_PARTS(i)
    {
        ivec x;
        memcpy(&x, w + g * 64 + i * VECTOR_BYTES, sizeof x);
        out[0].part[i] = __builtin_convertvector((x << 24) >> 24, vec);
        out[1].part[i] = __builtin_convertvector((x << 16) >> 24, vec);
        out[2].part[i] = __builtin_convertvector((x << 8) >> 24, vec);
        out[3].part[i] = __builtin_convertvector(x >> 24, vec);
    }
}

#if defined __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define TRANSPOSE_BY_SHUFFLES
#endif
#endif

/* to[j][i] = from[i][j] of 4 x 4 floats */
static inline void transpose4(float *to, int64_t ldt, const float *from, int64_t ldf)
{
#ifdef TRANSPOSE_BY_SHUFFLES
    typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
    const four a = *(const four *)from, b = *(const four *)(from + ldf);
    const four c = *(const four *)(from + 2 * ldf), d = *(const four *)(from + 3 * ldf);
    const four ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const four cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four *)to = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
    *(four *)(to + ldt) = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
    *(four *)(to + 2 * ldt) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
    *(four *)(to + 3 * ldt) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
#else
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            to[j * ldt + i] = from[i * ldf + j];
#endif
}

static inline void transpose16(float *to, int64_t ldt, const float *from, int64_t ldf)
{
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < LANES; j += 4)
            transpose4(to + j * ldt + i, ldt, from + i * ldf + j, ldf);
}

/* Inputs first .. first + n - 1 of a panel as floats [n][16]; first is a multiple of 4. Codes stay codes. */
static inline void expand_panel(float *out, const void *panel, enum dtype t, int first, int n)
{
    if (t != DTYPE_I8) {
        for (int k = 0; k < n; k++)
            v16_store(out + k * LANES, product_load(t, panel, (int64_t)(first + k) * LANES));
        return;
    }
    for (int k = 0; k < n; k += 4) {
        v16 code[4];
        product_load_codes(code, panel, (first + k) / 4);
        for (int j = 0; j < 4 && k + j < n; j++)
            v16_store(out + (k + j) * LANES, code[j]);
    }
}

/* total[r * C + c] += the sums of one tile: R rows of x against C panels. stride: elements from a k to the next (16 in a
 * panel, the row's length in a row-major matrix whose rows are summed over); next: from a panel to the next. */
#define PRODUCT_TILE(R, C, DTYPE)                                                                  \
    for (int first = 0; first < K; first += K_BLOCK) {                                             \
        const int end = first + K_BLOCK < K ? first + K_BLOCK : K;                                 \
        v16 acc[(R) * (C)];                                                                        \
        _Pragma("GCC unroll 16") for (int i = 0; i < (R) * (C); i++) acc[i] = v16_all(0.0f);       \
        if ((DTYPE) == DTYPE_I8) {                                                                 \
            for (int k = first; k < end; k += 4) {                                                 \
                _Pragma("GCC unroll 4") for (int c = 0; c < (C); c++)                              \
                {                                                                                  \
                    v16 code[4];                                                                   \
                    product_load_codes(code, (const int8_t *)w + c * next, k / 4);                 \
                    _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)                            \
                    {                                                                              \
                        if (k + j >= end)                                                          \
                            break;                                                                 \
                        _Pragma("GCC unroll 16") for (int r = 0; r < (R); r++) acc[r * (C) + c] =  \
                            v16_fma(v16_all(x[r * ldx + k + j]), code[j], acc[r * (C) + c]);       \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
        } else {                                                                                   \
            for (int k = first; k < end; k++) {                                                    \
                _Pragma("GCC unroll 4") for (int c = 0; c < (C); c++)                              \
                {                                                                                  \
                    const v16 v = product_load((DTYPE), w, c * next + k * stride);                 \
                    _Pragma("GCC unroll 16") for (int r = 0; r < (R); r++) acc[r * (C) + c] =      \
                        v16_fma(v16_all(x[r * ldx + k]), v, acc[r * (C) + c]);                     \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 16") for (int i = 0; i < (R) * (C); i++) total[i] =                    \
            v16_add(total[i], acc[i]);                                                             \
    }

#define PRODUCT_CASE(R, C)                                                                         \
    case R:                                                                                        \
        switch (t) {                                                                               \
        case DTYPE_F32:                                                                            \
            PRODUCT_TILE(R, C, DTYPE_F32) break;                                                   \
        case DTYPE_F16:                                                                            \
            PRODUCT_TILE(R, C, DTYPE_F16) break;                                                   \
        case DTYPE_BF16:                                                                           \
            PRODUCT_TILE(R, C, DTYPE_BF16) break;                                                  \
        default:                                                                                   \
            PRODUCT_TILE(R, C, DTYPE_I8) break;                                                    \
        }                                                                                          \
        break;

/* R rows of x against C panels: C = 1 with R <= ROW_TILE, R <= 2 with C = 2, or R = 1 with C = 4. */
static inline void product_tile(v16 *total, int R, int C, enum dtype t, const float *x, int64_t ldx, const void *w, int64_t stride,
                                int64_t next, int K)
{
    if (C == 4) {
        switch (R) {
            PRODUCT_CASE(1, 4)
        }
        return;
    }
    if (C == 2) {
        switch (R) {
            PRODUCT_CASE(1, 2)
            PRODUCT_CASE(2, 2)
        }
        return;
    }
    switch (R) {
        PRODUCT_CASE(1, 1)
        PRODUCT_CASE(2, 1)
#if defined __FMA__
        PRODUCT_CASE(3, 1)
        PRODUCT_CASE(4, 1)
        PRODUCT_CASE(5, 1)
        PRODUCT_CASE(6, 1)
#endif
#if defined __AVX512F__
        PRODUCT_CASE(7, 1)
        PRODUCT_CASE(8, 1)
#endif
    default:
        break;
    }
}

#endif
