#!/bin/sh
# Broken tokenizer.json files.
. "$srcdir/tests/cli/expect.sh"
source=tests/fuzz/seeds/metaspace.json
model=$work/model
mkdir "$model"
cp tests/reference/llama-gqa/config.json tests/reference/llama-gqa/model.safetensors "$model"
echo '{"text": "a film"}' >"$work/data.jsonl"
cat >"$work/input.cfg" <<EOF
task = "tokenize";
model: { path = "$model"; };
data: { path = "$work/data.jsonl"; };
run: { output_dir = "$out"; };
EOF

# tokenizer EDIT TEXT [ARG..]: the file changed by a sed command is refused with the text
tokenizer()
{
    edit=$1 said=$2
    shift 2
    sed "$edit" $source >"$model/tokenizer.json"
    refused 1 "$said" "$@" "$work/input.cfg"
}

refused_on_two 1 'tokenizer.json: cannot open' "$work/input.cfg"
refused_on_two 1 'tokenizer.json: cannot open' -s task=evaluate "$work/input.cfg"
tokenizer '20,$d' 'tokenizer.json:20:'
tokenizer '1,$d' 'tokenizer.json:1:'
tokenizer 's/"f i"/"f zz"/' '"zz" of merge 1 is not in the vocabulary'
tokenizer 's/"f i"/"f a"/' '"fa", made by merge 1, is not in the vocabulary'
tokenizer 's/"f i"/"fi"/' 'merge 1 is neither'
tokenizer 's/"o": 16/"o": 17/' 'have the same id 17'
tokenizer 's/"o": 16/"o": -1/' 'has id -1, outside'
tokenizer 's/"o": 16/"o": 2147483648/' 'has id 2147483648, outside'
tokenizer 's/"o": 16/"o": 1e3/' 'the id of "o" is not an integer'
tokenizer 's/"o": 16/"\\n\\u001b": 17/' '"??"'
tokenizer 's/"id": 18/"id": 17/' '"film" has id 17, which is "v"'
tokenizer 's/"ids": \[1\]/"ids": [60]/' 'an id that is no token'
tokenizer 's/ {2,}/(a/' 'regex "(a": missing closing parenthesis'
tokenizer 's/"NFC"/"NFX"/' 'normalizer type "NFX" is not supported'
tokenizer 's/"unk_token": "<unk>"/"unk_token": "<?>"/' 'unk_token "<?>" is not in the vocabulary'
tokenizer 's/"BPE"/"Unigram"/' '"Unigram" is not supported'
tokenizer "s/\"version\": \"1.0\"/\"version\": $(printf '[%.0s' $(seq 5000))/" 'tokenizer.json:2: maximum parsing depth'
# a sequence of sequences
tokenizer "s/{\"type\": \"NFC\"}/$(printf '{"type": "Sequence", "normalizers": [%.0s' $(seq 20)){\"type\": \"NFC\"}$(printf ']}%.0s' $(seq 20))/" 'nested at most 16 deep'
# ids beyond the model's vocabulary
sed 's/"id": 18/"id": 61/' $source >"$model/tokenizer.json"
refused_on_two 1 "the tokenizer has ids up to 61, the model's vocabulary ends at 60" -s task=evaluate "$work/input.cfg"
# a regex that would try for ever
sed 's/\\\\w+|\[^\\\\w\\\\s\]+/(a+)+$/' $source >"$model/tokenizer.json"
echo '{"text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"}' >"$work/data.jsonl"
refused 1 'a regex of the tokenizer failed' "$work/input.cfg"
exit $failed
