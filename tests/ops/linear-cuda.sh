#!/bin/sh
# tests/ops/linear on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/linear
