/* Streams, events and graphs. A stream is a queue of closures. By default each is run as it comes; with RLHF_SHIM_LAZY=1 it stays until
 * somebody waits for it (a stream, an event, the device, a blocking copy), as late as a device might run it: what the host does to
 * its buffers too early shows, and so does a missing event between streams. While a stream records, closures go into its graph
 * and nothing runs.
 */
#include "stream.h"

#include "device_memory.h"
#include "error_code.h"

#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <stdlib.h>
#include <unistd.h>
#include <vector>

struct recording {
    cudaStreamCaptureMode mode;
    cudaStream_t origin;
    bool spoiled;
    std::vector<shim::work> nodes;
};

struct CUstream_st {
    std::deque<shim::work> queue;
    uint64_t added, done;       /* closures so far */
    std::function<bool()> held; /* what comes next waits for it; empty: nothing */
    struct recording *recording;
    uint64_t recorded,
        joined; /* nodes of the recording: this stream's last; up to which the origin waits for it */
};

struct CUevent_st {
    cudaStream_t stream; /* where it was recorded last; NULL: never, or the stream is gone */
    uint64_t number;     /* of its closure there, or of the node */
    struct recording *recording;
    std::shared_ptr<std::chrono::steady_clock::time_point> time; /* closures hold it, too */
};

struct CUgraph_st {
    std::vector<shim::work> nodes;
};

struct CUgraphExec_st {
    std::vector<shim::work> nodes;
};

