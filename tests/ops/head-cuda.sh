#!/bin/sh
# tests/ops/head on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/head
