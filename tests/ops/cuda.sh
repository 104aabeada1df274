#!/bin/sh
# cuda.sh <program>: a test program of tests/ on the CUDA module, run on the CPU by tests/shim; shapes are small, since each lane of a
# warp is run by itself.
set -eu
shim=$builddir/tests/shim
if ! test -e "$shim/rlhf-hpc-cuda.so"; then
    echo "skipped: tests/shim is not built here"
    exit 77
fi
RLHF_TEST_DEVICE=cuda RLHF_TEST_SMALL=1
LD_LIBRARY_PATH=$shim${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export RLHF_TEST_DEVICE RLHF_TEST_SMALL LD_LIBRARY_PATH
exec "$builddir/tests/$1"
