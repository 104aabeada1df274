#!/bin/sh
# task = "merge": what is refused, what lies in the folder, and that it is the model with its adapter.
. "$srcdir/tests/cli/expect.sh"
model=$work/model adapter=$work/adapter
reference=tests/reference/llama-untied
mkdir "$model" "$adapter"
cp $reference/config.json $reference/model* "$model"
cp tests/fuzz/seeds/metaspace.json "$model/tokenizer.json"
for file in tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja chat_template.json; do echo "{}" >"$model/$file"; done
echo '{"eos_token_id": [2, 3]}' >"$model/generation_config.json"
mkdir "$model/additional_chat_templates"
echo "{{ tools }}" >"$model/additional_chat_templates/tool_use.jinja"
echo 'not of the model' >"$model/notes.txt"
cp tests/reference/adapters/regex/adapter_* "$adapter"
cat >"$work/input.cfg" <<EOF
task = "merge";
model: { path = "$model"; adapter = "$adapter"; };
run: { output_dir = "$out"; };
EOF

complain()
{
    echo "$*"
    failed=1
}

merge()
{
    "$program" "$@" "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; complain "merge $*"; }
}

refused 2 'model.adapter=: is empty; task merge needs it' -s model.adapter= "$work/input.cfg"
refused 2 'model.init = "random": there are no weights to merge into' -s model.init=random "$work/input.cfg"
refused 2 'merge.base' -s merge.base=int8 "$work/input.cfg"
refused_on_two 1 'adapter_config.json: cannot open' -s model.adapter="$work/nothing" "$work/input.cfg"
refused 1 'not a folder; a model is a Hugging Face folder' -s model.path="$work/nothing" "$work/input.cfg"
# an adapter of another size, found in the last shard; a value that is not a number, on the rank that writes it
refused_on_two 1 'must be [' -s model.adapter=tests/reference/adapters/patterns "$work/input.cfg"
mkdir "$work/spoilt"
cp -r "$model"/* "$work/spoilt"
printf '\376\177' | dd of="$work/spoilt/model-00002-of-00002.safetensors" bs=1 conv=notrunc status=none \
    seek=$(($(wc -c <"$work/spoilt/model-00002-of-00002.safetensors") - 2))
refused_on_two 1 'model-00002-of-00002.safetensors: tensor ' -s model.path="$work/spoilt" "$work/input.cfg"
refused 1 'is not a finite number' -s model.path="$work/spoilt" "$work/input.cfg"

"$program" --plan "$work/input.cfg" >"$work/stdout" 2>&1 || complain "--plan"
grep -q 'merge of 5 adapted layers into the original weights' "$work/stdout" && grep -q '2 files of weights' "$work/stdout" &&
    grep -q 'bytes of memory a rank; up to 2 ranks' "$work/stdout" || { cat "$work/stdout"; complain "the plan"; }
[ -e "$out" ] && complain "--plan wrote $out"

# what a killed merge has left is no obstacle, and nothing of it stays
mkdir -p "$out/model.partial"
echo rest >"$out/model.partial/rest"
merge
for file in config.json generation_config.json tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json \
    chat_template.jinja chat_template.json additional_chat_templates/tool_use.jinja; do
    cmp "$model/$file" "$out/model/$file" || complain "$file"
done
[ "$(ls "$out" | tr '\n' ' ')" = 'model settings.cfg ' ] || complain "in the folder: $(ls "$out")"
[ "$(ls "$out/model" | wc -l)" -eq 12 ] || complain "in the model's folder: $(ls "$out/model")"
grep -q 'ref_adapter' "$out/settings.cfg" || complain "settings.cfg"
cmp -s "$model/model-00001-of-00002.safetensors" "$out/model/model-00001-of-00002.safetensors" && complain "nothing was merged"

# the folder is not touched again
cp -r "$out" "$work/before"
"$program" "$work/input.cfg" >"$work/stdout" 2>"$work/stderr"
[ $? -eq 2 ] && grep -q 'model exists: choose another run.output_dir' "$work/stderr" || { cat "$work/stderr"; complain "a second merge"; }
diff -r "$out" "$work/before" || complain "a refused merge has changed the folder"

# other types are said in config.json
rm -rf "$out"
merge -s merge.dtype=float32
grep -q '"torch_dtype": "float32"\|"dtype": "float32"' "$out/model/config.json" || complain "the type in config.json"

# the merged model's perplexity is that of the model with its adapter
echo '{"text": "a film that is not bad at all"}' >"$work/data.jsonl"
perplexity()
{
    "$program" -s task=evaluate -s data.path="$work/data.jsonl" -s model.quantization=none -s run.output_dir="$work/evaluate" "$@" \
        "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; complain "evaluate $*"; }
    sed 's/.*"perplexity": \([0-9.e+]*\).*/\1/' "$work/evaluate/evaluate.json"
    rm -rf "$work/evaluate"
}
with=$(perplexity) merged=$(perplexity -s model.path="$out/model" -s model.adapter=) without=$(perplexity -s model.adapter=)
awk "BEGIN { d = ($with - $merged) / $with; e = ($with - $without) / $with; exit !(d * d < 1e-10 && e * e > 1e-6) }" ||
    complain "perplexity $with with the adapter, $merged merged, $without without"

# a trained head makes it a classifier
rm -rf "$out"
merge -s model.adapter=tests/reference/adapters/score
grep -q 'LlamaForSequenceClassification' "$out/model/config.json" && grep -q 'LABEL_2' "$out/model/config.json" || complain "config.json of a classifier"
grep -q '"score.weight": "model-00002-of-00002.safetensors"' "$out/model/model.safetensors.index.json" || complain "the head in the index"

# with the names of its classes and the padding token, where they lie beside it
cp -r tests/reference/adapters/score "$work/named"
echo '{"id2label": {"0": "bad", "1": "so-so", "2": "good"}, "label2id": {"bad": 0, "so-so": 1, "good": 2}, "pad_token_id": 2}' >"$work/named/config.json"
rm -rf "$out"
merge -s model.adapter="$work/named"
grep -q '"1": "so-so"' "$out/model/config.json" && grep -q '"pad_token_id": 2' "$out/model/config.json" || complain "the names of the classes"
exit $failed
