#!/bin/sh
# tests/ops/embed on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/embed
