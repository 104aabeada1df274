#!/bin/sh
# Score heads: the same bits whatever the ranks, threads and micro-batches, of pairs and of classes; they
# learn; merged they are classifiers; the head alone; ranks that are killed and resumed; the folder that is written.
#
#   tests/mpi/reward.sh [MODE..]    numeric modes of none, dequant, llm.int8 (default: none of pairs, llm.int8 of classes)
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

# same_bits DATA MODE
same_bits() {
    variant "$1" "$2" 1 1 0
    case $1 in
    pairs) variant pairs "$2" 2 2 1 ;;
    *) variant classes "$2" 4 1 3 ;;
    esac
    echo "$1, $2: equal bits; adapters $(sha256sum <"$work/$first/adapter/adapter_model.safetensors" | cut -c1-16)"
}

[ $# -gt 0 ] || { same_bits pairs none; same_bits classes llm.int8; }
for mode in "$@"; do
    same_bits pairs "$mode"
    same_bits classes "$mode"
done

# it learns what tells the answers and the texts apart; 2e-2 does not
for kind in pairs classes; do
    $kind learns-$kind 2 -s run.max_steps=20 -s run.eval_steps=10 -s optim.learning_rate=5e-3 -s run.threads=1 ||
        { cat "$work/learns-$kind.log"; fail "$kind"; }
    [ "$(value learns-$kind 20 eval/accuracy)" = 1 ] || fail "$kind: held-out accuracy $(value learns-$kind 20 eval/accuracy)"
    awk -v a="$(value learns-$kind 20 eval/loss)" -v b="$(value learns-$kind 0 eval/loss)" 'BEGIN { exit !(a < b / 2) }' ||
        fail "$kind: the held-out loss did not fall"
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

# the best adapter of a run that is stopped is whole too
classes stopped 2 -s run.max_steps=1000000 -s run.max_walltime=1
[ $? -eq 75 ] && grep -q '"1": "good"' "$work/stopped/adapter-best/config.json" && [ ! -e "$work/stopped/adapter" ] ||
    { cat "$work/stopped.log"; fail "the best adapter of a stopped run"; }

# on from that adapter: the head goes on too
classes again 1 -s model.adapter="$work/learns-classes/adapter" -s run.max_steps=1 || { cat "$work/again.log"; fail "again"; }
[ "$(value again 0 eval/loss)" = "$(value learns-classes 20 eval/loss)" ] || fail "the score head is not where the other run left it"

# as a reward it scores texts by its classes' names: merged, a classifier, and as it is, an adapter
echo >"$work/empty.cfg"
ranks 1 "$program" -s task=merge -s model.path=input/tiny -s model.adapter="$work/learns-classes/adapter" -s run.output_dir="$work/merged" \
    "$work/empty.cfg" >"$work/merged.log" 2>&1 || { cat "$work/merged.log"; fail "merge"; }
cat >"$work/evaluate.cfg" <<END
task = "evaluate";
model: { path = "input/tiny"; };
data: { path = "$work/classes.heldout.jsonl"; };
evaluate: { what = "texts"; };
reward = ( { type = "classifier"; path = "$work/merged/model"; label = "good"; function_to_apply = "softmax"; },
           { type = "adapter"; path = "$work/learns-classes/adapter"; label = "good"; function_to_apply = "softmax"; } );
run: { output_dir = "$work/evaluated"; };
END
ranks 2 "$program" "$work/evaluate.cfg" >"$work/evaluated.log" 2>&1 || { cat "$work/evaluated.log"; fail "rewards"; }
sed 's/.*"label": \([01]\)}$/\1/' "$work/classes.heldout.jsonl" >"$work/labels"
sed 's/.*"score": \([^,}]*\).*/\1/' "$work/evaluated/evaluate.jsonl" | paste "$work/labels" - |
    awk '$1 ? $2 < 1.6 : $2 > 0.4 { exit 1 } END { if (NR != 5) exit 1 }' || { cat "$work/evaluated/evaluate.jsonl"; fail "the rewards' scores"; }

# the head alone, evaluated on what it learns from; its adapter changes nothing
set -- -s data.eval_path="$work/classes.jsonl"
classes head 2 "$@" -s run.max_steps=40 -s reward_model.head_only=true -s reward_model.batch_size=20 -s optim.learning_rate=1e-2 \
    -s optim.max_grad_norm=none -s run.threads=1 ||
    { cat "$work/head.log"; fail "head"; }
awk -v a="$(value head 40 eval/loss)" -v b="$(value head 0 eval/loss)" 'BEGIN { exit !(a < 0.85 * b) }' ||
    fail "the head alone does not learn: $(value head 0 eval/loss), then $(value head 40 eval/loss)"
classes behind 1 "$@" -s model.adapter="$work/head/adapter" -s run.max_steps=1 || { cat "$work/behind.log"; fail "behind"; }
[ "$(value behind 0 eval/loss)" = "$(value head 40 eval/loss)" ] || fail "the adapter beside a head alone changes something"

# killed in the middle, resumed on other ranks
set -- -s run.max_steps=12 -s run.save_steps=5 -s run.eval_steps=3 -s run.save_total_limit=0 -s run.threads=1
pairs whole 1 "$@" || { cat "$work/whole.log"; fail "the whole run"; }
if [ -r /proc/$$/task/$$/children ]; then
    killed 5 12 pairs parts 2 "$@"
    pairs parts 4 "$@" --resume || { cat "$work/parts.log"; fail "resumed"; }
    equal whole parts $files
fi
exit 0
