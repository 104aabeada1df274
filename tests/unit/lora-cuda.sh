#!/bin/sh
# tests/unit/lora on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/lora
