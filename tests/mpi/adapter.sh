#!/bin/sh
# PPO from a PEFT folder: its r, alpha, modules and rslora serve the run and what it writes, whatever lora.* says; the value head
# beside it is taken up; the reference is the policy at the start, the model without adapters, or another folder.
. "${srcdir:-.}/tests/mpi/run.sh"
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 99

# ppo NAME RANKS STEPS OPTIONS..
ppo()
{
    name=$1 n=$2 steps=$3
    shift 3
    ranks "$n" "$program" -s run.output_dir="$work/$name" -s run.max_steps="$steps" -s run.threads=1 -s ppo.batch_size=8 \
        -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s generate.max_new_tokens=6 "$@" input/tiny-ppo.cfg \
        >"$work/$name.log" 2>&1 || { cat "$work/$name.log"; fail "$name"; }
}

ppo first 1 2 -s lora.r=3 -s lora.lora_alpha=5 -s lora.use_rslora=true -s 'lora.target_modules=["query_key_value","dense_4h_to_h"]'
grep -q '"use_rslora": true' "$work/first/adapter/adapter_config.json" || fail "the first adapter is not as asked for"

# a learning rate of 0 leaves what was read: adapter, value head and configuration are written as they were
ppo still 2 1 -s model.adapter="$work/first/adapter" -s optim.learning_rate=0
for file in adapter_config.json adapter_model.safetensors model.safetensors; do
    cmp "$work/first/adapter/$file" "$work/still/adapter/$file" || fail "$file is not what was read"
    cmp "$work/first/adapter/$file" "$work/still/checkpoint-1/adapter/$file" || fail "$file of the checkpoint"
done
grep -q 'r 3, lora_alpha 5, rslora; not used: lora.r = 16, lora.lora_alpha = 32' "$work/still.log" ||
    fail "the log does not say whose r it is"
grep -q 'value head: from beside' "$work/still.log" || fail "the log does not tell of the value head"

# the policy starts at the reference, unless that is the model without the adapter
kl='"objective/kl": 0,'
grep -q "$kl" "$work/still/metrics.jsonl" || fail "the KL to the policy at the start is not 0"
ppo base 1 1 -s model.adapter="$work/first/adapter" -s model.ref_adapter=none -s optim.learning_rate=0
grep -q "$kl" "$work/base/metrics.jsonl" && fail "the KL of an adapted policy to the base is 0"
cmp "$work/first/adapter/adapter_model.safetensors" "$work/base/adapter/adapter_model.safetensors" || fail "the policy is not what was read"

# it stays there while the policy moves: the folder as reference says the same as the start, on any number of ranks
moving='-s optim.learning_rate=0.01 -s run.max_steps=2 -s ppo.ppo_epochs=2'
ppo start 1 2 -s model.adapter="$work/first/adapter" $moving
ppo folder 2 2 -s model.adapter="$work/first/adapter" -s model.ref_adapter="$work/first/adapter" $moving
tail -n 1 "$work/start/metrics.jsonl" | grep -q "$kl" && fail "the reference follows the policy"
for file in adapter_model.safetensors model.safetensors; do
    cmp "$work/start/adapter/$file" "$work/folder/adapter/$file" || fail "$file depends on how the reference was given"
done

# an evaluation is told which
evaluate()
{
    name=$1
    shift
    "$program" -s task=evaluate -s run.output_dir="$work/$name" -s model.adapter="$work/first/adapter" -s generate.max_new_tokens=4 "$@" \
        -s data.path=input/tiny/prompts.heldout.jsonl -s run.threads=1 input/tiny-ppo.cfg >"$work/$name.log" 2>&1 ||
        { cat "$work/$name.log"; fail "$name"; }
}
evaluate against_base
evaluate against_itself -s model.ref_adapter="$work/first/adapter"
grep -q '"kl": 0\.0[,}]' "$work/against_itself/evaluate.json" || fail "the KL of a policy to itself is not 0"
grep -q '"kl": 0\.0[,}]' "$work/against_base/evaluate.json" && fail "the KL of an adapter to the base is 0"
ppo fresh 1 1
grep -q "$kl" "$work/fresh/metrics.jsonl" || fail "the KL of a new adapter is not 0"

# without a value head beside it a new one starts; the adapter is still the one that was read
mkdir "$work/bare"
cp "$work/first/adapter/"adapter_* "$work/bare"
ppo bare_run 1 1 -s model.adapter="$work/bare" -s optim.learning_rate=0
cmp "$work/first/adapter/adapter_model.safetensors" "$work/bare_run/adapter/adapter_model.safetensors" || fail "bare adapter"
cmp -s "$work/first/adapter/model.safetensors" "$work/bare_run/adapter/model.safetensors" && fail "a value head from nowhere"
exit 0
