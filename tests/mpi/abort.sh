#!/bin/sh
# Whatever ends a run, and on whichever rank: all ranks end within 5 s, with our exit code and one line of ours.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/comm_test

# ends N MODE CODE LINE: the mode on N ranks exits with the code; its one line is LINE (a basic regular expression)
ends()
{
    before=$(date +%s)
    if [ "$1" = alone ]; then "$program" "$2" 2>"$work/err"; else ranks "$1" "$program" "$2" 2>"$work/err"; fi
    code=$?
    took=$(($(date +%s) - before))
    [ $code -eq "$3" ] || { cat "$work/err"; fail "$2 on $1: exit code $code"; }
    [ $took -lt 5 ] || fail "$2 on $1: took $took s"
    [ "$(grep -c '^rlhf-hpc:' "$work/err")" -eq 1 ] || { cat "$work/err"; fail "$2 on $1: not one line"; }
    grep -q "^rlhf-hpc: $4\$" "$work/err" || { cat "$work/err"; fail "$2 on $1: other line"; }
}

ends alone agree 1 'x.jsonl:7: bad'
ends alone abort-one 1 'the end, says one'
ends alone check 1 'internal error at .*: broken on the last rank'
ends alone twice 1 'internal error at .*: record 5 was gathered twice'
ends alone hang 1 'no progress for 1 s in phase rollout'
for n in 2 4; do
    last=$((n - 1))
    ends $n agree 1 "rank $last: x.jsonl:7: bad"
    ends $n abort-one 1 'the end, says one'
    ends $n abort-all 1 'the end, say all'
    ends $n check 1 'internal error at .*: broken on the last rank'
    ends $n mpi-error 1 "rank $last: communication failed: .*"
    ends $n hang 1 'rank [0-9]: no progress for 1 s in phase rollout'
done
"$program" stop || fail "the watchdog took a stopped process for a hanging one"
