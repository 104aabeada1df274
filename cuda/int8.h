/* llm.int8: rows of activations as codes with their outliers, and products of codes. Source: Dettmers et al. 2022 (arXiv:2208.07339);
 * outliers are taken per row, not per column of a call, so that a row's bits are its own (DESIGN section 6). */
#ifndef RLHF_CUDA_INT8_H
#define RLHF_CUDA_INT8_H

#include "cuda/gemm.h"

enum {
    OUTLIERS_LISTED = 128,   /* of a row; those behind them are found again in x */
    QUANTISE_IN_MOST = 32768 /* inputs of a row: 1024 threads hold it in registers */
};

/* N rows quantised. A row with more outliers than OUTLIERS_LISTED has all in n_outliers and the first in the list; who needs
 * the rest reads x behind the last listed feature, so that any row is right and usual ones are fast. */
struct codes {
    int8_t *code;        /* [N][linear_ld(in)] rint(127 x / absmax); 0 for outliers, zero rows and behind in */
    float *absmax;       /* [N] largest |x| below the threshold; not a number where one of x is not */
    int32_t *n_outliers; /* [N] how many |x| >= threshold */
    uint32_t *outlier;   /* [N][OUTLIERS_LISTED] in ascending order: feature << 16 | bits of x */
    const act_t *x;      /* [N][in] */
    int in;
    int32_t limit; /* bits of the threshold as a float; magnitudes of floats order as their bits. Above infinity's: no outliers */
};

/* How many of N rows one call of int8_forward takes for out outputs. */
int int8_rows(int out, int N);

/* Scratch: of codes, and of int8_forward for at most so many rows and outputs. */
size_t codes_bytes(int rows, int in);
size_t int8_sums_bytes(int rows, int out);

/* Places the arrays of N rows of in inputs at scratch (codes_bytes). Host only. */
struct codes codes_at(void *scratch, const act_t *x, int N, int in, float threshold);

/* Fills q from its x. quantize.cu. */
void quantise_rows(struct backend *be, const struct codes *q, int N);

/* y[n][o] = epilogue(sum_k code[n][k] W[o][k]) + outliers, y [N][out], N <= int8_rows(out, N). e has both absmax. sums:
 * int8_sums_bytes, behind a multiple of 256. gemm_int8.cu. */
void int8_forward(struct backend *be, act_t *y, const struct linear *l, const struct codes *q, int N, const struct epilogue *e,
                  void *sums);

#endif
