/* The last error, as CUDA keeps it. */
#ifndef RLHF_TESTS_SHIM_ERROR_CODE_H
#define RLHF_TESTS_SHIM_ERROR_CODE_H

#include <cuda_runtime.h>

namespace shim {

/* Keeps the error for cudaGetLastError and returns it. */
cudaError_t failed(cudaError_t error);

/* An error that stays for good, as of a kernel that failed: every later call returns it. cudaSuccess: none. */
cudaError_t pending_error();
void fail_for_good(cudaError_t error);

} // namespace shim

#endif
