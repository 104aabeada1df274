/* state.h5 over parallel HDF5.
 *
 * What is hard about it: HDF5's collective calls hang if one rank fails alone. So rank 0 makes the file by itself, with
 * the space of every dataset allocated; then all ranks open it together and only fill in raw data, independently, which
 * leaves no metadata to agree about. A share is a contiguous slab, written and read in pieces that MPI can count.
 * Nothing in the file depends on time or on the number of ranks. Neither driver in use takes file locks, which cluster
 * file systems often lack.
 */
#include "state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hdf5.h>

#include "comm_internal.h"
#include "error.h"
#include "layout_driver.h"
#include "text.h"

enum { VERIFY_BYTES = 1 << 20 };

size_t checkpoint_type_bytes(enum checkpoint_type t)
{
    return t == CHECKPOINT_BYTES ? 1 : t == CHECKPOINT_F32 ? 4 : 8;
}

static hid_t type_hdf5(enum checkpoint_type t)
{
    switch (t) {
    case CHECKPOINT_F32:
        return H5T_IEEE_F32LE;
    case CHECKPOINT_F64:
        return H5T_IEEE_F64LE;
    case CHECKPOINT_I64:
        return H5T_STD_I64LE;
    default:
        return H5T_STD_U8LE;
    }
}

static const char *type_name(enum checkpoint_type t)
{
    static const char *const names[] = {"bytes", "float32", "float64", "int64"};
    return names[t];
}

/* -- errors of HDF5 ------------------------------------------------------------------------------- */

/* Of HDF5's stack, the innermost message: the cause. */
static herr_t keep_first(unsigned i, const H5E_error2_t *e, void *reason)
{
    if (i == 0)
        snprintf(reason, 256, "%s", e->desc ? e->desc : "");
    return 0;
}

static int hdf5_failed(const char *path, const char *name, const char *what)
{
    char reason[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, reason);
    H5Eclear2(H5E_DEFAULT);
    return error_set(ERR_FILE, "%s: %s%scannot %s%s%s", path, name ? name : "", name ? ": " : "",
                     what, *reason ? ": " : "", reason);
}

/* -- opening -------------------------------------------------------------------------------------- */

/* Opens the file for these ranks together. Negative on failure, with the message set. */
static hid_t open_file(const char *path, MPI_Comm ranks, unsigned flags)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (access >= 0 && H5Pset_fapl_mpio(access, ranks, MPI_INFO_NULL) >= 0)
        file = H5Fopen(path, flags, access);
    if (file < 0)
        hdf5_failed(path, NULL, "open as HDF5");
    if (access >= 0)
        H5Pclose(access);
    return file;
}

static int close_file(const char *path, hid_t file, int rc)
{
    if (file >= 0 && H5Fclose(file) < 0 && rc == 0)
        rc = hdf5_failed(path, NULL, "close");
    return rc;
}

/* Opens a dataset and checks that it is a plain one-dimensional array of the type. n gets its length. */
static hid_t open_array(const char *path, hid_t file, const char *name, enum checkpoint_type type,
                        int64_t *n)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) {
        hdf5_failed(path, name, "find this array");
        return -1;
    }
    hid_t own_type = H5Dget_type(set), space = H5Dget_space(set), plist = H5Dget_create_plist(set);
    hsize_t length = 0;
    int rc = 0;
    if (own_type < 0 || H5Tequal(own_type, type_hdf5(type)) <= 0)
        rc = error_set(ERR_FILE, "%s: %s: is not of type %s", path, name, type_name(type));
    else if (space < 0 || H5Sget_simple_extent_type(space) != H5S_SIMPLE ||
             H5Sget_simple_extent_ndims(space) != 1 ||
             H5Sget_simple_extent_dims(space, &length, NULL) != 1 ||
             length > (hsize_t)INT64_MAX / checkpoint_type_bytes(type) || plist < 0 ||
             H5Pget_layout(plist) != H5D_CONTIGUOUS || H5Pget_external_count(plist) != 0 ||
             H5Dget_storage_size(set) != length * checkpoint_type_bytes(type))
        rc = error_set(ERR_FILE, "%s: %s: is not a plain array of one dimension", path, name);
    *n = (int64_t)length;
    if (own_type >= 0)
        H5Tclose(own_type);
    if (space >= 0)
        H5Sclose(space);
    if (plist >= 0)
        H5Pclose(plist);
    if (rc == 0)
        return set;
    H5Eclear2(H5E_DEFAULT);
    H5Dclose(set);
    return -1;
}

static hid_t open_item(const char *path, hid_t file, const struct checkpoint_item *item)
{
    int64_t n = -1;
    hid_t set = open_array(path, file, item->name, item->type, &n);
    if (set < 0 || n == item->n)
        return set;
    error_set(ERR_FILE, "%s: %s: has %lld elements, %lld are needed", path, item->name,
              (long long)n, (long long)item->n);
    H5Dclose(set);
    return -1;
}

