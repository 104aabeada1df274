#!/bin/sh
# A reward program that hangs for longer than run.hang_timeout ends all ranks with one line that says where; one that is slow
# but answers, on one rank while the other waits for longer than the limit, does not.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/rlhf-hpc
cd "$srcdir" || exit 1

# ppo NAME COMMAND: one step on two ranks with this reward program
ppo()
{
    ranks 2 "$program" input/tiny-ppo.cfg -s run.output_dir="$work/$1" -s run.max_steps=1 -s run.hang_timeout=2 -s run.threads=1 \
        -s ppo.batch_size=16 -s ppo.mini_batch_size=8 -s ppo.ppo_epochs=1 -s reward.0.type=program -s reward.0.command="$2" \
        -s reward.0.timeout=60 >"$work/$1.out" 2>"$work/$1.err"
}

ppo hangs 'while read -r line; do n=$((n + 1)); [ $n -lt 3 ] || sleep 30; echo 1; done'
code=$?
[ $code -eq 1 ] || { cat "$work/hangs.err"; fail "a hanging reward program: exit code $code"; }
[ "$(grep -c '^rlhf-hpc:' "$work/hangs.err")" -eq 1 ] || { cat "$work/hangs.err"; fail "not one line"; }
grep -q '^rlhf-hpc: rank [01]: no progress for 2 s in phase reward of step 1 (run.hang_timeout)$' "$work/hangs.err" ||
    { cat "$work/hangs.err"; fail "other line"; }

cat >"$work/slow.sh" <<'END'
while read -r line; do
    [ "$OMPI_COMM_WORLD_RANK" != 0 ] || sleep 0.55
    echo 1
done
END
ppo slow "sh $work/slow.sh" || { cat "$work/slow.err"; fail "a slow reward program was taken for a hanging one"; }
