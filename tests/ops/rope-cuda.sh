#!/bin/sh
# tests/ops/rope on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/rope
