#!/bin/sh
# Score heads: the same bits whatever the ranks, threads and micro-batches, in every numeric mode, of pairs and of classes; they
# learn; the head alone; ranks that are killed and resumed; the folder that is written.
#
#   tests/mpi/reward.sh [MODE..]    numeric modes of none, dequant, llm.int8 (default all)
. "${srcdir:-.}/tests/mpi/reward_runs.sh"

# value NAME STEP KEY: a number of a line of metrics.jsonl
value() {
    sed -n "s|^{\"step\": $2, .*\"$3\": \([^,}]*\).*|\1|p" "$work/$1/metrics.jsonl"
}

# variant DATA MODE RANKS THREADS MICRO_BATCH: one run of 3 steps, compared with the first of its data and mode
variant() {
    name=$1-$2-np$3-threads$4-micro$5
    "$1" "$name" "$3" $(mode "$2") -s run.max_steps=3 -s run.eval_steps=2 -s run.save_steps=0 -s run.threads="$4" \
        -s reward_model.micro_batch_size="$5" || { cat "$work/$name.log"; fail "$name"; }
    if [ "$3" = 1 ]; then
        first=$name
        [ "$(numbers "$name" | sort -u | wc -l)" -eq 4 ] || fail "$name: steps with equal numbers"
    else
        equal "$first" "$name" $files
    fi
}

[ $# -gt 0 ] || set -- none dequant llm.int8
for mode in "$@"; do
    for data in pairs classes; do
        variant $data "$mode" 1 1 0
        [ $data = classes ] && [ "$mode" != llm.int8 ] || variant $data "$mode" 2 2 1
        [ $data = pairs ] || variant $data "$mode" 4 1 3
        echo "$data, $mode: equal bits; adapters $(sha256sum <"$work/$first/adapter/adapter_model.safetensors" | cut -c1-16)"
    done
done

# it learns what tells the answers and the texts apart
for data in pairs classes; do
    $data learns-$data 2 -s run.max_steps=20 -s run.eval_steps=10 -s optim.learning_rate=2e-2 -s run.threads=1 ||
        { cat "$work/learns-$data.log"; fail "$data"; }
    [ "$(value learns-$data 20 eval/accuracy)" = 1.0 ] || [ "$(value learns-$data 20 eval/accuracy)" = 1 ] ||
        fail "$data: held-out accuracy $(value learns-$data 20 eval/accuracy)"
    awk -v a="$(value learns-$data 20 eval/loss)" -v b="$(value learns-$data 0 eval/loss)" 'BEGIN { exit !(a < b / 2) }' ||
        fail "$data: the held-out loss did not fall"
done
awk -v m="$(value learns-pairs 20 eval/margin)" -v least="$(value learns-pairs 20 eval/min_reward)" \
    -v mean="$(value learns-pairs 20 eval/mean_reward)" -v most="$(value learns-pairs 20 eval/max_reward)" \
    'BEGIN { exit !(m > 0 && least < mean && mean < most) }' || fail "the rewards of the pairs"
grep -q '"id2label"' "$work/learns-classes/adapter/config.json" && grep -q '"1": "good"' "$work/learns-classes/adapter/config.json" &&
    grep -q '"pad_token_id"' "$work/learns-classes/adapter/config.json" || fail "config.json does not name the classes"
for file in config.json tokenizer.json; do
    [ -s "$work/learns-pairs/adapter/$file" ] && [ -s "$work/learns-pairs/adapter-best/$file" ] || fail "no $file beside the adapter"
done
tr -d ' \n' <"$work/learns-pairs/adapter/adapter_config.json" | grep -q '"modules_to_save":\["score"\].*"task_type":"SEQ_CLS"' ||
    fail "adapter_config.json is not one of a classifier"

# on from that adapter: the head goes on too
classes again 1 -s model.adapter="$work/learns-classes/adapter" -s run.max_steps=1 || { cat "$work/again.log"; fail "again"; }
[ "$(value again 0 eval/loss)" = "$(value learns-classes 20 eval/loss)" ] || fail "the score head is not where the other run left it"

# the head alone: the adapter's B matrices stay zero
classes head 2 -s run.max_steps=10 -s reward_model.head_only=true -s optim.learning_rate=5e-2 || { cat "$work/head.log"; fail "head"; }
awk -v a="$(value head 10 eval/loss)" -v b="$(value head 0 eval/loss)" 'BEGIN { exit !(a < b) }' || fail "the head alone does not learn"

# killed in the middle, resumed on other ranks
set -- -s run.max_steps=12 -s run.save_steps=5 -s run.eval_steps=3 -s run.save_total_limit=0 -s run.threads=1
pairs whole 1 "$@" || { cat "$work/whole.log"; fail "the whole run"; }
if [ -r /proc/$$/task/$$/children ]; then
    killed 5 12 pairs parts 2 "$@"
    pairs parts 4 "$@" --resume || { cat "$work/parts.log"; fail "resumed"; }
    equal whole parts $files
fi

pairs planned 2 --plan >/dev/null 2>&1 || { cat "$work/planned.log"; fail "--plan"; }
[ ! -e "$work/planned" ] || fail "--plan left a folder"
exit 0
