#!/bin/sh
# A sum on the device in which a rank dies, hangs or sees an error: all ranks end within the timeout, with one line.
. "$srcdir/tests/mpi/run.sh"
. "$srcdir/tests/mpi/shim.sh"
program=$builddir/tests/mpi/reduce_test

# fault WHAT LINE: the fault ends 3 ranks
fault()
{
    RLHF_SHIM_NCCL=$1; export RLHF_SHIM_NCCL
    ends 3 fault 1 "$2"
}
error='NCCL: remote process exited .*: shim: told to fail'
late='nothing for 1 s (run.hang_timeout): a rank has left or hangs'
fault async:1:2 "rank 1: the sum of the gradients: $error"
fault async:2:0 "rank 2: joining the group that sums over ranks: $error"
fault hang:1:2 "rank [012]: the sum of the gradients: $late"
fault hang:0:0 "rank [012]: joining the group that sums over ranks: $late"

# mpirun says that a rank died, and ends the others; one of them may have spoken before
RLHF_SHIM_NCCL=die:1:2
! timeout 20 "$MPIEXEC" -np 3 "$program" fault 2>"$work/err" || fail "a rank died, and mpirun returned 0"
grep -q 'non-zero' "$work/err" || { cat "$work/err"; fail "mpirun does not say that a rank died"; }
[ "$(grep -c '^rlhf-hpc:' "$work/err")" -le 1 ] || { cat "$work/err"; fail "a line of each rank that is left"; }

# a launcher that leaves the others alone: one of them speaks
timeout 20 "$MPIEXEC" --enable-recovery -np 3 "$program" fault 2>"$work/err"
[ $? -ne 124 ] || fail "ranks wait for ever for one that died"
[ "$(grep -c '^rlhf-hpc:' "$work/err")" -eq 1 ] && grep -q "^rlhf-hpc: rank [02]: the sum of the gradients: $late\$" "$work/err" ||
    { cat "$work/err"; fail "not one line of those that are left"; }
