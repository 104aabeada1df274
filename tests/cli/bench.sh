#!/bin/sh
# --bench on an input whose data, rewards and output folder do not exist: a line of JSON with all phases, nothing written.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/rlhf-hpc
cd "$srcdir" || exit 1
for n in 1 2; do
    ranks $n "$program" --bench tests/bench/torch-1M.cfg -s run.max_steps=2 -s run.output_dir="$work/none" -s run.threads=1 \
        >"$work/out" 2>"$work/err" || { cat "$work/err"; fail "bench at $n ranks"; }
    for phase in generate logprobs forward backward step; do
        tail -n 1 "$work/out" | grep -q "^{\"bench\":\"ppo\",\"ranks\":$n,.*\"$phase\":{\"min_sec\":[0-9]" ||
            fail "no $phase at $n ranks"
    done
    for pass in prefill "decode 1" "decode $((8 / n))" log-probs training update; do
        tail -n 1 "$work/out" | grep -q "\"$pass\":{\"tokens\":[0-9]*,\"sec\":[0-9.e-]*,\"bytes\":[0-9.e]*,\"operations\":[0-9.e]*" ||
            fail "no pass $pass at $n ranks"
    done
    tail -n 1 "$work/out" | grep -q '"sum_gradients":{"sec":' # only where there is something to send
    [ $? -eq $((n == 1)) ] || fail "communication at $n ranks"
done
[ ! -e "$work/none" ] || fail "an output folder was made"
ranks 1 "$program" --bench input/tiny/pretrain.cfg >"$work/out" 2>"$work/err" && fail "bench of pretrain"
grep -q "^rlhf-hpc: --bench times task = \"ppo\"" "$work/err" || { cat "$work/err"; fail "other refusal"; }
