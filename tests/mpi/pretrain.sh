#!/bin/sh
# Pretraining: 20 steps at once, and 9 steps continued on another number of ranks, end with the same model and metrics.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/rlhf-hpc
cd "$srcdir" || exit 1

# pretrain NAME RANKS STEPS OPTIONS..
pretrain()
{
    name=$1 n=$2 steps=$3
    shift 3
    ranks $n "$program" input/tiny/pretrain.cfg -s run.output_dir="$work/$name" -s run.max_steps=$steps \
        -s data.path=input/tiny/prompts.jsonl -s data.text_field=prompt -s pretrain.tokenizer=input/tiny -s pretrain.batch_size=6 -s pretrain.block_size=24 \
        -s run.threads=1 -s optim.lr_scheduler_type=constant_with_warmup -s optim.warmup_steps=12 "$@" >"$work/$name.out" 2>&1 ||
        { cat "$work/$name.out"; fail "$name at $n ranks"; }
}

pretrain straight 1 20
pretrain parts 2 9 -s run.save_steps=4
[ -f "$work/parts/checkpoint-9/state.h5" ] || fail "no checkpoint at the end"
pretrain parts 4 20 --resume
grep -q "^continuing from .*/checkpoint-9$" "$work/parts.out" || { cat "$work/parts.out"; fail "it began anew"; }
for file in model.safetensors config.json tokenizer.json; do
    cmp "$work/straight/model/$file" "$work/parts/model/$file" || fail "$file differs"
done
for name in straight parts; do
    sed 's/, "time\/.*//' "$work/$name/metrics.jsonl" >"$work/$name.numbers"
done
[ "$(wc -l <"$work/straight.numbers")" -eq 20 ] || fail "not a line a step"
cmp "$work/straight.numbers" "$work/parts.numbers" || fail "metrics differ"
ranks 1 "$program" input/tiny/pretrain.cfg -s run.output_dir="$work/parts" >"$work/again" 2>&1 &&
    fail "a finished run was overwritten"
grep -q 'continue it with --resume' "$work/again" || { cat "$work/again"; fail "other refusal"; }
