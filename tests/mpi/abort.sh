#!/bin/sh
# Whatever ends a run, and on whichever rank: all ranks end within 5 s, with our exit code and one line of ours.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/comm_test

ends alone agree 1 'x.jsonl:7: bad'
ends alone abort-one 1 'the end, says one'
ends alone check 1 'internal error at .*: broken on the last rank'
ends alone twice 1 'internal error at .*: record 5 was gathered twice'
ends 2 agree 1 'rank 1: x.jsonl:7: bad'
ends 2 abort-one 1 'the end, says one'
ends 4 agree 1 'rank 3: x.jsonl:7: bad'
ends 4 abort-one 1 'the end, says one'
ends 4 abort-all 1 'the end, say all'
ends 4 check 1 'internal error at .*: broken on the last rank'
ends 4 check-all 1 'internal error at .*: broken everywhere'
ends 4 mpi-error 1 'rank 3: communication failed: .*'
