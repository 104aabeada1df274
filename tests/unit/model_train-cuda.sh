#!/bin/sh
# tests/unit/model_train on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/model_train
