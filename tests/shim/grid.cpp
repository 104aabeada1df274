/* Runs grids. A fiber that waits switches to the thread that runs next; there is no scheduler between.
 *
 * The lanes of a warp stand in a ring and run in its order, each up to the next meeting or barrier. So whoever arrives goes on in the
 * next of the ring, which cannot have arrived yet; the last to arrive does the meeting's work and goes on itself. When all lanes of a
 * warp wait at the block's barrier, or have exited, the next warp runs. Lanes of one warp at a meeting and at a barrier at the same
 * time would wait for ever: that is seen as the second of them arrives. Fibers are kept: one whose thread has ended runs the next
 * fresh one, without a switch.
 */
#include "grid.h"

#include "fault.h"
#include "fiber.h"
#include "order.h"

#include <algorithm>
#include <link.h>
#include <map>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace shim {

struct thread *current;
struct block block;

struct warp {
    int live, met,
        barred;    /* lanes that have not exited; that have come to a meeting; to the barrier */
    perform *work; /* of the meeting */
    place at;      /* of the meeting */
    struct thread *position; /* runs next, when the warp does */
    void *part[LANES];       /* NULL for lanes that have exited */
};

static struct thread threads[THREADS_MOST];
static struct warp warps[WARPS_MOST];
static int n_threads, live, barred; /* of the block: threads; not exited; at the barrier */
static place barrier_at;
static std::vector<struct fiber *> idle;
static int n_fibers;
static void (*body)(const void *);
static const void *closure;
static const unsigned *warp_order;

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

static bool differ(place a, place b)
{
    return a.line() != b.line() || strcmp(a.file_name(), b.file_name()) != 0;
}

[[noreturn]] static void diverged(place at, place others)
{
    broken("divergence: it came to %s:%u, but others wait at %s:%u", at.file_name(), at.line(),
           others.file_name(), others.line());
}

[[noreturn]] static void deadlock(place at, place others)
{
    broken("deadlock: it came to %s:%u, but lanes of its warp wait at %s:%u", at.file_name(),
           at.line(), others.file_name(), others.line());
}

/* The places are nearly always the same object. */
static inline void check_place(const place &at, const place &others)
{
    if (memcmp(&at, &others, sizeof at) != 0 && differ(at, others))
        diverged(at, others);
}

/* --- who runs next --- */

static void thread_loop();

static struct fiber *take_idle()
{
    if (idle.empty())
        return fiber_create(n_fibers++, thread_loop);
    struct fiber *f = idle.back();
    idle.pop_back();
    return f;
}

/* Leaves the running thread for another; returns when someone comes back to it. */
static inline void go_on(struct thread *to)
{
    struct thread *self = current;
    if (to == self)
        return;
    current = to;
    if (!to->fiber)
        to->fiber = take_idle();
    fiber_switch(self->fiber, to->fiber);
}

static inline struct thread *next_lane(struct thread *t)
{
    do
        t = t->next;
    while (t->exited);
    return t;
}

/* The next warp, from number `from` of the order on, that has a lane which can run. */
static struct thread *next_warp(int from)
{
    const int n = n_threads / LANES;
    for (int i = 0; i < n; i++) {
        struct warp *w = &warps[warp_order[(from + i) % n]];
        if (w->barred < w->live)
            return w->position;
    }
    abort(); /* a barrier that all have come to is released */
}

static int number_in_order(const struct warp *w)
{
    int i = 0;
    while (&warps[warp_order[i]] != w)
        i++;
    return i;
}

static void barrier_release()
{
    for (int i = 0; i < n_threads / LANES; i++)
        warps[i].barred = 0;
    barred = 0;
}

static void meeting_release(struct warp *w)
{
    w->work(w->part);
    w->met = 0;
}

void meet(void *part, perform *work, place at)
{
    struct thread *self = current;
    struct warp *w = self->warp;
    if (w->barred > 0)
        deadlock(at, barrier_at);
    if (w->met == 0) {
        w->at = at;
        w->work = work;
    } else {
        check_place(at, w->at);
        if (work != w->work)
            diverged(at, w->at);
    }
    w->part[self->lane] = part;
    if (++w->met < w->live) {
        go_on(next_lane(self));
        return;
    }
    meeting_release(w);
    if (!order_at_once()) {
        w->position = self;
        go_on(next_warp(number_in_order(w) + 1));
    }
}

