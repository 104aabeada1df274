#!/bin/sh
# Rewards of type classifier. Scores of texts by every tiny classifier, from its folder to evaluate.jsonl, are the recorded logits
# of transformers, of whole texts and of cut ones; a PPO run with two classifiers and a lexicon has the same bits on 1, 2 and 4
# ranks and names each part.
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
. tests/mpi/classifiers.sh

# texts NAME: the two recorded sequences as words, then the second with more behind it
texts()
{
    tr -d '\n' <"tests/reference/families/$1/expected.json" | sed 's/.*"ids": \[\[//; s/\]\].*//; s/\], \[/\n/' |
        awk '{ gsub(/[0-9]+/, "w&"); gsub(/,/, ""); line[NR] = $0 }
             END { print "{\"text\": \"" line[1] "\"}"; print "{\"text\": \"" line[2] "\"}"
                   print "{\"text\": \"" line[2] " w7 w8 w9 w7 w8 w9\"}" }'
}

# logits NAME CLASS: the recorded ones of the two sequences
logits()
{
    file=tests/reference/families/$1/expected.safetensors
    header=$(od -An -tu8 -N8 "$file" | tr -d ' ')
    classes=$(head -c $((header + 8)) "$file" | sed 's/.*"logits":[^}]*"shape":\[2,\([0-9]*\)\].*/\1/' | tail -n 1)
    od -An -tf4 -w$((4 * classes)) -v -j $((header + 8)) "$file" | awk -v k=$(($2 + 1)) '{ print $k }'
}

# scores NAME CLASS OPTION..: of the texts, a line each, in $work/scores
scores()
{
    name=$1 class=$2
    shift 2
    "$program" "$work/texts.cfg" -s run.output_dir="$work/evaluated" -s reward.0.path="$work/$name-words" -s reward.0.label="$class" "$@" \
        >"$work/log" 2>&1 || { cat "$work/log"; fail "$name, class $class"; }
    sed 's/.*"score": \([^,}]*\).*/\1/' "$work/evaluated/evaluate.jsonl" >"$work/scores"
    rm -r "$work/evaluated"
}

cat >"$work/texts.cfg" <<END
task = "evaluate";
model: { path = "input/tiny"; };
data: { path = "$work/texts.jsonl"; max_length = 2; };
evaluate: { what = "texts"; };
reward = ( { type = "classifier"; } );
END
for name in bert distilbert roberta llama-classifier gpt2-classifier; do
    classifier $name words
    texts $name >"$work/texts.jsonl"
    for class in 0 1; do
        scores $name $class
        logits $name $class | paste - "$work/scores" | awk -v name="$name" '
            NF == 2 { d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d; if (d > 1e-4 + 1e-5 * ($1 < 0 ? -$1 : $1)) bad = 1; n++ }
            END { printf "%s: %g off\n", name, worst; exit bad || n != 2 }' || fail "$name: logits of class $class"
    done
    scores $name 1 -s reward.0.max_length=6
    [ "$(sed -n 2p "$work/scores")" = "$(sed -n 3p "$work/scores")" ] || fail "$name: a text of 12 tokens cut to its first 6"
    [ "$(sed -n 1p "$work/scores")" != "$(sed -n 2p "$work/scores")" ] || fail "$name: two texts, one score"
done
texts distilbert >"$work/texts.jsonl"
scores distilbert 2
cp "$work/scores" "$work/by_number"
scores distilbert good
cmp "$work/by_number" "$work/scores" || fail "distilbert: good is not class 2"
scores distilbert good -s reward.0.function_to_apply=softmax -s reward.0.quantization=int8
awk '!($1 > 0 && $1 < 1) { exit 1 }' "$work/scores" || fail "probabilities of int8 weights"

classifier distilbert letters
classifier llama-classifier letters
cat >"$work/rewards" <<END
reward = ( { type = "classifier"; name = "mood"; path = "$work/distilbert-letters"; label = "good"; function_to_apply = "softmax";
             weight = 2.0; },
           { type = "classifier"; name = "size"; path = "$work/llama-classifier-letters"; label = "0"; quantization = "int8"; max_length = 9; },
           { type = "lexicon"; path = "input/tiny/lexicon.tsv"; } );
END
sed '/^reward/d' input/tiny-ppo.cfg | cat - "$work/rewards" >"$work/ppo.cfg"
PPO_INPUT=$work/ppo.cfg
for n in 1 2 4; do
    ppo np$n $n -s run.max_steps=2 -s run.threads=1 || { cat "$work/np$n.log"; fail "PPO on $n"; }
    [ $n = 1 ] || same np1 np$n
done
grep -q '^  reward model  *[1-9]' "$work/np1.log" && grep -q '^  reward model, passes  *[1-9]' "$work/np1.log" || fail "no reward model in the plan"
for part in mood size lexicon; do
    [ "$(grep -o "\"reward/$part\": [^,}]*" "$work/np1/metrics.jsonl" | sort -u | wc -l)" -eq 2 ] || fail "reward/$part of two steps"
done
sed 's/.*"objective\/scores": \([^,}]*\).*/\1/' "$work/np1/metrics.jsonl" >"$work/whole"
for part in mood size lexicon; do
    sed "s/.*\"reward\/$part\": \([^,}]*\).*/\1/" "$work/np1/metrics.jsonl" | paste "$work/whole" - >"$work/parts"
    mv "$work/parts" "$work/whole"
done
awk '{ d = $1 - (2 * $2 + $3 + $4) } d > 1e-9 || d < -1e-9 { exit 1 }' "$work/whole" || fail "the score is not the weighted sum of its parts"
echo "2 steps on 1, 2 and 4 ranks, equal bits"