/* -- slabs ---------------------------------------------------------------------------------------- */

/* Elements [first, first + *n) of a rank's share: rank 0 has all of what is not sliced. */
static int64_t share(const struct checkpoint_item *item, int rank, int size, int64_t *n)
{
    if (!item->sliced) {
        *n = rank == 0 ? item->n : 0;
        return 0;
    }
    int64_t each = item->n / size, more = item->n % size;
    *n = each + (rank < more);
    return rank * each + (rank < more ? rank : more);
}

static char *element(const struct checkpoint_item *item, int64_t i)
{
    return item->data ? (char *)item->data + (size_t)i * checkpoint_type_bytes(item->type) : NULL;
}

/* Moves elements [first, first + n) of a dataset to or from memory, in pieces of at most piece_bytes. */
static int move_slab(const char *path, const char *name, hid_t set, enum checkpoint_type type,
                     void *data, int64_t first, int64_t n, size_t piece_bytes, bool writing)
{
    hid_t access = H5Pcreate(H5P_DATASET_XFER), space = H5Dget_space(set);
    bool good = access >= 0 && space >= 0 && H5Pset_dxpl_mpio(access, H5FD_MPIO_INDEPENDENT) >= 0;
    int64_t most = (int64_t)(piece_bytes / checkpoint_type_bytes(type));
    for (int64_t done = 0; good && done < n;) {
        hsize_t start = (hsize_t)(first + done),
                count = (hsize_t)(n - done < most ? n - done : most);
        char *p = (char *)data + (size_t)done * checkpoint_type_bytes(type);
        hid_t memory = H5Screate_simple(1, &count, NULL);
        good = memory >= 0 &&
               H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL) >= 0 &&
               (writing ? H5Dwrite(set, type_hdf5(type), memory, space, access, p)
                        : H5Dread(set, type_hdf5(type), memory, space, access, p)) >= 0;
        if (memory >= 0)
            H5Sclose(memory);
        done += (int64_t)count;
    }
    int rc = good ? 0 : hdf5_failed(path, name, writing ? "write" : "read");
    if (space >= 0)
        H5Sclose(space);
    if (access >= 0)
        H5Pclose(access);
    return rc;
}

/* -- writing -------------------------------------------------------------------------------------- */

static int create_item(struct comm *c, const char *path, hid_t file,
                       const struct checkpoint_item *item)
{
    hsize_t n = (hsize_t)item->n;
    hid_t space = H5Screate_simple(1, &n, NULL), links = H5Pcreate(H5P_LINK_CREATE),
          plist = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    if (space >= 0 && links >= 0 && plist >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 &&
        H5Pset_layout(plist, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER) >= 0 &&
        H5Pset_obj_track_times(plist, false) >= 0)
        set = H5Dcreate2(file, item->name, type_hdf5(item->type), space, links, plist, H5P_DEFAULT);
    int rc = set < 0 ? hdf5_failed(path, item->name, "create this array") : 0;
    if (rc == 0 && !item->sliced)
        rc = move_slab(path, item->name, set, item->type, item->data, 0, item->n, c->chunk_bytes,
                       true);
    if (set >= 0 && H5Dclose(set) < 0 && rc == 0)
        rc = hdf5_failed(path, item->name, "close this array");
    if (plist >= 0)
        H5Pclose(plist);
    if (links >= 0)
        H5Pclose(links);
    if (space >= 0)
        H5Sclose(space);
    return rc;
}

static int create_items(struct comm *c, const char *path, hid_t driver,
                        const struct checkpoint_item *items, int n)
{
    int error = 0, rc = 0;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (access >= 0 && layout_driver_set(access, driver, &error) >= 0)
        file = H5Fcreate(path, H5F_ACC_EXCL, H5P_DEFAULT, access);
    if (file < 0)
        rc = hdf5_failed(path, NULL, "create");
    for (int i = 0; i < n && rc == 0; i++)
        rc = create_item(c, path, file, &items[i]);
    rc = close_file(path, file, rc);
    if (access >= 0)
        H5Pclose(access);
    if (error != 0)
        rc = error_set(ERR_FILE, "%s: cannot write: %s", path, strerror(error));
    return rc;
}

int state_file_create(struct comm *c, const char *path, const struct checkpoint_item *items, int n)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t driver = layout_driver_register();
    if (driver < 0)
        return hdf5_failed(path, NULL, "register a file driver");
    int rc = create_items(c, path, driver, items, n);
    H5FDunregister(driver);
    return rc;
}

