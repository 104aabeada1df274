# Sourced by the scripts here: how to start ranks, and where to write.
# ranks N PROGRAM ARG..: runs it on N ranks.
set -u
case ${MPIEXEC:-no} in no) echo "skipped: no mpirun"; exit 77;; esac
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}; export ASAN_OPTIONS
work=$(mktemp -d "${TMPDIR:-/tmp}/rlhf-hpc-test.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 99' INT TERM

ranks()
{
    n=$1; shift
    "$MPIEXEC" -np "$n" "$@"
}

fail()
{
    echo "FAILED: $*"
    exit 1
}
