/* Work on streams: run at once, or later (RLHF_SHIM_LAZY), or recorded into a graph. */
#ifndef RLHF_TESTS_SHIM_STREAM_H
#define RLHF_TESTS_SHIM_STREAM_H

#include <cuda_runtime.h>

#include <functional>

namespace shim {

typedef std::function<void()> work;

/* All that it refers to by pointer must live until it has run; what it captures by value may be run again by a graph. */
void enqueue(cudaStream_t stream, work w);

bool stream_captures(cudaStream_t stream);

/* For calls that may not be made while any stream records (allocations, waiting): spoils the recording and returns the error;
 * cudaSuccess where none does. */
cudaError_t capture_forbids();

/* What waits in the stream from here on waits until done() says so. done is asked by whoever asks for the stream; one that is empty
 * lets go of an earlier one. For libraries whose work goes on elsewhere. */
void stream_hold(cudaStream_t stream, std::function<bool()> done);

/* Runs all that waits in a stream; in all of them. */
void stream_drain(cudaStream_t stream);
void device_drain();

} // namespace shim

#endif
