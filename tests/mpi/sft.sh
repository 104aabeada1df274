#!/bin/sh
# Supervised fine-tuning: the same bits whatever the ranks, threads and micro-batches, in every numeric mode, of packed texts and
# of completions; epochs, evaluations, the best adapter, a run that goes on from an adapter.
#
#   tests/mpi/sft.sh [MODE..]    numeric modes of none, dequant, llm.int8 (default all)
. "${srcdir:-.}/tests/mpi/sft_runs.sh"

# value NAME STEP KEY: a number of a line of metrics.jsonl
value() {
    sed -n "s|^{\"step\": $2, .*\"$3\": \([^,}]*\).*|\1|p" "$work/$1/metrics.jsonl"
}

# variant DATA MODE RANKS THREADS MICRO_BATCH: one run of 3 steps, compared with the first of its data and mode
variant() {
    name=$1-$2-np$3-threads$4-micro$5
    "$1" "$name" "$3" $(mode "$2") -s run.max_steps=3 -s run.eval_steps=2 -s run.save_steps=0 -s run.threads="$4" \
        -s sft.micro_batch_size="$5" || { cat "$work/$name.log"; fail "$name"; }
    if [ "$3" = 1 ]; then
        first=$name
        [ "$(numbers "$name" | sort -u | wc -l)" -eq 4 ] || fail "$name: steps with equal numbers"
    else
        equal "$first" "$name" $files
    fi
}

[ $# -gt 0 ] || set -- none dequant llm.int8
for mode in "$@"; do
    for data in texts completions; do
        variant $data "$mode" 1 1 0
        [ $data = completions ] && [ "$mode" != llm.int8 ] || variant $data "$mode" 2 2 1
        [ $data = texts ] || variant $data "$mode" 4 1 3
        echo "$data, $mode: equal bits; adapters $(sha256sum <"$work/$first/adapter/adapter_model.safetensors" | cut -c1-16)"
    done
done

# 20 examples in batches of 8, one epoch and a half: 4 steps, the last of 6 examples
completions epochs 2 -s run.max_steps=0 -s sft.num_train_epochs=1.5 -s optim.learning_rate=2e-3 -s run.threads=1 ||
    { cat "$work/epochs.log"; fail "epochs"; }
[ "$(value epochs 4 epoch)" = 1.5 ] || fail "the last step is not the end of epoch 1.5: $(value epochs 4 epoch)"
[ -z "$(value epochs 5 loss)" ] || fail "more than 4 steps"
for step in 0 4; do
    [ -n "$(value epochs $step eval/perplexity)" ] || fail "no evaluation after step $step"
done
[ -z "$(value epochs 2 eval/loss)" ] || fail "an evaluation that was not asked for"
awk -v a="$(value epochs 4 eval/loss)" -v b="$(value epochs 0 eval/loss)" 'BEGIN { exit !(a < b - 0.005) }' ||
    fail "the held-out loss did not fall: $(value epochs 0 eval/loss), then $(value epochs 4 eval/loss)"
cmp "$work/epochs/adapter/adapter_model.safetensors" "$work/epochs/adapter-best/adapter_model.safetensors" ||
    fail "the last adapter is not the best"
grep -q 'the first, [0-9]* tokens, of which the last [0-9]*, behind |, are to be learnt.* |.*«<|endoftext|>»$' "$work/epochs.log" ||
    { cat "$work/epochs.log"; fail "the first example is not shown"; }

# on from that adapter, at a rate that makes it worse: what was best stays
completions worse 1 -s model.adapter="$work/epochs/adapter" -s run.max_steps=2 -s run.eval_steps=1 -s optim.learning_rate=1 \
    -s optim.max_grad_norm=none || { cat "$work/worse.log"; fail "from an adapter"; }
[ "$(value worse 0 eval/loss)" = "$(value epochs 4 eval/loss)" ] || fail "the adapter is not where the other run left it"
cmp "$work/worse/adapter-best/adapter_model.safetensors" "$work/epochs/adapter/adapter_model.safetensors" ||
    fail "the best adapter is not the one it began with"
awk -v a="$(value worse 2 eval/loss)" -v b="$(value worse 0 eval/loss)" 'BEGIN { exit !(a > b) }' || fail "it did not get worse"

# a rate that blows the adapters up: the run stops, or leaves the updates out and goes on
set -- -s optim.learning_rate=1000 -s optim.max_grad_norm=none -s run.max_steps=5 -s run.save_steps=1
completions stops 2 "$@" && fail "a loss that is not finite did not stop the run"
grep -q '^rlhf-hpc: step [2-5]: the .* is not finite.*; the last checkpoint is intact' "$work/stops.log" ||
    { cat "$work/stops.log"; fail "another end"; }
completions skips 2 "$@" -s run.on_nan=skip || { cat "$work/skips.log"; fail "run.on_nan = skip"; }
grep -q 'update skipped: the .* is not finite' "$work/skips.log" || fail "no update was skipped"

completions planned 2 --plan >/dev/null 2>&1 || { cat "$work/planned.log"; fail "--plan"; }
[ ! -e "$work/planned" ] || fail "--plan left a folder"
exit 0
