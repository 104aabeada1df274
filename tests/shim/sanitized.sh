#!/usr/bin/env bash
# The CUDA module under AddressSanitizer and UBSan, in a build of its own: its operations, models of every family, sums over ranks, and
# a PPO run, all through tests/shim, where memory of the device is poisoned when given and each allocation ends where it ends.
#   tests/shim/sanitized.sh [BUILD]   from the source tree; BUILD (build-sanitized) is kept for the next time
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-$PWD/build-sanitized}
mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$OLDPWD/configure" -q --enable-sanitizers --without-cuda
make -s -j"$(nproc)"
# what MPI and its helpers leave at exit is theirs
export ASAN_OPTIONS=detect_leaks=0
make -s -j"$(nproc)" check TESTS="$(cd "$OLDPWD" && echo tests/ops/*-cuda.sh tests/unit/*-cuda.sh) tests/shim/selftest tests/mpi/nccl.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 LD_LIBRARY_PATH=$build/tests/shim
for options in model.quantization=none model.matmul=dequant model.matmul=llm.int8; do
    rm -rf run
    (cd "$OLDPWD" && "$build/rlhf-hpc" -s run.device=cuda -s $options -s run.max_steps=2 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 \
        -s ppo.ppo_epochs=1 -s 'generate.max_new_tokens=[4, 9]' -s run.output_dir="$build/run" input/tiny-ppo.cfg)
done
