/* Whole files: read, write atomically, map, make folders. Every error names the path. */
#ifndef RLHF_SRC_FILE_H
#define RLHF_SRC_FILE_H

#include "text.h"

#include <stdbool.h>
#include <stddef.h>

int file_read(struct text *out, const char *path); /* appends; refuses folders and files over 4 GiB */

/* Writes under a temporary name in the same folder, flushes to disk, renames: the old file or the new one. */
int file_write_atomic(const char *path, const void *bytes, size_t n);

/* Maps a file read-only. bytes is NULL for an empty file. file_unmap takes the zeroed struct too. */
struct file_map {
    const unsigned char *bytes;
    size_t n;
};
int file_map(struct file_map *map, const char *path);
void file_unmap(struct file_map *map);

bool file_exists(const char *path);
bool file_is_folder(const char *path);
int file_make_folders(const char *path);        /* like mkdir -p */
int file_remove_tree(const char *path);         /* like rm -rf; a missing path is no error */
int file_sync_folder(const char *path);         /* makes renames in it durable */

/* Gives a finished file or folder its name, path. One that bears it already is exchanged in one step where the file system can,
 * else renamed to old meanwhile; it is removed then. folder: that of all three. */
int file_publish(const char *folder, const char *temporary, const char *path, const char *old);

int file_copy(const char *to, const char *from); /* contents only */
char *file_join(const char *folder, const char *name); /* "folder/name"; caller frees */

#endif
