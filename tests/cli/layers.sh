#!/bin/sh
# Layers: MPI and HDF5 headers in mpi/ alone, CUDA headers in cuda/ and mpi/nccl.cu alone.
cd "${srcdir:-.}" || exit 1
found=$(grep -nE '#include *[<"](mpi|hdf5|H5[A-Za-z]*)\.h' src/*.[ch] src/cpu/*.[ch] 2>/dev/null
    grep -nE '#include *[<"](cuda|cublas|nccl)' src/*.[ch] src/cpu/*.[ch] mpi/*.[ch] 2>/dev/null)
[ -z "$found" ] && exit 0
echo "headers of a lower layer where they do not belong:"
echo "$found"
exit 1
