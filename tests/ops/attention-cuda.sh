#!/bin/sh
# tests/ops/attention on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/attention
