#!/bin/sh
# Any damaged byte of a checkpoint makes the older one the newest; a killed write leaves nothing visible.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/tests/mpi/checkpoint_test

"$program" damage "$work/damage" || fail "damage"

ranks 4 "$program" write "$work/run" 5 || fail "write"
ranks 4 "$program" die "$work/run" 6 2>/dev/null && fail "the killed write ended well"
[ "$(ls "$work/run")" = checkpoint-5 ] || fail "a killed write is visible"
ranks 2 "$program" read "$work/run" 5 || fail "read after a killed write"
ranks 2 "$program" write "$work/run" 6 || fail "write over what a killed write left"
ranks 2 "$program" read "$work/run" 6 || fail "read"

for msec in 120 310; do
    ranks 2 "$program" until-killed "$work/killed" $msec >/dev/null 2>&1 && fail "was not killed"
    [ -d "$work/killed" ] || continue
    newest=$(ls "$work/killed" | sed 's/checkpoint-//' | sort -n | tail -n 1)
    found=$(ranks 1 "$program" newest "$work/killed") || fail "read after a kill at $msec ms"
    [ "$found" = "${newest:--1}" ] || fail "newest is $newest, found $found"
    rm -rf "$work/killed"
done
