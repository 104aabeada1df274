/* Files, POSIX calls with the path in every message. */
#include "file.h"

#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what, const char *path)
{
    return error_set(ERR_FILE, "%s: cannot %s: %s", path, what, strerror(errno));
}

int file_map(struct file_map *map, const char *path)
{
    *map = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return failed("open", path);
    struct stat info;
    int rc = 0;
    if (fstat(fd, &info) != 0) {
        rc = failed("read", path);
    } else if (!S_ISREG(info.st_mode)) {
        rc = error_set(ERR_FILE, "%s: not a regular file", path);
    } else if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = failed("map", path);
        else
            *map = (struct file_map){p, (size_t)info.st_size};
    }
    close(fd);
    return rc;
}

void file_unmap(struct file_map *map)
{
    if (map->bytes)
        munmap((void *)map->bytes, map->n);
    *map = (struct file_map){0};
}

int file_read(struct text *out, const char *path)
{
    struct file_map map;
    TRY(file_map(&map, path));
    if (map.n >> 32) {
        file_unmap(&map);
        return error_set(ERR_FILE, "%s: larger than 4 GiB", path);
    }
    text_add(out, map.bytes, map.n);
    file_unmap(&map);
    return 0;
}

static int write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t k = write(fd, bytes, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        bytes += k;
        n -= (size_t)k;
    }
    return 0;
}

int file_write_atomic(const char *path, const void *bytes, size_t n)
{
    struct text temporary = {0};
    text_format(&temporary, "%s.tmp-%ld", path, (long)getpid());
    int fd = open(temporary.bytes, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = fd < 0 ? failed("create", path) : 0;
    if (!rc && (write_all(fd, bytes, n) != 0 || fsync(fd) != 0))
        rc = failed("write", path);
    if (fd >= 0 && close(fd) != 0 && !rc)
        rc = failed("write", path);
    if (!rc && rename(temporary.bytes, path) != 0)
        rc = failed("rename", path);
    if (rc && fd >= 0)
        unlink(temporary.bytes);
    text_free(&temporary);
    return rc;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int file_make_folders(const char *path)
{
    char *copy = strdup(path);
    CHECK(copy, "out of memory");
    int rc = 0;
    for (char *p = copy + 1; !rc; p++) {
        if (*p != '/' && *p)
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            rc = failed("create the folder", path);
        *p = end;
        if (!end)
            break;
    }
    if (!rc && !file_is_folder(path))
        rc = error_set(ERR_FILE, "%s: exists and is not a folder", path);
    free(copy);
    return rc;
}

int file_remove_tree(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? 0 : failed("remove", path);
    if (!S_ISDIR(info.st_mode))
        return unlink(path) == 0 || errno == ENOENT ? 0 : failed("remove", path);
    DIR *folder = opendir(path);
    if (!folder)
        return failed("read the folder", path);
    int rc = 0;
    for (struct dirent *e; !rc && (e = readdir(folder));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        char *inner = file_join(path, e->d_name);
        rc = file_remove_tree(inner);
        free(inner);
    }
    closedir(folder);
    if (!rc && rmdir(path) != 0)
        rc = failed("remove", path);
    return rc;
}

int file_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed("open", path);
    int rc = fsync(fd) == 0 || errno == EINVAL ? 0 : failed("flush", path);
    close(fd);
    return rc;
}

int file_publish(const char *folder, const char *temporary, const char *path, const char *old)
{
    if (!file_exists(path)) {
        if (rename(temporary, path) != 0)
            return error_set(ERR_FILE, "%s: cannot rename: %s", path, strerror(errno));
        return file_sync_folder(folder);
    }
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        TRY(file_sync_folder(folder));
        return file_remove_tree(temporary);
    }
    TRY(file_remove_tree(old));
    if (rename(path, old) != 0 || rename(temporary, path) != 0)
        return error_set(ERR_FILE, "%s: cannot replace: %s", path, strerror(errno));
    TRY(file_sync_folder(folder));
    return file_remove_tree(old);
}

int file_copy(const char *to, const char *from)
{
    struct file_map map;
    TRY(file_map(&map, from));
    int rc = file_write_atomic(to, map.bytes, map.n);
    file_unmap(&map);
    return rc;
}

char *file_join(const char *folder, const char *name)
{
    size_t n = strlen(folder);
    const char *slash = n && folder[n - 1] == '/' ? "" : "/";
    size_t room = n + strlen(name) + 2;
    char *path = malloc(room);
    CHECK(path, "out of memory");
    snprintf(path, room, "%s%s%s", folder, slash, name);
    return path;
}
