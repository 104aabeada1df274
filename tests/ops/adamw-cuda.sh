#!/bin/sh
# tests/ops/adamw on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" ops/adamw
