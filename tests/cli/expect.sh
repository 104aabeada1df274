# Sourced by the scripts here: wrong inputs must end in one clear line from one rank, and leave nothing behind.
# RANKS=2 runs all of it on two ranks; by default only what is marked so.
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 99
work=$(mktemp -d "${TMPDIR:-/tmp}/rlhf-hpc-test.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 99' INT TERM
out=$work/out
failed=0

# refused CODE TEXT ARG..: the program exits with the code, with one message on stderr, which holds the text; no $out is left.
# mpirun adds lines of its own about the exit code.
refused()
{
    code=$1 text=$2
    shift 2
    if [ "${RANKS:-1}" = 1 ]; then
        timeout 60 "$program" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    else
        timeout 60 "$MPIEXEC" -np "$RANKS" "$program" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    fi
    rc=$?
    lines=$(grep -c '^rlhf-hpc: ' "$work/stderr")
    [ $rc -eq "$code" ] && [ "$lines" -eq 1 ] && [ ! -e "$out" ] && grep '^rlhf-hpc: ' "$work/stderr" | grep -qF -- "$text" && return
    echo "exit $rc (want $code), $lines messages, looking for '$text': $*"
    [ ! -e "$out" ] || echo "$out was left behind"
    head -n 20 "$work/stderr"
    rm -rf "$out"
    failed=1
}

# The same on two ranks, where there is an mpirun.
refused_on_two()
{
    [ "${MPIEXEC:-no}" = no ] || RANKS=2 refused "$@"
}
