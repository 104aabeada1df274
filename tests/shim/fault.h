/* Faults of memory get a message that names the kernel. */
#ifndef RLHF_TESTS_SHIM_FAULT_H
#define RLHF_TESTS_SHIM_FAULT_H

namespace shim {

/* From now on (AddressSanitizer has messages of its own: nothing then). */
void fault_watch();

} // namespace shim

#endif
