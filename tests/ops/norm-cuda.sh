#!/bin/sh
# tests/ops/norm on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/norm
