#!/bin/sh
# Model folders with missing, truncated or mis-shaped files.
. "$srcdir/tests/cli/expect.sh"
source=tests/reference/llama-gqa
model=$work/model
echo '{"text": "a film"}' >"$work/data.jsonl"
cat >"$work/input.cfg" <<EOF
task = "evaluate";
model: { path = "$model"; };
data: { path = "$work/data.jsonl"; };
run: { output_dir = "$out"; };
EOF

# A sound folder: a small model with a tokenizer that fits.
fresh()
{
    rm -rf "$model"
    mkdir "$model"
    cp $source/config.json $source/model.safetensors "$model"
    cp tests/fuzz/seeds/metaspace.json "$model/tokenizer.json"
}

# config EDIT TEXT: config.json changed by a sed command is refused with the text
config()
{
    fresh
    sed "$1" $source/config.json >"$model/config.json"
    refused 1 "$2" "$work/input.cfg"
}

# safetensors HEADER N_DATA [N_HEADER]: model.safetensors of this header and zeros; N_HEADER: a wrong length, 8 octal bytes
safetensors()
{
    fresh
    printf "${3:-\\$(printf %o ${#1})\\0\\0\\0\\0\\0\\0\\0}%s" "$1" >"$model/model.safetensors"
    head -c "$2" /dev/zero >>"$model/model.safetensors"
}

fresh
"$program" "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; echo "the sound folder is refused"; exit 1; }
rm -rf "$out"

rm "$model/config.json"
refused_on_two 1 'config.json' "$work/input.cfg"
config 's/"vocab_size": 61/"vocab_size": 62/' 'tensor model.embed_tokens.weight is [61, 24], config.json needs [62, 24]'
config '/"hidden_size"/d' 'hidden_size is missing'
config 's/"hidden_size": 24/"hidden_size": "24"/' 'hidden_size is not a whole number'
config 's/"hidden_size": 24/"hidden_size": -24/' 'hidden_size is -24'
config 's/"num_attention_heads": 4/"num_attention_heads": 0/' 'num_attention_heads is 0'
config 's/"num_attention_heads": 4/"num_attention_heads": 3/' 'not a multiple of num_key_value_heads'
config 's/"num_hidden_layers": 2/"num_hidden_layers": 99999999999999999999/' 'config.json'
config 's/"vocab_size": 61/"vocab_size": 1e30/' 'vocab_size is not a whole number'
config 's/"rms_norm_eps": 1e-05/"rms_norm_eps": NaN/' 'not JSON'
config 's/"rope_theta": 5000.0/"rope_theta": -1/' 'rope_theta is -1'
config 's/"head_dim": 16/"head_dim": 15/; s/"rope_type"/"partial_rotary_factor": 0.5, "rope_type"/' 'partial_rotary_factor'
config 's/"model_type": "llama"/"model_type": "gpt9"/' 'gpt9 is not supported'
config 's/"hidden_act": "silu"/"hidden_act": ["silu"]/' 'hidden_act'
config "s/\"use_cache\": true/\"use_cache\": $(printf '[%.0s' $(seq 5000))/" 'nested deeper'
config 's/"use_cache": true/"hidden_size": 24/' 'duplicate'
config '10,$d' 'not JSON'

fresh; rm "$model/model.safetensors"
refused_on_two 1 'has neither model.safetensors nor' "$work/input.cfg"
fresh; head -c 20000 $source/model.safetensors >"$model/model.safetensors"
refused_on_two 1 'cut short' "$work/input.cfg"
fresh; cat $source/model.safetensors /dev/null "$work/data.jsonl" >"$model/model.safetensors"
refused 1 'bytes after the last tensor' "$work/input.cfg"
fresh; : >"$model/model.safetensors"
refused 1 'too few' "$work/input.cfg"
fresh; sed 's/model.norm.weight/model.norm.heavy_/' $source/model.safetensors >"$model/model.safetensors"
refused 1 'model.norm.weight [24] is missing' "$work/input.cfg"
fresh; sed 's/"BF16"/"I16"\x20/; s/"F32"/"I32"/' $source/model.safetensors >"$model/model.safetensors"
refused 1 'not F32, F16 or BF16' "$work/input.cfg"
fresh; head -c 34000 $source/model.safetensors >"$model/model.safetensors"
head -c 1152 /dev/zero | tr '\0' '\377' >>"$model/model.safetensors"
refused_on_two 1 'is not a finite number' "$work/input.cfg"
safetensors '{}' 0 '\377\377\377\377\377\377\377\177'
refused 1 'not a safetensors file' "$work/input.cfg"
safetensors '{}' 0 '\100\0\0\0\0\0\0\0'
refused 1 'cut short' "$work/input.cfg"
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8888888]}}' 8
refused 1 'cut short' "$work/input.cfg"
safetensors '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}' 8
refused 1 'its shape and dtype need 12' "$work/input.cfg"
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
refused 1 'overlap' "$work/input.cfg"
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8
refused 1 'duplicate' "$work/input.cfg"

fresh; rm "$model/model.safetensors"
index=$model/model.safetensors.index.json
echo '{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}' >"$index"
refused 1 'model-00001-of-00002.safetensors: cannot open' "$work/input.cfg"
echo '{"weight_map": {"model.norm.weight": "../../../etc/passwd"}}' >"$index"
refused 1 'not a file of this folder' "$work/input.cfg"
echo '{"weight_map": {"model.norm.weight": "shard", "model.norm.bias": "shard"}}' >"$index"
cp $source/model.safetensors "$model/shard"
refused_on_two 1 'model.norm.bias' "$work/input.cfg"

# pretraining of models with parts whose weights have no gradients
cat >"$work/input.cfg" <<EOF
task = "pretrain";
model: { path = "$model"; };
data: { path = "$work/data.jsonl"; };
pretrain: { block_size = 4; };
run: { output_dir = "$out"; };
EOF
for family in gpt2:transformer.wpe.weight qwen3:q_norm.weight; do
    fresh
    cp tests/reference/families/${family%:*}/config.json "$model"
    refused_on_two 2 "${family#*:}" "$work/input.cfg"
done
exit $failed
