#!/bin/sh
# Ranks, agreement, broadcast, gathering, sums, shared memory, threads: at 1, 2 and 4 ranks; and without mpirun.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/comm_test

"$program" all "$work/gather" || fail "alone, without mpirun"
[ -s "$work/gather" ] || fail "nothing was gathered"
for n in 1 2 4; do
    ranks $n "$program" all "$work/gather.$n" || fail "$n ranks"
    cmp "$work/gather" "$work/gather.$n" || fail "gathered records depend on the number of ranks"
done
