/* Who allocates while a program trains? A library for LD_PRELOAD: stands before the C library's allocation functions and
 * counts each call for the object that made it, by the return address.
 *
 *   ALLOCATIONS_LINES   the file whose lines are steps that have ended (metrics.jsonl); every rank of a node sees it
 *   ALLOCATIONS_FIRST   calls are counted once there are so many of these lines, those of the first step among them ..
 *   ALLOCATIONS_LAST    .. and fewer than so many, of the whole run
 *   ALLOCATIONS_REPORT  folder of the reports, one a process, lines of "calls bytes object"; calls of the program itself
 *                       stand there as "calls bytes program+0x.." (for addr2line), one a place
 *
 * A call that a library makes for the program (qsort, a JSON object, MPI's requests) counts for the library. strdup and
 * strndup, which the C library would answer with its own malloc, count for their caller. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum { ROWS_MAX = 256, OBJECT_MAX = 256 };

/* The C library's own, by the names that it exports for this purpose: dlsym may itself allocate. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

struct row {
    const void *object; /* where it is loaded; of the program: the return address */
    bool own;
    char name[OBJECT_MAX];
    size_t calls, bytes;
};

static struct {
    pthread_mutex_t lock;
    const void *program; /* where it is loaded; NULL: nothing is to be counted */
    const char *lines;
    long first, last;
    struct row row[ROWS_MAX];
    int n;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Where the object of an address is loaded; its name. */
static const void *object_of(const void *address, const char **name)
{
    Dl_info info;
    if (!dladdr(address, &info))
        info = (Dl_info){.dli_fname = "unknown"};
    *name = info.dli_fname;
    return info.dli_fbase;
}

__attribute__((constructor)) static void start(void)
{
    const char *lines = getenv("ALLOCATIONS_LINES"), *first = getenv("ALLOCATIONS_FIRST"), *last = getenv("ALLOCATIONS_LAST"), *name;
    if (!lines || !first || !last || !getenv("ALLOCATIONS_REPORT"))
        return;
    unsetenv("LD_PRELOAD"); /* what the program starts is another matter */
    state.lines = lines;
    state.first = strtol(first, NULL, 10);
    state.last = strtol(last, NULL, 10);
    state.program = object_of((const void *)getauxval(AT_ENTRY), &name);
}

/* Without stdio, which allocates. */
static long lines_of(const char *path)
{
    char bytes[4096];
    long lines = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    for (ssize_t n; (n = read(file, bytes, sizeof bytes)) > 0;)
        for (ssize_t i = 0; i < n; i++)
            lines += bytes[i] == '\n';
    close(file);
    return lines;
}

static struct row *row_of(const void *address)
{
    const char *name;
    const void *object = object_of(address, &name);
    const bool own = object == state.program;
    const void *key = own ? address : object;
    for (int i = 0; i < state.n; i++)
        if (state.row[i].object == key)
            return &state.row[i];
    if (state.n == ROWS_MAX)
        return &state.row[ROWS_MAX - 1];
    struct row *row = &state.row[state.n++];
    row->object = key;
    row->own = own;
    strncpy(row->name, name, sizeof row->name - 1);
    return row;
}

static void count(const void *caller, size_t bytes)
{
    if (!state.program)
        return;
    int before = errno;
    pthread_mutex_lock(&state.lock);
    long lines = lines_of(state.lines);
    if (lines >= state.first && lines < state.last) {
        struct row *row = row_of(caller);
        row->calls++;
        row->bytes += bytes;
    }
    pthread_mutex_unlock(&state.lock);
    errno = before;
}

/* The return address lies behind the call: one byte before it is in the calling function for sure. */
#define CALLER ((const char *)__builtin_return_address(0) - 1)

void *malloc(size_t n)
{
    count(CALLER, n);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    count(CALLER, n * size);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    count(CALLER, n);
    return __libc_realloc(p, n);
}

void *reallocarray(void *p, size_t n, size_t size)
{
    count(CALLER, n * size);
    if (size && n > SIZE_MAX / size) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(p, n * size);
}

void *memalign(size_t alignment, size_t n)
{
    count(CALLER, n);
    return __libc_memalign(alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    count(CALLER, n);
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
    count(CALLER, n);
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}

char *strndup(const char *s, size_t most)
{
    size_t n = strnlen(s, most);
    count(CALLER, n + 1);
    char *copy = __libc_malloc(n + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    count(CALLER, n);
    char *copy = __libc_malloc(n);
    return copy ? memcpy(copy, s, n) : NULL;
}

__attribute__((destructor)) static void report(void)
{
    char path[4096];
    const void *program = state.program;
    state.program = NULL;
    if (!program)
        return;
    snprintf(path, sizeof path, "%s/%ld", getenv("ALLOCATIONS_REPORT"), (long)getpid());
    FILE *f = fopen(path, "w");
    if (!f)
        return;
    for (int i = 0; i < state.n; i++) {
        const struct row *row = &state.row[i];
        if (row->own)
            fprintf(f, "%zu %zu program+%#tx\n", row->calls, row->bytes, (const char *)row->object - (const char *)program);
        else
            fprintf(f, "%zu %zu %s\n", row->calls, row->bytes, row->name);
    }
    fprintf(f, "done\n");
    fclose(f);
}
