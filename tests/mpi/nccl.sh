#!/bin/sh
# Sums over ranks on the device, on the shim: exact; two ranks on one device are refused, or sum on the host; the same PPO run on one
# rank, on two that sum on their devices and on two that share one.
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
. "$srcdir/tests/mpi/shim.sh"
ppo_program=$program

program=$(dirname "$program")/tests/mpi/reduce_test
for n in 1 2 4; do
    ranks $n "$program" sums || fail "sums on $n ranks"
done
ranks 2 env RLHF_SHIM_LAZY=1 "$program" sums || fail "sums on streams that lag behind"
RLHF_SHIM_UUID=one; export RLHF_SHIM_UUID
ranks 2 "$program" shared || fail "sums of ranks that share a device"
ends 2 sums 2 'ranks 0, 1 on .* take the same device, GPU-[0-9a-f]*: .*run.share_device = true.*'

program=$ppo_program
small="-s run.device=cuda -s run.max_steps=1 -s run.sample_steps=1 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s generate.max_new_tokens=[3,8]"
ppo shared 2 $small -s run.share_device=true || { cat "$work/shared.log"; fail "PPO on a shared device"; }
unset RLHF_SHIM_UUID
ppo one 1 $small || { cat "$work/one.log"; fail "PPO on one rank"; }
ppo two 2 $small || { cat "$work/two.log"; fail "PPO on two ranks"; }
grep -q 'they sum gradients among themselves' "$work/two.log" || fail "two ranks: no sums on the device"
grep -q 'the host sums gradients' "$work/shared.log" || fail "a shared device: sums on it"
same one two
same one shared
