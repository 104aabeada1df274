/* Memory of the device, which is the host's, and page-locked memory: who owns what. */
#ifndef RLHF_TESTS_SHIM_DEVICE_MEMORY_H
#define RLHF_TESTS_SHIM_DEVICE_MEMORY_H

#include <stddef.h>

namespace shim {

/* Within (or just behind) memory that a kernel may touch. */
bool memory_on_device(const void *p);

/* Around work of the device. With RLHF_SHIM_GUARD its memory cannot be touched otherwise: host code that does ends by a signal. Nests. */
void memory_open();
void memory_close();

size_t memory_total(); /* RLHF_SHIM_MEMORY, bytes */

} // namespace shim

#endif