/* This node's pages to the disk: the data of MPI's writes need not be out when the file is closed. */
static int flush(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0 || fsync(fd) != 0)
        rc = error_set(ERR_FILE, "%s: cannot flush to disk: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

int state_file_fill(struct comm *c, const char *path, const struct checkpoint_item *items, int n)
{
    hid_t file = open_file(path, c->world, H5F_ACC_RDWR);
    int rc = comm_agree(c, file < 0 ? -1 : 0);
    for (int i = 0; i < n && rc == 0; i++) {
        int64_t count, first = share(&items[i], c->rank, c->size, &count);
        if (!items[i].sliced || count == 0)
            continue;
        hid_t set = open_item(path, file, &items[i]);
        if (set < 0) {
            rc = -1;
            break;
        }
        rc = move_slab(path, items[i].name, set, items[i].type, element(&items[i], first), first,
                       count, c->chunk_bytes, true);
        H5Dclose(set);
    }
    rc = close_file(path, file, rc);
    if (rc == 0)
        rc = flush(path);
    return comm_agree(c, rc);
}

/* -- reading -------------------------------------------------------------------------------------- */

static int verify_item(const char *path, hid_t file, const struct checkpoint_item *item,
                       int64_t first, int64_t n, void *buffer)
{
    hid_t set = open_item(path, file, item);
    if (set < 0)
        return -1;
    size_t width = checkpoint_type_bytes(item->type);
    int64_t most = (int64_t)(VERIFY_BYTES / width);
    int rc = 0;
    for (int64_t done = 0; done < n && rc == 0; done += most) {
        int64_t k = n - done < most ? n - done : most;
        rc = move_slab(path, item->name, set, item->type, buffer, first + done, k, VERIFY_BYTES,
                       false);
        if (rc == 0 && memcmp(buffer, element(item, first + done), (size_t)k * width) != 0)
            rc = error_set(ERR_FILE, "%s: %s: what was read back differs from what was written",
                           path, item->name);
    }
    H5Dclose(set);
    return rc;
}

int state_file_verify(struct comm *c, const char *path, const struct checkpoint_item *items, int n)
{
    void *buffer = malloc(VERIFY_BYTES);
    CHECK(buffer, "out of memory");
    hid_t file = open_file(path, MPI_COMM_SELF, H5F_ACC_RDONLY);
    int rc = file < 0 ? -1 : 0, next = (c->rank + 1) % c->size;
    for (int i = 0; i < n && rc == 0; i++) {
        int64_t count, first = share(&items[i], next, c->size, &count);
        rc = verify_item(path, file, &items[i], first, count, buffer);
    }
    rc = close_file(path, file, rc);
    free(buffer);
    return comm_agree(c, rc);
}

int state_file_read(struct comm *c, const char *path, const struct checkpoint_item *items, int n)
{
    hid_t file = open_file(path, MPI_COMM_SELF, H5F_ACC_RDONLY);
    int rc = file < 0 ? -1 : 0;
    for (int i = 0; i < n && rc == 0; i++) {
        hid_t set = open_item(path, file, &items[i]);
        if (set < 0) {
            rc = -1;
            break;
        }
        int64_t count, first = share(&items[i], c->rank, c->size, &count);
        rc = move_slab(path, items[i].name, set, items[i].type, element(&items[i], first), first,
                       count, c->chunk_bytes, false);
        H5Dclose(set);
    }
    rc = comm_agree(c, close_file(path, file, rc));
    for (int i = 0; i < n && rc == 0; i++)
        for (int r = 0; r < (items[i].sliced ? c->size : 1); r++) {
            int64_t count, first = share(&items[i], r, c->size, &count);
            size_t width = checkpoint_type_bytes(items[i].type);
            comm_broadcast(c, element(&items[i], first), (size_t)count * width, r);
        }
    return rc;
}

void state_file_describe_library(struct text *out)
{
    unsigned major, minor, release;
    H5get_libversion(&major, &minor, &release);
    text_format(out, "%u.%u.%u", major, minor, release);
}

int state_file_read_bytes(const char *path, const char *name, struct text *out)
{
    text_clear(out);
    hid_t file = open_file(path, MPI_COMM_SELF, H5F_ACC_RDONLY);
    if (file < 0)
        return -1;
    int64_t n = -1;
    hid_t set = open_array(path, file, name, CHECKPOINT_BYTES, &n);
    int rc = set < 0 ? -1 : 0;
    if (rc == 0 && n > 0) {
        char *bytes = malloc((size_t)n);
        if (!bytes)
            rc =
                error_set(ERR_SYSTEM, "%s: %s: no memory for %lld bytes", path, name, (long long)n);
        else
            rc = move_slab(path, name, set, CHECKPOINT_BYTES, bytes, 0, n, VERIFY_BYTES, false);
        if (rc == 0)
            text_add(out, bytes, (size_t)n);
        free(bytes);
    }
    if (set >= 0)
        H5Dclose(set);
    return close_file(path, file, rc);
}
