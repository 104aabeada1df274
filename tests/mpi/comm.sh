#!/bin/sh
# Ranks, agreement, broadcast, gathering, sums, shared memory, threads: at 1, 2 and 4 ranks; and without mpirun.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/comm_test

"$program" all || fail "alone, without mpirun"
for n in 1 2 4; do
    ranks $n "$program" all || fail "$n ranks"
    ranks $n "$program" gather "$work/gather.$n" || fail "gather on $n ranks"
    cmp "$work/gather.1" "$work/gather.$n" || fail "gathered records depend on the number of ranks"
done
[ -s "$work/gather.1" ] || fail "nothing was gathered"
