/* Element types and conversions between them. */
#include "tensor.h"

#include "error.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} types[DTYPE_COUNT] = {[DTYPE_F32] = {"F32", 4}, [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2},
                        [DTYPE_I8] = {"I8", 1},   [DTYPE_I32] = {"I32", 4}, [DTYPE_I64] = {"I64", 8}};

size_t dtype_bytes(enum dtype t)
{
    return types[t].bytes;
}

const char *dtype_name(enum dtype t)
{
    return types[t].name;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        return from_bits(sign | 0x7F800000u | fraction << 13);
    if (exponent)
        return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

uint16_t half_from_float(float value)
{
    uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00);
    if (magnitude >= 0x477FF000u) /* rounds to 2^16 or above */
        return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x38800000u) { /* below 2^-14: a multiple of 2^-24; adding 0.5 aligns and rounds it */
        uint32_t aligned = to_bits(from_bits(magnitude) + 0.5f);
        return (uint16_t)(sign | (aligned - 0x3F000000u));
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

float bf16_to_float(uint16_t bits)
{
    return from_bits((uint32_t)bits << 16);
}

uint16_t bf16_from_float(float value)
{
    uint32_t bits = to_bits(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void floats_from(float *out, const void *in, enum dtype type, int64_t n)
{
    const uint16_t *h = in;
    switch (type) {
    case DTYPE_F32:
        memcpy(out, in, (size_t)n * 4);
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            out[i] = half_to_float(h[i]);
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            out[i] = bf16_to_float(h[i]);
        break;
    default:
        CHECK(0, "%s is not a floating type", dtype_name(type));
    }
}
