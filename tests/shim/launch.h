/* Under cuda/launch.cuh: launching, and what lanes do together. */
#ifndef RLHF_TESTS_SHIM_LAUNCH_H
#define RLHF_TESTS_SHIM_LAUNCH_H

#include "grid.h"
#include "stream.h"

#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static __thread /* found, and poisoned, by grid.cpp */
#endif

namespace shim {

/* Checks what the device would check. False: the error is set, nothing is to be run. */
bool launch_allowed(const char *kernel, const void *function, dim3 grid, dim3 block, size_t shared);

/* Counts a run for the log. */
void launch_log(const char *kernel);

/* An argument that points to memory of the host alone is broken. */
void check_argument(const char *kernel, int number, const void *p);

template <class T> static inline void check_argument(const char *, int, const T &)
{
}

template <class T> static inline void check_argument(const char *kernel, int number, T *const &p)
{
    check_argument(kernel, number, (const void *)p);
}

template <class... P> struct call {
    void (*kernel)(P...);
    std::tuple<P...> argument;
};

/* kernel<<<grid, block, shared, stream>>>(argument...) */
template <class... P>
static inline void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                          size_t shared, cudaStream_t stream, std::type_identity_t<P>... argument)
{
    if (!launch_allowed(name, (const void *)kernel, grid, block, shared))
        return;
    enqueue(stream, [name, grid, block, shared, c = call<P...>{kernel, {argument...}}] {
        int number = 0;
        std::apply([&](const auto &...a) { (check_argument(name, ++number, a), ...); }, c.argument);
        launch_log(name);
        grid_run(
            name, (const void *)c.kernel, grid, block, shared,
            [](const void *one) {
                const struct call<P...> *own = (const struct call<P...> *)one;
                std::apply(own->kernel, own->argument);
            },
            &c);
    });
}

static inline void check_mask(unsigned mask)
{
    if (mask != ~0u)
        broken("mask %08x: only whole warps are known here", mask);
}

static inline void nothing(void *const *)
{
}

template <class T> struct exchanged {
    T value;
    int from;
    T result;
};

/* The value of another lane. */
template <class T> static inline T exchange(unsigned mask, T v, int from, place at)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    check_mask(mask);
    struct exchanged<T> mine = {
        v, from, v
    };
    meet(
        &mine,
        [](void *const part[LANES]) {
            for (int i = 0; i < LANES; i++) {
                struct exchanged<T> *to = (struct exchanged<T> *)part[i];
                if (!to)
                    continue;
                const struct exchanged<T> *source = (const struct exchanged<T> *)part[to->from];
                if (!source)
                    broken("shuffle: lane %d reads lane %d, which has exited", i, to->from);
                to->result = source->value;
            }
        },
        at);
    return mine.result;
}

struct ballot {
    bool predicate;
    unsigned yes, lanes;
};

static inline struct ballot vote(unsigned mask, bool predicate, place at)
{
    check_mask(mask);
    struct ballot mine = {predicate, 0, 0};
    meet(
        &mine,
        [](void *const part[LANES]) {
            unsigned yes = 0, lanes = 0;
            for (int i = 0; i < LANES; i++) {
                lanes |= (unsigned)!!part[i] << i;
                yes |= (unsigned)(part[i] && ((struct ballot *)part[i])->predicate) << i;
            }
            for (int i = 0; i < LANES; i++)
                if (part[i])
                    *(struct ballot *)part[i] = {false, yes, lanes};
        },
        at);
    return mine;
}

} // namespace shim

#endif
