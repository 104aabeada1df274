/* Running an operation on a backend and comparing: with the float64 reference by a bound, runs with each other by their
 * bits. Include after cmocka.
 *
 * RLHF_TEST_DEVICE says which backend: "cpu" (also when unset), every build of it; "cuda", the module, on a card or on the
 * shim. RLHF_TEST_SMALL, when set, leaves the large shapes out: the shim runs each lane of a warp by itself. There is one
 * list of cases: what a test hands to an operation lies in memory of the backend, and its activations have the backend's
 * type. Test inputs are exact in that type, so the reference sees the very numbers that the operation does.
 */
#ifndef RLHF_TESTS_SUPPORT_OPS_CHECK_H
#define RLHF_TESTS_SUPPORT_OPS_CHECK_H

#include "backend.h"

bool ops_on_cuda(void);
bool ops_small(void);          /* only shapes that take the shim little time */
bool ops_trains_weights(void); /* of the backend: masters, trained norms and embeddings */
int ops_width(int n);          /* n, or the next width that the backend's models may have */

/* What a test runs: reads the context, calls operations of be, writes bytes to out, host memory, zeroed before. */
typedef void ops_run(struct backend *be, void *context, void *out);

/* Runs on each instruction set that is here with 1, 2 and 4 threads; on CUDA three times, on the shim with blocks and warps
 * in order, then shuffled in two ways. Fails unless all leave the same bits. The result is the caller's to free. */
void *ops_same_bits(ops_run *run, void *context, size_t bytes);

/* One run, on the CPU on the best instruction set with a number of threads. The result is the caller's to free. */
void *ops_once(ops_run *run, void *context, size_t bytes, int threads);

/* --- inside a run: memory of the backend, each piece by itself, freed when the run ends --- */
void *ops_in(struct backend *be, const void *host, size_t bytes); /* a copy; NULL stays NULL */
act_t *ops_in_acts(struct backend *be, const float *x,
                   int64_t n);                    /* a copy as activations; NULL stays NULL */
void *ops_room(struct backend *be, size_t bytes); /* of bytes 0xff: what is not written is NaN */
void *ops_zeros(struct backend *be, size_t bytes);
act_t *ops_room_acts(struct backend *be, int64_t n); /* the same, for n activations */
act_t *ops_part_acts(struct backend *be, const act_t *x, int64_t first); /* x + first */
void ops_set_acts(struct backend *be, act_t *device, const float *x, int64_t n);
void ops_out(struct backend *be, void *host, const void *device, size_t bytes);
void ops_out_acts(struct backend *be, float *host, const act_t *device, int64_t n);
struct batch ops_in_batch(struct backend *be, const struct batch *b);
struct grads ops_grads(struct backend *be, int64_t n, float limit); /* of zeros */
void ops_out_grads(struct backend *be, int64_t *host,
                   const struct grads *g); /* sum [n], then overflow */

/* --- numbers --- */

/* n numbers, about normal with deviation scale, a function of the seed, exact as activations; the caller's to free. */
float *ops_random(int64_t n, unsigned seed, float scale);
float ops_exact(float x); /* the nearest number that is exact as an activation */
double *ops_double(const float *x, int64_t n); /* a copy, the caller's to free */

/* |got - want| <= bound * (|want| + root mean square of want) for all n. */
void ops_close(const char *what, const float *got, const double *want, int64_t n, double bound);
/* The same for activations, and for what was computed from rounded ones: where they are bf16 the bound is at least 1e-2. */
void ops_close_acts(const char *what, const float *got, const double *want, int64_t n,
                    double bound);
double ops_bound_acts(double bound); /* that bound */
/* For sums of products of rounded numbers, which cancel more or less: on CUDA the error's root mean square is within 1e-2
 * of want's, and five times that is the bound of an element. On the CPU as ops_close. */
void ops_close_sums(const char *what, const float *got, const double *want, int64_t n,
                    double bound);

/* |got - want| <= bound * the largest |want| for all n. */
void ops_close_largest(const char *what, const double *got, const double *want, int64_t n,
                       double bound);

void *ops_allocate(int64_t n, size_t size); /* zeroed, at least one byte; the caller's to free */

/* A batch of sequences with these lengths, positions from 0, slots and samples 0, 1, ..; ops_batch_free frees it. */
struct batch ops_batch(const int *length, int n_seqs);
void ops_batch_free(struct batch *b);

#endif
