#!/bin/sh
# tests/ops/activation on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/activation
