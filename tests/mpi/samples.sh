#!/bin/sh
# samples.jsonl and the evaluations of a run: the same on other ranks, threads and slots, and after a resume from a checkpoint
# before the last samples; the policy draws with the reference's random numbers; an evaluation of the adapter gives eval/score.
. "${srcdir:-.}/tests/mpi/run.sh"
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 99
head -n 6 input/tiny/prompts.heldout.jsonl >"$work/eval.jsonl"

# ppo NAME RANKS THREADS SLOTS STEPS OPTIONS..
ppo()
{
    name=$1 n=$2 threads=$3 slots=$4 steps=$5
    shift 5
    ranks "$n" "$program" -s run.output_dir="$work/$name" -s run.max_steps="$steps" -s run.threads="$threads" \
        -s generate.slots="$slots" -s 'generate.max_new_tokens=[3,9]' -s ppo.batch_size=8 -s ppo.mini_batch_size=4 \
        -s run.sample_steps=2 -s run.eval_steps=3 -s run.save_steps=2 -s data.eval_path="$work/eval.jsonl" "$@" \
        input/tiny-ppo.cfg >"$work/$name.log" 2>&1 || { cat "$work/$name.log"; fail "$name"; }
}

# what two runs must have in common
same()
{
    cmp "$work/$1/samples.jsonl" "$work/$2/samples.jsonl" || fail "the samples of $1 and $2 differ"
    for name in "$1" "$2"; do sed -E 's/, "(time|perf)\/[^,}]*//g' "$work/$name/metrics.jsonl" >"$work/$name.numbers"; done
    cmp "$work/$1.numbers" "$work/$2.numbers" || fail "the metrics of $1 and $2 differ"
}

ppo one 1 1 16 6
ppo two 2 2 3 6
same one two
[ "$(grep -o '"step": [0-9]*' "$work/one/samples.jsonl" | uniq -c | tr -s ' \n' ' ')" = ' 4 "step": 2 4 "step": 4 4 "step": 6 ' ] ||
    fail "not 4 samples every 2 steps"
[ "$(grep '"step": 2' "$work/one/samples.jsonl" | sed 's/.*\("prompt": "[^"]*"\).*/{\1}/')" = "$(head -n 4 "$work/eval.jsonl")" ] ||
    fail "not the first prompts of data.eval_path"
[ "$(grep -c '"eval/score"' "$work/one/metrics.jsonl")" = 2 ] || fail "not an evaluation every 3 steps"
number() { sed -n "$3s|.*\"$2\": \\([^,}]*\\).*|\\1|p" "$1"; }
for name in ref_score ref_score_stderr ref_greedy_score; do
    [ -n "$(number "$work/one/metrics.jsonl" eval/$name 3)" ] || fail "no eval/$name"
    [ "$(number "$work/one/metrics.jsonl" eval/$name 3)" = "$(number "$work/one/metrics.jsonl" eval/$name 6)" ] ||
        fail "eval/$name moves: the reference does not"
done
[ "$(number "$work/one/metrics.jsonl" eval/score 3)" != "$(number "$work/one/metrics.jsonl" eval/greedy_score 3)" ] ||
    fail "greedy responses are those that were sampled"
[ "$(grep -c '^  policy ' "$work/one.log")" = 4 ] || fail "the log does not end with samples"

# steps 3 and 4 again, from the checkpoint before them
ppo resumed 2 1 5 4
rm -r "$work/resumed/checkpoint-4"
ppo resumed 1 1 16 6 --resume
same one resumed
for name in two resumed; do diff -r "$work/one/adapter-best" "$work/$name/adapter-best" || fail "the best adapter of $name"; done

# a policy that does not learn answers as the reference does
ppo still 1 1 16 1 -s run.sample_steps=1 -s run.eval_steps=1 -s optim.learning_rate=0
for name in "" greedy_; do
    [ "$(number "$work/still/metrics.jsonl" eval/${name}score 1)" = "$(number "$work/still/metrics.jsonl" eval/ref_${name}score 1)" ] ||
        fail "eval/${name}score of the reference's own responses"
done
sed -E 's/.*"response": ("([^"\\]|\\.)*").*"reference_response": ("([^"\\]|\\.)*").*/\1/' "$work/still/samples.jsonl" >"$work/policy"
sed -E 's/.*"response": ("([^"\\]|\\.)*").*"reference_response": ("([^"\\]|\\.)*").*/\3/' "$work/still/samples.jsonl" >"$work/reference"
cmp "$work/policy" "$work/reference" || fail "policy and reference do not draw with the same random numbers"
[ "$(grep -c '"kl": 0.0,' "$work/still/samples.jsonl")" = 4 ] || fail "the KL of the reference to itself is not 0"
cmp -s "$work/still/samples.jsonl" "$work/one/samples.jsonl" && fail "training changes nothing"

# the adapter, evaluated on its own
ranks 2 "$program" -s task=evaluate -s run.output_dir="$work/adapter" -s model.adapter="$work/one/adapter" -s run.threads=1 \
    -s data.path="$work/eval.jsonl" -s 'generate.max_new_tokens=[3,9]' input/tiny-ppo.cfg >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "evaluate"; }
for name in score score_std score_stderr kl; do
    awk -v a="$(number "$work/one/metrics.jsonl" eval/$name 6)" -v b="$(number "$work/adapter/evaluate.json" $name 1)" \
        'BEGIN { exit !(a != "" && a + 0 == b + 0) }' || fail "eval/$name is not what evaluate finds"
done
exit 0
