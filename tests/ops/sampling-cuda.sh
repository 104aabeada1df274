#!/bin/sh
# tests/ops/sampling on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/sampling
