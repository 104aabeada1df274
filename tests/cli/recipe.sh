#!/bin/sh
# The published recipe as input/neox-20b has it: each step's plan for one 24 GB GPU, on folders of the real shapes whose weights are
# holes, with a small classifier and a few reviews. The tokenizer is the embedded model's: a plan counts no vocabulary of it.
. "${srcdir:-.}/tests/cli/expect.sh"
. tests/support/sparse_model.sh
. tests/mpi/classifiers.sh
top=$PWD
build=$(cd "$(dirname "$program")" && pwd)
program=$build/rlhf-hpc

mkdir -p "$work/models/gpt-neox-20b" "$work/runs/neox-20b/sft/adapter" "$work/runs/neox-20b/merge" "$work/data/aclImdb/train/pos" \
    "$work/data/aclImdb/train/neg"
cp tests/bench/neox-20b/config.json input/tiny/tokenizer.json "$work/models/gpt-neox-20b"
neox_tensors 44 6144 24576 50432 | sparse "$work/models/gpt-neox-20b/model.safetensors" || exit 99
ln -s "$work/models/gpt-neox-20b" "$work/runs/neox-20b/merge/model"
for i in $(seq 0 43); do
    m=base_model.model.gpt_neox.layers.$i.attention.query_key_value
    echo "$m.lora_A.weight F32 16 6144"
    echo "$m.lora_B.weight F32 18432 16"
done | sparse "$work/runs/neox-20b/sft/adapter/adapter_model.safetensors" || exit 99
echo '{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "bias": "none",
"target_modules": ["query_key_value"], "base_model_name_or_path": "models/gpt-neox-20b"}' >"$work/runs/neox-20b/sft/adapter/adapter_config.json"
for i in $(seq 300); do
    for kind in pos neg; do
        awk -v i="$i" 'BEGIN { for (k = 0; k < 40; k++) printf "review number %d of a film, ", i }' >"$work/data/aclImdb/train/$kind/$i""_9.txt"
    done
done
classifier distilbert letters
ln -s "$work/distilbert-letters" "$work/models/distilbert-imdb"
sed -i 's/"good"/"POSITIVE"/g' "$work/distilbert-letters/config.json"

# planned STEP OPTION..: the plan in $work/plan, from where the recipe's paths start
planned() {
    step=$1
    shift
    (cd "$work" && "$program" --plan "$@" "$top/input/neox-20b/$step.cfg") >"$work/plan" 2>"$work/stderr" && return
    cat "$work/stderr"
    echo "no plan of $step"
    failed=1
}

# within STEP: its total is what a 24 GB card has, 22.5 GiB of which a plan may use
within() {
    total=$(sed -n 's/^  total  *\([0-9]*\) bytes.*/\1/p' "$work/plan")
    echo "$1: $total bytes; $(sed -n 's/^  longest/longest/p' "$work/plan")"
    [ "${total:-0}" -gt $((20 * 1073741824)) ] && [ "$total" -le $((45 * 1073741824 / 2)) ] && return
    cat "$work/plan"
    failed=1
}

planned merge
grep -q '^merge of 44 adapted layers' "$work/plan" && grep -q ' 41109135360 bytes' "$work/plan" || { cat "$work/plan"; failed=1; }
memory=$(sed -n 's/.*needs \([0-9]*\) bytes of memory.*/\1/p' "$work/plan")
[ "${memory:-0}" -gt 0 ] && [ "$memory" -lt 100000000 ] || { cat "$work/plan"; echo "a merge in $memory bytes"; failed=1; }
if [ -f "$build/tests/shim/rlhf-hpc-cuda.so" ]; then
    LD_LIBRARY_PATH=$build/tests/shim${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    for step in sft ppo; do
        planned $step -s run.memory_limit=22.5
        within $step
    done
    grep -q '^  reward model ' "$work/plan" || { cat "$work/plan"; echo "no line for the classifier"; failed=1; }
else
    echo "sft and ppo are not planned: no CUDA module"
fi
exit $failed
