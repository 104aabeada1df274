/* Memory of the device, which is the host's, and page-locked memory: who owns what. */
#ifndef RLHF_TESTS_SHIM_DEVICE_MEMORY_H
#define RLHF_TESTS_SHIM_DEVICE_MEMORY_H

#include <stddef.h>

namespace shim {

/* Within (or just behind) memory that a kernel may touch. */
bool memory_on_device(const void *p);

size_t memory_total(); /* RLHF_SHIM_MEMORY, bytes */

} // namespace shim

#endif
