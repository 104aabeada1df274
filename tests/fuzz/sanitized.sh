#!/usr/bin/env bash
# All malformed files, and damaged input for every reader, under AddressSanitizer and UBSan, in a build of its own.
#   tests/fuzz/sanitized.sh [BUILD]   from the source tree; BUILD (build-sanitized) is kept for the next time
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$PWD build=${1:-$PWD/build-sanitized}
mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$source/configure" -q --enable-sanitizers --without-cuda
make -s -j"$(nproc)"
make -s tests/fuzz/fuzz
# what MPI and its helpers leave at exit is theirs
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 srcdir=$source builddir=$build
tests/fuzz/fuzz all 3000
"$source/tests/cli/malformed.sh" 1
