#!/bin/sh
# tests/ops/linear_backward on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/linear_backward
