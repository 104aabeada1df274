#!/bin/sh
# tests/unit/generate on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/generate
