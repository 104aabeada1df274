#!/bin/sh
# Data without rows, without the field, or not in its format; a lexicon that is none; a plan that cannot fit.
. "$srcdir/tests/cli/expect.sh"
model=$work/model
mkdir "$model"
cp tests/reference/llama-gqa/config.json tests/reference/llama-gqa/model.safetensors "$model"
cp tests/fuzz/seeds/metaspace.json "$model/tokenizer.json"
data=$work/data
lexicon=$work/lexicon
cat >"$work/input.cfg" <<EOF
task = "evaluate";
model: { path = "$model"; };
data: { path = "$data"; };
ppo: { batch_size = 2; mini_batch_size = 2; };
run: { output_dir = "$out"; max_steps = 1; };
EOF

# data BYTES TEXT [ARG..]: bytes as printf writes them
data()
{
    bytes=$1 said=$2
    shift 2
    printf "$bytes" >"$data"
    refused 1 "$said" "$@" "$work/input.cfg"
}

refused_on_two 1 'data: cannot open' "$work/input.cfg"
mkdir "$data"
refused 1 'data: not a regular file' "$work/input.cfg"
refused 1 'no imdb folder' -s data.format=imdb "$work/input.cfg"
rmdir "$data"
: >"$data"
refused_on_two 1 'data: holds no data' "$work/input.cfg"
data '\n  \n\n' 'data: holds no data'
data '{"text": ""}\n' 'data:1: the text gives no tokens' -s data.add_special_tokens=false
data '{"text": "a"}\n' 'fewer than data.min_chars = 5' -s data.min_chars=5
data '{"prompt": "a"}\n' 'data:1: no field "text"; there is "prompt"'
data '{"text": "a"}\n{"text": 1}\n' 'data:2: the field "text" is an integer, not a string'
data '{"text": "a"}\n{"text": "a\n' 'data:2: not valid JSON'
data '{"text": "\377\376"}\n' 'data:1: not valid JSON'
data '{"text": "\033[2J"}\n' 'data:1: not valid JSON'
data '\0\0\0\0' 'data:1: not valid JSON'
data '["a"]\n' 'data:1: an array where an object'
data '{"input_ids": [1, 61]}\n' "input_ids holds 61, the model's vocabulary ends at 60"
data '{"input_ids": [1, -1]}\n' 'input_ids[1] is no token number'
data '{"input_ids": []}\n' '"input_ids" is empty'
data 'text,n\n"a,1\nb,2\n' 'data:2: a quoted field begins here and does not end' -s data.format=csv
data 'text,n\na,1,2\n' 'data:2: 3 fields where the header has 2' -s data.format=csv
data 'text,text\na,1\n' 'occurs twice' -s data.format=csv
data '' 'is empty' -s data.format=csv
data 'n\n1\n' 'no field "text"; there is "n"' -s data.format=csv
{ printf '{"text": "'; head -c 3000000 /dev/zero | tr '\0' '['; } >"$data"
refused 1 'data:1: not valid JSON' "$work/input.cfg"

# ppo REFUSED CODE TEXT [ARG..]: a run on the prompts, with the lexicon as their reward
ppo()
{
    "$@" -s task=ppo -s reward.0.type=lexicon -s reward.0.path="$lexicon" "$work/input.cfg"
}

printf '{"prompt": "a film"}\n{"prompt": "a"}\n' >"$data"
ppo refused_on_two 1 'lexicon: cannot open'
echo 'good' >"$lexicon"
ppo refused_on_two 1 'lexicon:1: expected a word, a TAB or comma, and its weight'
printf 'good\t1\nbad\tnan\n' >"$lexicon"
ppo refused 1 'lexicon:2: expected a word'
: >"$lexicon"
ppo refused 1 'no words with weights'

# a pass of more tokens than an int can count
echo 'good,1' >"$lexicon"
sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 268435456/' "$model/config.json"
ppo refused_on_two 2 'the smallest plan needs' -s generate.max_new_tokens=200000000 -s ppo.batch_size=16 -s ppo.mini_batch_size=16
exit $failed
