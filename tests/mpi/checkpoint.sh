#!/bin/sh
# Checkpoints: the same bytes on any number of ranks, read on any other number; refusals leave nothing behind.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/checkpoint_test

for n in 1 2 4; do
    ranks $n "$program" write "$work/run.$n" 40 || fail "write on $n ranks"
    for file in state.h5 MANIFEST.json adapter/adapter_config.json; do
        cmp "$work/run.1/checkpoint-40/$file" "$work/run.$n/checkpoint-40/$file" ||
            fail "$file depends on the number of ranks"
    done
    [ "$(ls -A "$work/run.$n")" = checkpoint-40 ] || fail "other files beside the checkpoint"
    [ "$(ls -A "$work/run.$n/checkpoint-40" | tr '\n' ' ')" = "MANIFEST.json adapter state.h5 " ] ||
        fail "other files in the checkpoint"
done
for n in 1 2; do
    ranks $n "$program" read "$work/run.4" 40 || fail "read on $n ranks"
done
ranks 4 "$program" read "$work/run.1" 40 || fail "read on 4 ranks"
for n in 1 2 4; do
    ranks $n "$program" refuse "$work/run.$n" || fail "refusals on $n ranks"
done
"$program" read "$work/absent" -1 || fail "no folder"
