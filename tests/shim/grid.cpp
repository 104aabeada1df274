/* Runs grids. The threads that can go on stand in a queue. One that waits takes the next from the queue and switches to it; the last
 * to arrive at a meeting puts the others back into the queue. When the queue is empty and threads are left, they wait for
 * something that cannot come. Fibers are kept: a fiber whose thread has ended runs the next fresh one. */
#include "grid.h"

#include "fault.h"
#include "fiber.h"
#include "order.h"

#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace shim {

struct thread *current;
struct block block;

/* Lanes that have come to where their warp meets. */
struct warp {
    int live, arrived;
    perform *work;
    place at;
    void *part[LANES];
};

enum { QUEUE = 2 * THREADS_MOST }; /* a power of two */

static struct thread threads[THREADS_MOST];
static struct warp warps[WARPS_MOST];
static struct thread *queue[QUEUE];
static unsigned queue_head, queue_tail;
static int n_threads, live, arrived; /* of the block; arrived at its barrier */
static place barrier_at;
static std::vector<struct fiber *> idle;
static int n_fibers;
static void (*body)(const void *);
static const void *closure;
static const unsigned *lane_order, *warp_order;

/* --- messages --- */

void broken(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "tests/shim: ");
    if (block.kernel)
        fprintf(stderr, "kernel %s: ", block.kernel);
    if (current)
        fprintf(stderr, "block (%u,%u,%u) thread (%u,%u,%u): ", block.index.x, block.index.y,
                block.index.z, current->index.x, current->index.y, current->index.z);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

static bool same(place a, place b)
{
    return a.line() == b.line() &&
           (a.file_name() == b.file_name() || !strcmp(a.file_name(), b.file_name()));
}

/* Nobody can go on: names the first thread that waits, and the first that waits elsewhere. */
[[noreturn]] static void deadlock()
{
    struct thread *one = NULL, *other = NULL;
    for (int i = 0; i < n_threads; i++) {
        struct thread *t = &threads[i];
        if (t->waits && !one)
            one = t;
        else if (t->waits && !other && !same(t->at, one->at))
            other = t;
    }
    current = one;
    if (!other)
        broken("deadlock: it waits at %s:%u, but of %d threads %d have come", one->at.file_name(),
               one->at.line(), live, arrived ? arrived : warps[one->warp].arrived);
    broken("deadlock: it waits at %s:%u, but thread (%u,%u,%u) waits at %s:%u", one->at.file_name(),
           one->at.line(), other->index.x, other->index.y, other->index.z, other->at.file_name(),
           other->at.line());
}

static inline void check_place(place at, place others)
{
    if (!same(at, others))
        broken("divergence: it came to %s:%u, but others wait at %s:%u", at.file_name(), at.line(),
               others.file_name(), others.line());
}

/* --- the queue --- */

static void queue_append(struct thread *t)
{
    queue[queue_tail++ % QUEUE] = t;
}

static void queue_insert(struct thread *t)
{
    queue[--queue_head % QUEUE] = t;
}

/* The next thread; it is current then. A fresh one gets a fiber. */
static struct fiber *take_next()
{
    if (queue_head == queue_tail)
        deadlock();
    current = queue[queue_head++ % QUEUE];
    return current->fiber;
}

static void thread_loop();

static struct fiber *take_idle()
{
    if (idle.empty())
        return fiber_create(n_fibers++, thread_loop);
    struct fiber *f = idle.back();
    idle.pop_back();
    return f;
}

/* Leaves the running thread until someone has put it into the queue and its turn has come. */
static void wait_turn()
{
    struct thread *self = current;
    struct fiber *next = take_next();
    if (current == self)
        return;
    if (!next)
        next = current->fiber = take_idle();
    fiber_switch(self->fiber, next);
}

/* --- meetings --- */

/* All have arrived: the work is done, the others may go on, at once or after those that are in the queue. */
static void warp_release(struct warp *w)
{
    struct thread *first = threads + (w - warps) * LANES;
    w->work(w->part);
    const bool at_once = order_at_once();
    for (int i = 0; i < LANES; i++) {
        const int lane = lane_order[at_once ? LANES - 1 - i : i];
        struct thread *t = first + lane;
        if (!w->part[lane])
            continue;
        w->part[lane] = NULL;
        if (t == current)
            continue;
        t->waits = false;
        if (at_once)
            queue_insert(t);
        else
            queue_append(t);
    }
    w->arrived = 0;
}

void meet(void *part, perform *work, place at)
{
    struct thread *self = current;
    struct warp *w = &warps[self->warp];
    if (w->arrived == 0) {
        w->at = at;
        w->work = work;
    } else {
        check_place(at, w->at);
    }
    w->part[self->lane] = part;
    if (++w->arrived == w->live) {
        warp_release(w);
        return;
    }
    self->waits = true;
    self->at = at;
    wait_turn();
}

static void barrier_release()
{
    for (int i = 0; i < n_threads; i++) {
        struct thread *t = &threads[warp_order[i / LANES] * LANES + lane_order[i % LANES]];
        if (t->waits) {
            t->waits = false;
            queue_append(t);
        }
    }
    arrived = 0;
}

void barrier(place at)
{
    if (arrived == 0)
        barrier_at = at;
    else
        check_place(at, barrier_at);
    current->waits = true;
    current->at = at;
    if (++arrived == live)
        barrier_release();
    wait_turn();
}

/* The running thread has ended; who waits for the others alone may go on. */
static void leave()
{
    struct warp *w = &warps[current->warp];
    live--;
    w->live--;
    if (w->arrived > 0 && w->arrived == w->live)
        warp_release(w);
    if (arrived > 0 && arrived == live)
        barrier_release();
}

