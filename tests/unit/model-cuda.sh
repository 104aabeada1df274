#!/bin/sh
# tests/unit/model on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/model
