/* Memory that processes of one node share: an anonymous file that one makes and the others find through /proc.
 *
 * It has no name that could be left behind and needs no room in /dev/shm. All local.
 */
#ifndef RLHF_MPI_NODE_MEMORY_H
#define RLHF_MPI_NODE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where it is. Sent to the other processes; device and inode tell that they found it and not another. */
struct node_memory {
    int64_t pid, fd, device, inode;
};

/* Makes bytes > 0 of zeroed memory, all of it there at once. Errors: more than the node has. */
int node_memory_make(struct node_memory *place, size_t bytes);

/* Maps it. maker: this is the process that made it. The caller unmaps. */
int node_memory_map(void **p, const struct node_memory *place, size_t bytes, bool maker,
                    bool writable);

/* The maker's, once all have mapped it. */
void node_memory_close(struct node_memory *place);

#endif