/* --- threads --- */

static void thread_loop()
{
    for (;;) {
        struct fiber *self = current->fiber;
        body(closure);
        leave();
        struct fiber *next = fiber_host();
        if (live > 0) {
            next = take_next();
            if (!next) {
                current->fiber = self;
                continue;
            }
        }
        idle.push_back(self);
        fiber_switch(self, next); /* back with a fresh thread */
    }
}

static void block_begin()
{
    for (int i = 0; i < n_threads; i++) {
        struct thread *t = &threads[i];
        t->fiber = NULL;
        t->waits = false;
        if (t->group > 0 || !t->copies.empty()) {
            t->group = 0;
            t->copies.clear();
        }
    }
    for (int i = 0; i < n_threads; i++)
        queue_append(&threads[warp_order[i / LANES] * LANES + lane_order[i % LANES]]);
    for (int i = 0; i < n_threads / LANES; i++) {
        warps[i].live = LANES;
        warps[i].arrived = 0;
    }
    live = n_threads;
    arrived = 0;
}

static void block_run()
{
    block_begin();
    take_next();
    current->fiber = take_idle();
    fiber_switch(fiber_host(), current->fiber);
    current = NULL;
}

/* --- shared memory --- */

/* Static shared memory: this module's thread-local storage, which nothing else uses (AddressSanitizer watches ordinary static
 * variables better: there it is not found). */
static unsigned char *static_shared;
static size_t static_shared_bytes;

#ifndef __SANITIZE_ADDRESS__
static __thread volatile char anchor; /* the storage exists from its first use on */

static int find_static_shared(struct dl_phdr_info *object, size_t, void *)
{
    const uintptr_t here = (uintptr_t)&block;
    const ElfW(Phdr) *tls = NULL;
    bool ours = false;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && here - (object->dlpi_addr + part->p_vaddr) < part->p_memsz)
            ours = true;
        if (part->p_type == PT_TLS)
            tls = part;
    }
    if (!ours)
        return 0;
    static_shared = tls ? (unsigned char *)object->dlpi_tls_data : NULL;
    static_shared_bytes = static_shared ? tls->p_memsz : 0;
    return 1;
}
#endif

#ifdef __SANITIZE_ADDRESS__
static void shared_open(size_t bytes)
{
    void *p = NULL;
    if (bytes > 0 && posix_memalign(&p, 128, bytes) != 0)
        abort();
    block.shared = (unsigned char *)p;
    block.shared_bytes = bytes;
}

static void shared_close()
{
    free(block.shared);
    block.shared = NULL;
}

void check_shared(const void *p, size_t, const char *operation)
{
    if ((uintptr_t)p % 16 != 0)
        broken("%s: shared address %p is not aligned to 16 bytes", operation, p);
}
#else
enum { SHARED_ROOM = 128 << 10 };

/* Ends before a page that cannot be touched, rounded up to the alignment of 128. */
static void shared_open(size_t bytes)
{
    static unsigned char *room;
    const size_t page = sysconf(_SC_PAGESIZE);
    if (!room) {
        room = (unsigned char *)mmap(NULL, SHARED_ROOM + page, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED || mprotect(room + SHARED_ROOM, page, PROT_NONE) != 0)
            abort();
    }
    block.shared = room + SHARED_ROOM - (bytes + 127) / 128 * 128;
    block.shared_bytes = bytes;
    if (!static_shared) {
        anchor = 1;
        dl_iterate_phdr(find_static_shared, NULL);
    }
}

static void shared_close()
{
}

static bool within(const void *p, size_t bytes, const unsigned char *start, size_t room)
{
    const size_t offset = (const unsigned char *)p - start;
    return offset <= room && bytes <= room - offset;
}

void check_shared(const void *p, size_t bytes, const char *operation)
{
    if ((uintptr_t)p % 16 != 0)
        broken("%s: shared address %p is not aligned to 16 bytes", operation, p);
    if (!within(p, bytes, block.shared, block.shared_bytes) &&
        !within(p, bytes, static_shared, static_shared_bytes))
        broken("%s: %p is not in the block's shared memory (%zu bytes from %p on)", operation, p,
               block.shared_bytes, (void *)block.shared);
}
#endif

static void shared_poison()
{
    if (block.shared)
        memset(block.shared, 0xff, block.shared_bytes);
    if (static_shared)
        memset(static_shared, 0xff, static_shared_bytes);
}

/* --- grids --- */

void grid_run(const char *kernel, dim3 grid, dim3 dim, size_t shared_bytes,
              void (*run)(const void *), const void *what)
{
    fault_watch();
    block.kernel = kernel;
    block.grid = grid;
    block.dim = dim;
    if (dim.x * dim.y * dim.z % LANES != 0)
        broken("%u threads a block are not whole warps", dim.x * dim.y * dim.z);
    n_threads = dim.x * dim.y * dim.z;
    for (int i = 0; i < n_threads; i++) {
        threads[i].index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
        threads[i].lane = i % LANES;
        threads[i].warp = i / LANES;
    }
    body = run;
    closure = what;
    shared_open(shared_bytes);
    const uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    order_begin(n_blocks, n_threads / LANES);
    for (uint64_t i = 0; i < n_blocks; i++) {
        const uint64_t b = order_block(i);
        block.index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                       (unsigned)(b / grid.x / grid.y)};
        lane_order = order_lanes();
        warp_order = order_warps();
        shared_poison();
        block_run();
    }
    shared_close();
    block.kernel = NULL;
}

} // namespace shim