namespace shim {

static std::set<cudaStream_t> streams;
static std::set<cudaEvent_t> events;
static struct CUstream_st default_stream;

static bool lazy()
{
    static const char *const text = getenv("RLHF_SHIM_LAZY");
    return text && *text && *text != '0';
}

static struct CUstream_st *real(cudaStream_t stream)
{
    return stream ? stream : &default_stream;
}

static bool known(cudaStream_t stream)
{
    return !stream || streams.count(stream);
}

/* The device works: its memory can be touched. */
static void run(const work &w)
{
    memory_open();
    w();
    memory_close();
}

static bool is_held(struct CUstream_st *s)
{
    if (s->held && s->held())
        s->held = nullptr;
    return (bool)s->held;
}

static void wait_while_held(struct CUstream_st *s)
{
    while (is_held(s))
        usleep(1000);
}

void stream_hold(cudaStream_t stream, std::function<bool()> done)
{
    real(stream)->held = std::move(done);
}

/* Until so many closures of the stream have run. */
static void run_until(struct CUstream_st *s, uint64_t number)
{
    if (s->done < number)
        wait_while_held(s);
    while (s->done < number) {
        work w = std::move(s->queue.front());
        s->queue.pop_front();
        s->done++;
        run(w);
    }
}

void enqueue(cudaStream_t stream, work w)
{
    struct CUstream_st *s = real(stream);
    if (s->recording) {
        s->recording->nodes.push_back(std::move(w));
        s->recorded = s->recording->nodes.size();
        return;
    }
    if (!lazy()) {
        wait_while_held(s);
        run(w);
        return;
    }
    s->queue.push_back(std::move(w));
    s->added++;
}

bool stream_captures(cudaStream_t stream)
{
    return real(stream)->recording != NULL;
}

void stream_drain(cudaStream_t stream)
{
    run_until(real(stream), real(stream)->added);
    wait_while_held(real(stream));
}

void device_drain()
{
    stream_drain(NULL);
    for (cudaStream_t s : streams)
        stream_drain(s);
}

cudaError_t capture_forbids()
{
    for (cudaStream_t s : streams)
        if (s->recording && s->recording->mode != cudaStreamCaptureModeRelaxed) {
            s->recording->spoiled = true;
            return failed(cudaErrorStreamCaptureUnsupported);
        }
    return cudaSuccess;
}

/* Nobody waits for a stream that records. */
static cudaError_t wait_stream(cudaStream_t stream)
{
    if (!known(stream))
        return failed(cudaErrorInvalidResourceHandle);
    if (stream_captures(stream)) {
        stream->recording->spoiled = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    stream_drain(stream);
    return pending_error();
}

static cudaError_t wait_event(cudaEvent_t event)
{
    if (!events.count(event))
        return failed(cudaErrorInvalidResourceHandle);
    if (event->recording) {
        event->recording->spoiled = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    if (event->stream)
        run_until(event->stream, event->number);
    return pending_error();
}

} // namespace shim

using namespace shim;

/* --- streams --- */

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    *stream = new CUstream_st();
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    return cudaStreamCreate(stream);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned, int)
{
    return cudaStreamCreate(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (!stream || !known(stream))
        return failed(cudaErrorInvalidResourceHandle);
    if (stream->recording)
        return failed(cudaErrorStreamCaptureUnsupported);
    device_drain(); /* closures of others may wait for this stream */
    for (cudaEvent_t e : events)
        if (e->stream == stream)
            e->stream = NULL;
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return wait_stream(stream);
}

/* Runs what could have run by now: all but what is held. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    if (known(stream) && is_held(real(stream)))
        return failed(cudaErrorNotReady);
    return wait_stream(stream);
}

cudaError_t cudaDeviceSynchronize()
{
    if (cudaError_t error = capture_forbids())
        return error;
    device_drain();
    return pending_error();
}

/* In a recording: the stream joins the event's. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (!known(stream) || !events.count(event))
        return failed(cudaErrorInvalidResourceHandle);
    struct CUstream_st *s = real(stream);
    if (event->recording) {
        if (s == &default_stream || (s->recording && s->recording != event->recording))
            return failed(cudaErrorStreamCaptureUnsupported);
        s->recording = event->recording;
        if (event->recording->origin == stream && event->stream &&
            event->number > event->stream->joined)
            event->stream->joined = event->number;
        return cudaSuccess;
    }
    if (s->recording) {
        s->recording->spoiled = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    if (event->stream && event->stream != s)
        enqueue(stream,
                [from = event->stream, number = event->number] { run_until(from, number); });
    return cudaSuccess;
}

/* --- events --- */

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new CUevent_st();
    (*event)->time = std::make_shared<std::chrono::steady_clock::time_point>();
    events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (!events.count(event))
        return failed(cudaErrorInvalidResourceHandle);
    events.erase(event);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    if (!known(stream) || !events.count(event))
        return failed(cudaErrorInvalidResourceHandle);
    struct CUstream_st *s = real(stream);
    event->stream = s;
    event->recording = s->recording;
    if (s->recording) {
        event->number = s->recorded;
        return cudaSuccess;
    }
    enqueue(stream, [time = event->time] { *time = std::chrono::steady_clock::now(); });
    event->number = s->added;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return wait_event(event);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return wait_event(event);
}

cudaError_t cudaEventElapsedTime(float *msec, cudaEvent_t start, cudaEvent_t end)
{
    if (!events.count(start) || !events.count(end) || !start->stream || !end->stream ||
        start->recording || end->recording)
        return failed(cudaErrorInvalidResourceHandle);
    if (start->stream->done < start->number || end->stream->done < end->number)
        return failed(cudaErrorNotReady);
    *msec = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return cudaSuccess;
}

/* --- graphs --- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    if (!stream || !known(stream))
        return failed(stream ? cudaErrorInvalidResourceHandle : cudaErrorStreamCaptureUnsupported);
    if (stream->recording)
        return failed(cudaErrorInvalidValue);
    stream->recording = new recording{mode, stream, false, {}};
    stream->recorded = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = NULL;
    if (!stream || !known(stream) || !stream->recording)
        return failed(cudaErrorInvalidValue);
    struct recording *r = stream->recording;
    if (r->origin != stream)
        return failed(cudaErrorStreamCaptureUnmatched);
    cudaError_t error = r->spoiled ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (cudaStream_t s : streams)
        if (s->recording == r) {
            if (s != stream && s->joined < s->recorded)
                error = cudaErrorStreamCaptureUnjoined;
            s->recording = NULL;
            s->recorded = s->joined = 0;
        }
    for (cudaEvent_t e : events)
        if (e->recording == r) {
            e->recording = NULL;
            e->stream = NULL;
        }
    if (!error)
        *graph = new CUgraph_st{std::move(r->nodes)};
    delete r;
    return error ? failed(error) : cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    if (!known(stream))
        return failed(cudaErrorInvalidResourceHandle);
    const struct recording *r = real(stream)->recording;
    *status = !r           ? cudaStreamCaptureStatusNone
              : r->spoiled ? cudaStreamCaptureStatusInvalidated
                           : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    if (!graph)
        return failed(cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (!exec)
        return failed(cudaErrorInvalidValue);
    if (!known(stream))
        return failed(cudaErrorInvalidResourceHandle);
    for (const work &node : exec->nodes)
        enqueue(stream, node);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}
