#!/bin/sh
# tests/unit/score_task on the CUDA module
exec "$srcdir/tests/ops/cuda.sh" unit/score_task
