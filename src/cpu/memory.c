/* Memory of the CPU backend, and how much of it a plan may use. Compiled once.
 *
 * What the kernel calls available (free pages would leave out the file cache, which a model read from disk fills), and no
 * more than the control groups of a job scheduler leave: the least over the process's group and those above it.
 */
#include "cpu/cpu.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The number after the key at the start of a line of a file; NULL key: the file's first. False: none there ("max"). */
static bool read_number(const char *path, const char *key, uint64_t *number)
{
    FILE *f = fopen(path, "r");
    char line[256];
    bool found = false;
    const size_t skip = key ? strlen(key) : 0;
    while (f && !found && fgets(line, sizeof line, f))
        found = (!key || !strncmp(line, key, skip)) && sscanf(line + skip, "%" SCNu64, number) == 1;
    if (f)
        fclose(f);
    return found;
}

/* Bytes that the group leaves; pages of files it holds can be given back. */
static uint64_t group_free(const char *folder)
{
    char path[PATH_MAX + 32];
    uint64_t max = 0, current = 0, file = 0;
    snprintf(path, sizeof path, "%s/memory.max", folder);
    if (!read_number(path, NULL, &max))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.current", folder);
    if (!read_number(path, NULL, &current))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (read_number(path, "file ", &file))
        current = file < current ? current - file : 0;
    return current < max ? max - current : 0;
}

/* The least over the process's control groups (version 2). */
static uint64_t groups_free(void)
{
    static const char root[] = "/sys/fs/cgroup";
    char line[PATH_MAX], folder[PATH_MAX + sizeof root];
    FILE *f = fopen("/proc/self/cgroup", "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = !strncmp(line, "0::", 3);
    if (f)
        fclose(f);
    if (!found)
        return UINT64_MAX;
    line[strcspn(line, "\n")] = 0;
    snprintf(folder, sizeof folder, "%s%s", root, line + 3);
    uint64_t least = UINT64_MAX;
    for (char *end; (end = strrchr(folder, '/')) && strlen(folder) >= sizeof root - 1; *end = 0) {
        uint64_t left = group_free(folder);
        least = left < least ? left : least;
    }
    return least;
}

size_t cpu_memory_free(void)
{
    uint64_t machine = 0, groups = groups_free();
    if (read_number("/proc/meminfo", "MemAvailable:", &machine))
        machine *= 1024;
    else
        machine = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return (size_t)(groups < machine ? groups : machine);
}

/* Weights are walked with large strides: huge pages, where the kernel grants them, spare misses of the address tables. */
void *cpu_memory_alloc(size_t bytes)
{
    const size_t huge = 2 << 20, unit = bytes >= huge ? huge : 64;
    void *p;
    if (posix_memalign(&p, unit, (bytes + 63) / 64 * 64) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (unit == huge)
        madvise(p, bytes / huge * huge, MADV_HUGEPAGE); /* advice: refusing it is no error */
#endif
    memset(p, 0, bytes);
    return p;
}
