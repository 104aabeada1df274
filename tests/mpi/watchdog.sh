#!/bin/sh
# A rank that makes no progress ends the run with one line; a process that was stopped and goes on does not.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/comm_test

ends alone hang 1 'no progress for 1 s in phase rollout of step 7 (run.hang_timeout)'
ends 2 hang 1 'rank 1: no progress for 1 s in phase rollout of step 7 (run.hang_timeout)'
ends 4 hang 1 'rank 3: no progress for 1 s in phase rollout of step 7 (run.hang_timeout)'
"$program" stop || fail "the watchdog took a stopped process for a hanging one"
