#!/bin/sh
# tests/unit/families on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/families
