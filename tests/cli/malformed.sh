#!/bin/sh
# Malformed files of every kind that tests/fuzz/malformed.sh writes: each must end in exit code 1 or 2 and one line that names
# the file, and leave no run folder behind.
#   tests/cli/malformed.sh [EVERY]    every so many-th case (make check: 16; 1 for all of them)
. "$srcdir/tests/cli/expect.sh"
every=${1:-16}
model=$work/model adapter=$work/adapter data=$work/data
tests/fuzz/malformed.sh "$work/cases" || exit 1
mkdir "$model" "$adapter"
cp tests/reference/llama-gqa/config.json tests/reference/llama-gqa/model.safetensors tests/fuzz/seeds/tokenizer_config.json "$model"
cp tests/fuzz/seeds/metaspace.json "$model/tokenizer.json"
cp tests/reference/llama-gqa/adapter/* "$adapter"
cp tests/fuzz/seeds/chat_template.jinja "$model"
cp tests/fuzz/seeds/messages.jsonl "$work"
cp tests/fuzz/seeds/rows.jsonl "$work/data.jsonl"
cp tests/fuzz/seeds/rows.csv "$work/data.csv"
cat >"$work/input.cfg" <<EOF
task = "evaluate";
model: { path = "$model"; };
data: { path = "$work/data.jsonl"; };
run: { output_dir = "$out"; };
EOF

# one NAME TEXT [ARG..]: the program on a file; its line holds the text
one()
{
    name=$1 text=$2
    shift 2
    timeout 60 "$program" "$@" "$work/input.cfg" >"$work/stdout" 2>"$work/stderr" </dev/null
    rc=$?
    if { [ $rc -eq 1 ] || [ $rc -eq 2 ]; } && [ ! -e "$out" ] && [ "$(wc -l <"$work/stderr")" -eq 1 ] &&
        grep -qF -- "$text" "$work/stderr" && ! grep -q '[^[:print:]]' "$work/stderr"; then
        [ -z "$VERBOSE" ] || echo "$name: $(cut -c1-200 "$work/stderr")"
        return
    fi
    echo "$name: exit $rc, $(wc -l <"$work/stderr") lines: $*"
    head -n 5 "$work/stderr" | cut -c1-300
    [ ! -e "$out" ] || echo "$out was left behind"
    rm -rf "$out"
    failed=1
}

# kind FILE TEXT [ARG..]: all cases of it in the place of the sound file
n=0 cases=0
kind()
{
    file=$1 text=$2
    shift 2
    cp "$file" "$work/sound"
    "$program" "$@" "$work/input.cfg" >"$work/stdout" 2>&1 || { cat "$work/stdout"; echo "the sound ${file##*/} is refused"; exit 1; }
    rm -rf "$out"
    for case in "$work/cases/${file##*/}"/*; do
        cases=$((cases + 1))
        [ $((cases % every)) -eq 0 ] || continue
        cp "$case" "$file"
        one "${file##*/}/${case##*/}" "$text" "$@"
        n=$((n + 1))
    done
    cp "$work/sound" "$file"
}

kind "$model/config.json" config.json
kind "$model/model.safetensors" model.safetensors
kind "$model/tokenizer.json" tokenizer.json -s task=tokenize
kind "$model/tokenizer_config.json" tokenizer_config.json -s task=tokenize
kind "$model/chat_template.jinja" chat_template.jinja -s task=tokenize -s data.path="$work/messages.jsonl"
kind "$adapter/adapter_config.json" adapter/adapter_ -s model.adapter="$adapter" # or the weights, which do not fit it
kind "$adapter/adapter_model.safetensors" adapter_model.safetensors -s model.adapter="$adapter"
kind "$work/data.jsonl" data.jsonl
kind "$work/data.csv" data.csv -s data.path="$work/data.csv" -s data.format=csv
echo "$n of $cases malformed files given to the program"
exit $failed
