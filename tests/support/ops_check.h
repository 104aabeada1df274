/* Running an operation on every build of the CPU backend and comparing: with the float64 reference by a bound, with each
 * other by their bits. Include after cmocka. */
#ifndef RLHF_TESTS_SUPPORT_OPS_CHECK_H
#define RLHF_TESTS_SUPPORT_OPS_CHECK_H

#include "backend.h"

/* What a test runs: reads the context, calls operations of be, writes bytes to out (zeroed before). */
typedef void ops_run(struct backend *be, void *context, void *out);

/* Runs on each instruction set that is here with 1, 2 and 4 threads, fails unless all leave the same bits. The result is
 * the caller's to free. */
void *ops_same_bits(ops_run *run, void *context, size_t bytes);

/* One run on the best instruction set with a number of threads. The result is the caller's to free. */
void *ops_once(ops_run *run, void *context, size_t bytes, int threads);

/* n numbers, about normal with deviation scale, a function of the seed; the caller's to free. */
float *ops_random(int64_t n, unsigned seed, float scale);
double *ops_double(const float *x, int64_t n); /* a copy, the caller's to free */

/* |got - want| <= bound * (|want| + root mean square of want) for all n. */
void ops_close(const char *what, const float *got, const double *want, int64_t n, double bound);

/* A batch of sequences with these lengths, positions from 0, slots and samples 0, 1, ..; ops_batch_free frees it. */
struct batch ops_batch(const int *length, int n_seqs);
void ops_batch_free(struct batch *b);

#endif
