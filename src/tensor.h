/* Types of elements, and a tensor: a view of rows x cols elements. It owns nothing. */
#ifndef RLHF_SRC_TENSOR_H
#define RLHF_SRC_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8, DTYPE_I32, DTYPE_I64, DTYPE_COUNT };

size_t dtype_bytes(enum dtype t);
const char *dtype_name(enum dtype t); /* "F32", "F16", "BF16", "I8", "I32", "I64": safetensors' names */

struct tensor {
    void *data; /* host or device memory */
    enum dtype dtype;
    int64_t rows, cols, ld; /* element [r][c] is at data + (r * ld + c) * dtype_bytes */
};

float half_to_float(uint16_t bits);     /* exact; IEEE 754 binary16 */
uint16_t half_from_float(float value);  /* round to nearest even; overflow to infinity */
float bf16_to_float(uint16_t bits);     /* exact */
uint16_t bf16_from_float(float value);  /* round to nearest even; NaN stays NaN */

/* Converts n elements of a floating type to float. */
void floats_from(float *out, const void *in, enum dtype type, int64_t n);

#endif
