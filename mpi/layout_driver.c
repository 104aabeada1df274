/* The driver: a file descriptor, the end of allocation that HDF5 keeps in it, and where to leave the first error. */
#include "layout_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct layout_file {
    H5FD_t base; /* HDF5's part, first */
    int fd, *error;
    haddr_t end_of_allocation, end_of_file;
};

struct layout_access {
    int *error;
};

static void keep_error(struct layout_file *f)
{
    if (*f->error == 0)
        *f->error = errno ? errno : EIO;
}

static H5FD_t *layout_open(const char *path, unsigned flags, hid_t access, haddr_t most)
{
    (void)most;
    const struct layout_access *info = H5Pget_driver_info(access);
    if (!info || !(flags & H5F_ACC_CREAT))
        return NULL;
    struct layout_file *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->error = info->error;
    f->fd =
        open(path, O_RDWR | O_CREAT | O_CLOEXEC | (flags & H5F_ACC_EXCL ? O_EXCL : O_TRUNC), 0666);
    if (f->fd >= 0)
        return &f->base;
    keep_error(f);
    free(f);
    return NULL;
}

static herr_t layout_close(H5FD_t *file)
{
    struct layout_file *f = (struct layout_file *)file;
    if (close(f->fd) != 0)
        keep_error(f);
    free(f);
    return 0;
}

static herr_t layout_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t layout_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct layout_file *)file)->end_of_allocation;
}

static herr_t layout_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((struct layout_file *)file)->end_of_allocation = address;
    return 0;
}

static haddr_t layout_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct layout_file *)file)->end_of_file;
}

/* Past the end of the file, and after an error, there are zeros. */
static herr_t layout_read(H5FD_t *file, H5FD_mem_t type, hid_t access, haddr_t address, size_t n,
                          void *bytes)
{
    (void)type, (void)access;
    struct layout_file *f = (struct layout_file *)file;
    char *p = bytes;
    while (n) {
        ssize_t k = pread(f->fd, p, n, (off_t)address);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            keep_error(f);
        if (k <= 0)
            break;
        p += k;
        address += (haddr_t)k;
        n -= (size_t)k;
    }
    memset(p, 0, n);
    return 0;
}

static herr_t layout_write(H5FD_t *file, H5FD_mem_t type, hid_t access, haddr_t address, size_t n,
                           const void *bytes)
{
    (void)type, (void)access;
    struct layout_file *f = (struct layout_file *)file;
    if (address + n > f->end_of_file)
        f->end_of_file = address + n;
    for (const char *p = bytes; n;) {
        errno = 0;
        ssize_t k = pwrite(f->fd, p, n, (off_t)address);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            keep_error(f);
            break;
        }
        p += k;
        address += (haddr_t)k;
        n -= (size_t)k;
    }
    return 0;
}

static herr_t layout_truncate(H5FD_t *file, hid_t access, hbool_t closing)
{
    (void)access, (void)closing;
    struct layout_file *f = (struct layout_file *)file;
    if (ftruncate(f->fd, (off_t)f->end_of_allocation) != 0)
        keep_error(f);
    f->end_of_file = f->end_of_allocation;
    return 0;
}

herr_t layout_driver_set(hid_t access, hid_t driver, int *error)
{
    *error = 0;
    return H5Pset_driver(access, driver, &(struct layout_access){error});
}

hid_t layout_driver_register(void)
{
    static const H5FD_class_t driver = {
#ifdef H5FD_CLASS_VERSION /* HDF5 1.14 */
        .version = H5FD_CLASS_VERSION,
        .value = 513, /* of those free for use without registration */
#endif
        .name = "layout",
        .maxaddr = (haddr_t)INT64_MAX,
        .fc_degree = H5F_CLOSE_WEAK,
        .fapl_size = sizeof(struct layout_access),
        .open = layout_open,
        .close = layout_close,
        .query = layout_query,
        .get_eoa = layout_get_eoa,
        .set_eoa = layout_set_eoa,
        .get_eof = layout_get_eof,
        .read = layout_read,
        .write = layout_write,
        .truncate = layout_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    return H5FDregister(&driver);
}
