/* Stacks and the switch between them. A switch is a dozen instructions on x86-64; swapcontext, which also saves the signal mask by a
 * system call, serves elsewhere. AddressSanitizer is told of each switch, as it must know which stack is in use. */
#include "fiber.h"

#include <deque>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {

#ifdef __SANITIZE_ADDRESS__
enum { STACK_BYTES = 256 << 10 }; /* frames grow by red zones */
#else
enum { STACK_BYTES = 64 << 10 };
#endif

struct fiber {
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void (*entry)();
    const void *bottom; /* of the stack; of the host's: known from the first switch on */
    size_t bytes;
};

static struct fiber host;
static std::deque<struct fiber> fibers;

struct fiber *fiber_host()
{
    return &host;
}

#ifdef __SANITIZE_ADDRESS__
static struct fiber *before; /* who switched last */

static void arrived(void *fake_stack)
{
    __sanitizer_finish_switch_fiber(fake_stack, &before->bottom, &before->bytes);
}
#endif

extern "C" __attribute__((used)) void shim_fiber_start(struct fiber *f)
{
#ifdef __SANITIZE_ADDRESS__
    arrived(NULL);
#endif
    f->entry();
    abort();
}

#ifdef __x86_64__
extern "C" void shim_fiber_swap(void **save, void *sp);
extern "C" void shim_fiber_first();
__asm__(".text\n"
        ".type shim_fiber_swap, @function\n"
        "shim_fiber_swap:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size shim_fiber_swap, .-shim_fiber_swap\n"
        ".type shim_fiber_first, @function\n"
        "shim_fiber_first:\n" /* the new fiber is in rbx */
        "    mov %rbx, %rdi\n"
        "    xor %ebp, %ebp\n"
        "    call shim_fiber_start\n"
        "    ud2\n"
        ".size shim_fiber_first, .-shim_fiber_first\n");

static void prepare(struct fiber *f, unsigned char *top)
{
    uintptr_t *sp = (uintptr_t *)top;
    *--sp = 0;                           /* where backtraces end */
    *--sp = 0;                           /* calls find the stack aligned to 16 */
    *--sp = (uintptr_t)shim_fiber_first; /* ret goes there */
    *--sp = 0;                           /* rbp */
    *--sp = (uintptr_t)f;                /* rbx */
    for (int i = 0; i < 4; i++)
        *--sp = 0; /* r12 to r15 */
    f->sp = sp;
}

static void swap(struct fiber *from, struct fiber *to)
{
    shim_fiber_swap(&from->sp, to->sp);
}
#else
static void first(unsigned high, unsigned low)
{
    shim_fiber_start((struct fiber *)((uintptr_t)high << 32 | low));
}

static void prepare(struct fiber *f, unsigned char *top)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = (void *)f->bottom;
    f->context.uc_stack.ss_size = top - (const unsigned char *)f->bottom;
    f->context.uc_link = NULL;
    makecontext(&f->context, (void (*)())first, 2, (unsigned)((uint64_t)(uintptr_t)f >> 32),
                (unsigned)(uintptr_t)f);
}

static void swap(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

struct fiber *fiber_create(int number, void (*entry)())
{
    const size_t page = sysconf(_SC_PAGESIZE);
    unsigned char *stack = (unsigned char *)mmap(NULL, page + STACK_BYTES, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, page, PROT_NONE) != 0) {
        perror("tests/shim: stack of a thread");
        abort();
    }
    fibers.push_back({});
    struct fiber *f = &fibers.back();
    f->entry = entry;
    f->bottom = stack + page;
    f->bytes = STACK_BYTES;
    /* tops at different offsets: the stacks would share a few sets of the cache otherwise */
    prepare(f, stack + page + STACK_BYTES - number % 61 * 64);
    return f;
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack;
    before = from;
    __sanitizer_start_switch_fiber(&fake_stack, to->bottom, to->bytes);
    swap(from, to);
    arrived(fake_stack);
#else
    swap(from, to);
#endif
}

} // namespace shim