void barrier(place at)
{
    struct thread *self = current;
    struct warp *w = self->warp;
    if (w->met > 0)
        deadlock(at, w->at);
    if (barred == 0)
        barrier_at = at;
    else
        check_place(at, barrier_at);
    barred++;
    if (++w->barred < w->live) {
        go_on(next_lane(self));
        return;
    }
    w->position = next_lane(self);
    if (barred == live) {
        barrier_release();
        go_on(next_warp(0));
    } else {
        go_on(next_warp(number_in_order(w) + 1));
    }
}

/* The running thread has ended; those who waited for it alone may go on. The thread that runs next. */
static struct thread *leave()
{
    struct thread *self = current;
    struct warp *w = self->warp;
    self->exited = true;
    w->part[self->lane] = NULL;
    w->live--;
    live--;
    if (w->live > 0) {
        w->position = next_lane(self);
        if (w->met == w->live)
            meeting_release(w);
        if (w->barred < w->live)
            return w->position;
    }
    if (live == 0)
        return NULL;
    if (barred == live)
        barrier_release();
    return next_warp(number_in_order(w));
}

/* --- threads --- */

static void thread_loop()
{
    for (;;) {
        struct fiber *self = current->fiber;
        body(closure);
        current = leave();
        if (current && !current->fiber) {
            current->fiber = self;
            continue;
        }
        idle.push_back(self);
        fiber_switch(self, current ? current->fiber : fiber_host()); /* back with a fresh thread */
    }
}

/* The rings, in the order of the lanes; a thread's place in the block does not depend on it. */
static void rings_make(const unsigned *lane_order)
{
    for (int first = 0; first < n_threads; first += LANES)
        for (int i = 0; i < LANES; i++)
            threads[first + lane_order[i]].next = &threads[first + lane_order[(i + 1) % LANES]];
}

static void block_begin(unsigned first_lane)
{
    for (int i = 0; i < n_threads; i++) {
        struct thread *t = &threads[i];
        t->fiber = NULL;
        t->exited = false;
        t->copies.group = 0;
        t->copies.made = 0;
        t->copies.list.clear();
    }
    for (int i = 0; i < n_threads / LANES; i++) {
        struct warp *w = &warps[i];
        w->live = LANES;
        w->met = w->barred = 0;
        w->position = &threads[i * LANES + first_lane];
    }
    live = n_threads;
    barred = 0;
}

static void block_run()
{
    current = next_warp(0);
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

/* What of the static shared memory a kernel writes to, as seen after the first block of its first launches: filling all of it
 * before each block would take longer than most blocks. */
struct extent {
    size_t low, high;
    int n_looks;
};
enum { LOOKS = 4 };
static std::map<const void *, struct extent> extents; /* by the kernel */

static struct extent *extent_begin(const void *kernel)
{
    struct extent *e = &extents[kernel];
    if (e->n_looks < LOOKS && static_shared_bytes > 0)
        memset(static_shared, 0xff, static_shared_bytes);
    return e;
}

static void extent_look(struct extent *e)
{
    size_t low = 0, high = static_shared_bytes;
    if (e->n_looks == LOOKS)
        return;
    e->n_looks++;
    while (low < high && static_shared[low] == 0xff)
        low++;
    while (low < high && static_shared[high - 1] == 0xff)
        high--;
    if (low == high)
        return;
    e->low = e->high == 0 ? low : std::min(low, e->low);
    e->high = std::max(high, e->high);
}

static void shared_poison(const struct extent *e)
{
    if (block.shared_bytes > 0)
        memset(block.shared, 0xff, block.shared_bytes);
    if (e->high > e->low)
        memset(static_shared + e->low, 0xff, e->high - e->low);
}

/* --- grids --- */

void grid_run(const char *kernel, const void *function, dim3 grid, dim3 dim, size_t shared_bytes,
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
        threads[i].warp = &warps[i / LANES];
    }
    body = run;
    closure = what;
    shared_open(shared_bytes);
    const uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    struct extent *const extent = extent_begin(function);
    order_begin(n_blocks, n_threads / LANES);
    for (uint64_t i = 0; i < n_blocks; i++) {
        const uint64_t b = order_block(i);
        block.index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                       (unsigned)(b / grid.x / grid.y)};
        const unsigned *lanes = order_lanes();
        warp_order = order_warps();
        if (i == 0 || !order_is_ascending)
            rings_make(lanes);
        block_begin(lanes[0]);
        shared_poison(extent);
        block_run();
        if (i == 0)
            extent_look(extent);
    }
    shared_close();
    block.kernel = NULL;
}

} // namespace shim
