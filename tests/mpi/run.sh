# Sourced by the scripts here: how to start ranks, and where to write.
# ranks N PROGRAM ARG..: runs it on N ranks.
set -u
case ${MPIEXEC:-no} in no) echo "skipped: no mpirun"; exit 77;; esac
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

# ends N MODE CODE LINE: the mode on N ranks exits with the code; its one line is LINE (a basic regular expression)
ends()
{
    before=$(date +%s)
    if [ "$1" = alone ]; then "$program" "$2" 2>"$work/err"; else ranks "$1" "$program" "$2" 2>"$work/err"; fi
    code=$?
    took=$(($(date +%s) - before))
    [ $code -eq "$3" ] || { cat "$work/err"; fail "$2 on $1: exit code $code"; }
    [ $took -lt 20 ] || fail "$2 on $1: took $took s"
    [ "$(grep -c '^rlhf-hpc:' "$work/err")" -eq 1 ] || { cat "$work/err"; fail "$2 on $1: not one line"; }
    grep -q "^rlhf-hpc: $4\$" "$work/err" || { cat "$work/err"; fail "$2 on $1: other line"; }
}
