/* memfd and /proc/<pid>/fd.
 *
 * What is hard about it: memory that is promised but not there ends a process much later, with a signal. So all of it
 * is allocated at once, after a look at what the node and the batch system's limit have.
 */
#include "node_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* The number in a line "name   number ..", or the first one if name is empty; INT64_MAX where there is none. */
static int64_t number_in(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    long long found = INT64_MAX;
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(name);
        long long value;
        if (strncmp(line, name, n) == 0 && sscanf(line + n, "%lld", &value) == 1) {
            found = value;
            break;
        }
    }
    if (f)
        fclose(f);
    return found;
}

/* The smallest memory limit of this process's control group (version 2) and of those around it. */
static int64_t group_limit(void)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[1024], path[1200];
    int64_t least = INT64_MAX;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        char *group = line + 3, *end = group + strcspn(group, "\n");
        while (end) {
            *end = 0;
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
            int64_t limit = number_in(path, "");
            least = limit < least ? limit : least;
            end = strrchr(group, '/');
        }
    }
    if (f)
        fclose(f);
    return least;
}

static int check_room(size_t bytes)
{
    int64_t kib = number_in("/proc/meminfo", "MemAvailable:");
    int64_t free_bytes = kib < INT64_MAX / 1024 ? kib * 1024 : INT64_MAX, limit = group_limit();
    if (limit < free_bytes)
        free_bytes = limit;
    if (bytes <= (uint64_t)free_bytes)
        return 0;
    return error_set(ERR_SYSTEM,
                     "memory shared by the ranks of a node: %.2f GiB needed, %.2f GiB there",
                     (double)bytes / GIB, (double)free_bytes / GIB);
}

int node_memory_make(struct node_memory *place, size_t bytes)
{
    TRY(check_room(bytes));
    int fd = memfd_create("rlhf-hpc", MFD_CLOEXEC);
    int code = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)bytes);
    struct stat info;
    if (code == 0 && fstat(fd, &info) != 0)
        code = errno;
    if (code != 0) {
        if (fd >= 0)
            close(fd);
        return error_set(ERR_SYSTEM, "memory shared by the ranks of a node, %.2f GiB: %s",
                         (double)bytes / GIB, strerror(code));
    }
    *place = (struct node_memory){getpid(), fd, (int64_t)info.st_dev, (int64_t)info.st_ino};
    return 0;
}

int node_memory_map(void **p, const struct node_memory *place, size_t bytes, bool maker,
                    bool writable)
{
    *p = NULL;
    int fd = (int)place->fd;
    if (!maker) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)place->pid,
                 (long long)place->fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
        struct stat info = {0};
        if (fd < 0 || fstat(fd, &info) != 0 || (int64_t)info.st_dev != place->device ||
            (int64_t)info.st_ino != place->inode) {
            if (fd >= 0)
                close(fd);
            return error_set(
                ERR_SYSTEM,
                "memory shared by the ranks of a node: %s is not that of the node's first "
                "rank; they must run in one process namespace",
                path);
        }
    }
    void *found = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    int code = errno;
    if (!maker)
        close(fd);
    if (found == MAP_FAILED)
        return error_set(ERR_SYSTEM,
                         "memory shared by the ranks of a node, %.2f GiB: cannot map: %s",
                         (double)bytes / GIB, strerror(code));
    *p = found;
    return 0;
}

void node_memory_close(struct node_memory *place)
{
    if (place->pid)
        close((int)place->fd);
    *place = (struct node_memory){0};
}
