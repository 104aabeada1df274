#!/bin/sh
# Rewards that cannot be: folders that hold no classifier, classes that are not there, adapters without a score head.
. "$srcdir/tests/cli/expect.sh"
. tests/mpi/classifiers.sh
echo '{"text": "a film"}' >"$work/data.jsonl"
cat >"$work/input.cfg" <<EOF
task = "evaluate";
model: { path = "input/tiny"; };
data: { path = "$work/data.jsonl"; };
evaluate: { what = "texts"; };
reward = ( { type = "classifier"; name = "mood"; path = "$work/distilbert-letters"; } );
run: { output_dir = "$out"; };
EOF

# config EDIT TEXT: config.json changed by a sed command is refused with the text
config()
{
    classifier distilbert letters
    sed "$1" tests/reference/families/distilbert/config.json >"$work/distilbert-letters/config.json"
    refused 1 "$2" "$work/input.cfg"
}

refused 1 "reward \"mood\": $work/distilbert-letters: not a folder" "$work/input.cfg"
classifier distilbert letters
"$program" "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; echo "the sound classifier is refused"; exit 1; }
rm -rf "$out"
refused_on_two 2 "reward \"mood\": label 'great' is not one of bad, fair, good, nor a number from 0 to 2" -s reward.0.label=great "$work/input.cfg"
refused 2 "label '3' is not one of" --plan -s reward.0.label=3 "$work/input.cfg"
refused 2 'reward.0.max_length' -s reward.0.max_length=0 "$work/input.cfg"
refused 2 'max_length: a limit of 1 tokens has no room for the 2 special tokens' --plan -s reward.0.max_length=1 "$work/input.cfg"
refused 2 'the smallest plan needs' -s run.memory_limit=0.001 "$work/input.cfg"
grep -q 'for the reward model reward.N.quantization' "$work/stderr" || { echo "no word on the reward model"; failed=1; }
config 's/"id2label"/"other"/; s/"label2id"/"another"/' 'classifier.weight'
config 's/"model_type": "distilbert"/"model_type": "deberta"/' 'deberta'
classifier distilbert letters
rm "$work/distilbert-letters/tokenizer.json"
refused 1 'tokenizer.json' "$work/input.cfg"
cp input/tiny/tokenizer.json "$work/distilbert-letters"
refused 1 "distilbert-letters: the tokenizer has ids up to 511, the model's vocabulary ends at 60" "$work/input.cfg"
refused 1 'score.weight' -s reward.0.path=input/tiny "$work/input.cfg"

mkdir "$work/llama"
cp tests/reference/llama-gqa/config.json tests/reference/llama-gqa/model.safetensors "$work/llama"
cp tests/fuzz/seeds/metaspace.json "$work/llama/tokenizer.json"
refused 1 'adapter_config.json: cannot open' -s reward.0.type=adapter "$work/input.cfg"
refused 1 'no score head: a reward adapter has task_type SEQ_CLS' -s reward.0.type=adapter \
    -s reward.0.path=tests/reference/llama-gqa/adapter -s model.path="$work/llama" "$work/input.cfg"
refused 2 "label 'POSITIVE' is not one of LABEL_0, LABEL_1" -s reward.0.type=adapter -s reward.0.label=POSITIVE \
    -s reward.0.path=tests/reference/reward-adapter "$work/input.cfg"
mkdir "$work/named"
cp tests/reference/reward-adapter/adapter_* "$work/named"
echo '{"id2label": {"0": "bad", "1": "fair", "2": "good"}}' >"$work/named/config.json"
refused 1 'named/config.json: 3 labels, but the score head beside it has 2' -s reward.0.type=adapter \
    -s reward.0.path="$work/named" "$work/input.cfg"
exit $failed
