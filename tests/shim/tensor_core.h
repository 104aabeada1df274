/* Under cuda/mma.cuh: the work of a warp's lanes that have met (grid.h), and copies. */
#ifndef RLHF_TESTS_SHIM_TENSOR_CORE_H
#define RLHF_TESTS_SHIM_TENSOR_CORE_H

#include "grid.h"

namespace shim {

/* A lane's fragments. */
template <class T> struct product {
    T *c;
    const uint32_t *a, *b;
};

struct matrix_load {
    uint32_t *r;
    const void *row;
};

perform multiply_bf16, multiply_s8, load_x4, load_x2, load_x4_trans, load_x2_trans;

void copy_start(void *shared, const void *global, bool valid);
void copy_commit();
void copy_wait(unsigned pending);

} // namespace shim

#endif
