/* An HDF5 file driver over POSIX calls whose writes never fail: the first error sticks, and is asked for at the end.
 *
 * For making a file. HDF5 1.10 crashes when it ends if H5Fclose could not write what it had cached (disk full); so it
 * is told that all went well, and the caller throws the file away.
 */
#ifndef RLHF_MPI_LAYOUT_DRIVER_H
#define RLHF_MPI_LAYOUT_DRIVER_H

#include <hdf5.h>

/* Registers the driver; H5FDunregister when no file of it is open. Negative on failure. */
hid_t layout_driver_register(void);

/* Sets it for files to be made with this access list. *error, 0 or an errno, is written until the file is closed. */
herr_t layout_driver_set(hid_t access, hid_t driver, int *error);

#endif
