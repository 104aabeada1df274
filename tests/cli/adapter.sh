#!/bin/sh
# Adapter folders with missing or mis-shaped files.
. "$srcdir/tests/cli/expect.sh"
model=$work/model adapter=$work/adapter
source=tests/reference/llama-gqa/adapter
mkdir "$model"
cp tests/reference/llama-gqa/config.json tests/reference/llama-gqa/model.safetensors "$model"
cp tests/fuzz/seeds/metaspace.json "$model/tokenizer.json"
echo '{"text": "a film"}' >"$work/data.jsonl"
cat >"$work/input.cfg" <<EOF
task = "evaluate";
model: { path = "$model"; adapter = "$adapter"; };
data: { path = "$work/data.jsonl"; };
run: { output_dir = "$out"; };
EOF

fresh()
{
    rm -rf "$adapter"
    cp -r $source "$adapter"
}

# config EDIT TEXT: adapter_config.json changed by a sed command is refused with the text
config()
{
    fresh
    sed "$1" $source/adapter_config.json >"$adapter/adapter_config.json"
    refused 1 "$2" "$work/input.cfg"
}

refused_on_two 1 'adapter_config.json: cannot open' "$work/input.cfg"
fresh
"$program" "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; echo "the sound adapter is refused"; exit 1; }
rm -rf "$out" "$adapter/adapter_model.safetensors"
refused_on_two 1 'adapter_model.safetensors: cannot open' "$work/input.cfg"
config 's/"r": [0-9]*/"r": 5/' 'must be [5, '
config 's/"r": [0-9]*/"r": 0/' 'r is not a whole number from 1 to 4096'
config 's/"r": [0-9]*/"r": "4"/' 'r is not a whole number from 1 to 4096'
config 's/"lora_alpha": [0-9.]*/"lora_alpha": -1/' 'lora_alpha is not a number above 0'
config '/loftq_config/d; s/"target_modules": \[/"target_modules": ["nothing"], "loftq_config": [/' 'match no linear layer of llama'
config '/loftq_config/d; s/"target_modules": \[/"target_modules": "(a+", "loftq_config": [/' "'(a+' is not a regular expression"
config 's/"peft_type": "LORA"/"peft_type": "IA3"/' 'IA3 is not supported'
config 's/"use_dora": false/"use_dora": true/' 'use_dora (DoRA) is not supported'
config '5,$d' 'not JSON'
fresh; head -c 2000 $source/adapter_model.safetensors >"$adapter/adapter_model.safetensors"
refused 1 'cut short' "$work/input.cfg"
fresh; sed 's/layers.0.self_attn/layers.9.self_attn/' $source/adapter_model.safetensors >"$adapter/adapter_model.safetensors"
refused_on_two 1 'is missing' "$work/input.cfg"
# a key of a later PEFT is warned about where it is set, and only there
fresh
sed 's/"use_dora": false/"use_dora": false, "later_key": 3, "other_key": null, "third_key": false, "fourth_key": []/' \
    $source/adapter_config.json >"$adapter/adapter_config.json"
"$program" "$work/input.cfg" >"$work/stdout" 2>"$work/stderr" || { cat "$work/stderr"; failed=1; }
[ "$(grep -c 'is not known here' "$work/stderr")" -eq 1 ] && grep -q 'later_key is not known here' "$work/stderr" ||
    { cat "$work/stderr"; echo "warnings about keys"; failed=1; }
rm -rf "$out"
# ranks above what a layer takes; a tensor of another type
config 's/"rank_pattern": {}/"rank_pattern": {"q_proj": 3}/' 'q_proj.lora_A.weight is [4, '
fresh; sed 's/"dtype":"F32"/"dtype":"I32"/' $source/adapter_model.safetensors >"$adapter/adapter_model.safetensors"
refused 1 'has dtype I32, not F32, F16 or BF16' "$work/input.cfg"
refused 2 'an adapter of rank 40 on ' -s task=sft -s model.adapter= -s lora.r=40 "$work/input.cfg"
exit $failed
