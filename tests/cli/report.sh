#!/bin/sh
# timing.json adds up; --report of a run and of several says what timing.json and metrics.jsonl say; what cannot be read is one
# line and exit code 1.
[ "${MPIEXEC:-no}" != no ] || { echo "no mpirun"; exit 77; }
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

fail() {
    echo "$*"
    failed=1
}

# run RANKS NAME STEPS OPTIONS..: a short PPO run of 2 updates a step
run() {
    ranks=$1 name=$2 steps=$3
    shift 3
    "$MPIEXEC" -np "$ranks" "$program" -s run.output_dir="$dir/$name" -s run.threads=1 -s run.max_steps="$steps" \
        -s run.save_steps=2 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 "$@" input/tiny-ppo.cfg \
        >"$dir/$name.log" 2>&1 || { fail "$name failed:"; cat "$dir/$name.log"; }
}

# The leaves of a timing.json: "phases.generate.mean 0.25", one a line.
leaves() {
    awk '{ key = $1; gsub(/[":]/, "", key); depth = index($0, $1); sub(/,$/, "") }
         $2 == "{" { at[depth] = key "."; next }
         $2 != "" { path = ""; for (i = 3; i < depth; i += 2) path = path at[i]; print path key, $2 }' "$1"
}

leaf() {
    leaves "$dir/$1/timing.json" | awk -v path="$2" '$1 == path { print $2 }'
}

# sum NAME PATTERN: of the leaves whose path matches
sum() {
    leaves "$dir/$1/timing.json" | awk -v pattern="$2" '$1 ~ pattern { s += $2 } END { printf "%.15g\n", s }'
}

# cell FILE ROW COLUMN: of a CSV without quoted commas before the column; the row is that whose first field is ROW
cell() {
    awk -F, -v row="$2" -v column="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) at = i }
        NR > 1 && $1 == row { print $at }' "$1"
}

# equal WHAT A B [TOLERANCE]: relative
equal() {
    awk -v a="$2" -v b="$3" -v t="${4:-1e-9}" 'BEGIN { d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b;
        exit !(a != "" && b != "" && d <= t * m) }' || fail "$1: $2 is not $3"
}

calc() {
    awk "BEGIN { printf \"%.15g\", ($1) }"
}

run 1 np1 3
run 2 np2 3

# -- timing.json and the log ----------------------------------------------------------------------------
for name in np1 np2; do
    equal "$name: phases" "$(sum $name '^phases[.].*[.]mean$')" "$(leaf $name total_sec.mean)"
    equal "$name: phases of steps" "$(sum $name '^steps[.]phases[.].*[.]mean$')" "$(leaf $name steps.sec_per_step)"
    equal "$name: shares" "$(awk '/^phase /{on = 1; next} /^total /{on = 0} on {sub("%", "", $5); s += $5} END {print s}' \
        "$dir/$name.log")" 100 0.006
    [ "$(grep -cE '^step [1-3]/3 +score .* kl .* loss .* tok/s .*\(gen .* rew .* logp .* train .*\)  eta [0-9]+ s$' \
        "$dir/$name.log")" = 3 ] || fail "$name: no line for each step"
    sed 's/.*"time\/total": \([^,}]*\).*/\1/' "$dir/$name/metrics.jsonl" >"$dir/steps"
    equal "$name: first step" "$(leaf $name steps.first_sec)" "$(sed -n 1p "$dir/steps")"
done
sed 's/.*"time\/total": \([^,}]*\).*/\1/' "$dir/np1/metrics.jsonl" >"$dir/steps"
equal "seconds a step" "$(leaf np1 steps.sec_per_step)" "$(awk 'NR > 1 {s += $1} END {printf "%.15g", s / 2}' "$dir/steps")"
equal "tokens a step" "$(leaf np2 steps.tokens_per_step)" \
    "$(sed 's/.*"response_length\/mean": \([^,]*\).*/\1/' "$dir/np2/metrics.jsonl" |
        awk 'NR > 1 {s += 8 * $1} END {print s / 2}')"
for what in generate.tokens logprobs.tokens backward.tokens gather.bytes reduce.bytes checkpoint.bytes; do
    equal "$what on 1 and 2 ranks" "$(leaf np1 phases.$what)" "$(leaf np2 phases.$what)" 0.001
done
# 6 updates sum 8 bytes a trainable; log-probs, entropies and values of the samples are gathered beside them
sums=$(calc "6 * 8 * $(leaf np1 model.trainable)")
equal "bytes summed" "$(leaf np1 phases.reduce.bytes)" "$sums" 0.01
[ "$(leaf np1 phases.reduce.bytes)" -gt "$sums" ] || fail "what is gathered before a sum is not counted"
"$program" --plan "$dir/np1/settings.cfg" >"$dir/plan" 2>&1 || { fail "settings.cfg is no input"; cat "$dir/plan"; }
[ "$(ls "$dir"/np2/events.out.tfevents.* | wc -l)" = 1 ] || fail "no TensorBoard file"

# A line is there when its step is done, also in a pipe: while the reward of the second step keeps the run waiting.
cat >"$dir/reward.sh" <<'END'
while read -r line; do
    case $line in *'"index": 8,'*) exec sleep 8 ;; esac # the first sample of the second step
    echo 1
done
END
"$program" -s run.output_dir="$dir/waiting" -s run.threads=1 -s ppo.batch_size=8 -s ppo.mini_batch_size=8 -s ppo.ppo_epochs=1 \
    -s reward.0.type=program -s "reward.0.command=sh $dir/reward.sh" -s reward.0.path= input/tiny-ppo.cfg >"$dir/waiting.log" \
    2>&1 &
pid=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    grep -q '^step ' "$dir/waiting.log" && break
    sleep 0.5
done
kill -0 $pid 2>/dev/null || fail "the run did not wait for its reward"
grep -q '^step ' "$dir/waiting.log" || { fail "no line after the first step"; cat "$dir/waiting.log"; }
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null

# -- one run --------------------------------------------------------------------------------------------
printf '%s\n' '{"step": 2, "prompt": "of step two", "response": "r", "score": 1}' \
    '{"step": 3, "prompt": "new|p", "response": "two\nlines", "score": 0.5, "kl": 1, "reference_response": "q"}' \
    >"$dir/np2/samples.jsonl"
"$program" --report "$dir/np2" >"$dir/out" 2>&1 || { fail "--report failed"; cat "$dir/out"; }
[ "$(wc -l <"$dir/out")" = 1 ] || fail "--report does not say in one line what it wrote"
for phase in generate forward backward reduce other; do
    equal "phases.csv: $phase" "$(cell "$dir/np2/phases.csv" $phase mean_sec)" "$(leaf np2 phases.$phase.mean)"
    equal "phases.csv: share of $phase" "$(cell "$dir/np2/phases.csv" $phase share_percent)" \
        "$(calc "100 * $(leaf np2 phases.$phase.mean) / $(leaf np2 total_sec.mean)")"
done
for step in 1 2 3; do
    equal "report.csv: KL of step $step" "$(cell "$dir/np2/report.csv" $step objective/scores)" \
        "$(sed -n "${step}s/.*\"objective\/scores\": \([^,]*\).*/\1/p" "$dir/np2/metrics.jsonl")"
done
for text in 'input/tiny: 1055617 parameters, 131201 of them trainable' '| objective/kl | 0 |' '## Checkpoints' 'After step 2, 3.' '## Samples of step 3' \
    '    new|p' '    lines' '    batch_size = 8;'; do
    grep -qF "$text" "$dir/np2/report.md" || fail "report.md lacks '$text'"
done
grep -q "of step two" "$dir/np2/report.md" && fail "report.md shows samples of an earlier step"

# a run that was killed: no timing.json, a metrics.jsonl that ends within a line
cp -r "$dir/np1" "$dir/killed"
rm "$dir/killed/timing.json"
printf '{"step": 4, "objec' >>"$dir/killed/metrics.jsonl"
"$program" --report "$dir/killed" >"$dir/out" 2>&1 || { fail "--report of an unfinished run failed"; cat "$dir/out"; }
grep -q 'not finished' "$dir/killed/report.md" || fail "report.md does not say that the run has not finished"
[ "$(wc -l <"$dir/killed/report.csv")" = 4 ] || fail "report.csv has not a row for each whole line"

# -- several runs ---------------------------------------------------------------------------------------
cp -r "$dir/np2" "$dir/again"
sed -i 's/"sec_per_step": .*/"sec_per_step": 7.5,/' "$dir/again/timing.json"
"$program" --report "$dir/np2" "$dir/again" "$dir/np1/" >"$dir/out" 2>&1 || { fail "--report of three failed"; cat "$dir/out"; }
csv=$dir/scaling.csv
one=$(leaf np1 steps.sec_per_step) two=$(leaf np2 steps.sec_per_step)
mean=$(calc "($two + 7.5) / 2")
equal "sec_per_step of 1" "$(cell "$csv" 1 sec_per_step)" "$one"
equal "sec_per_step of 2" "$(cell "$csv" 2 sec_per_step)" "$mean"
equal "sec_max" "$(cell "$csv" 2 sec_max)" "$(calc "$two > 7.5 ? $two : 7.5")"
equal "sec_min" "$(cell "$csv" 2 sec_min)" "$(calc "$two < 7.5 ? $two : 7.5")"
equal "runs" "$(cell "$csv" 2 runs)" 2
equal "speed-up of 1" "$(cell "$csv" 1 speedup)" 1
equal "speed-up of 2" "$(cell "$csv" 2 speedup)" "$(calc "$one / $mean")"
equal "efficiency" "$(cell "$csv" 2 efficiency)" "$(calc "$one / $mean / 2")"
equal "tokens/s" "$(cell "$csv" 1 tokens_per_sec)" "$(calc "$(leaf np1 steps.tokens_per_step) / $one")"
"$program" --report "$dir/np1" "$dir/np2" >/dev/null || fail "--report of two failed"
sed 's/"[^"]*"/device/' "$csv" >"$dir/plain.csv" # no quoted commas
equal "imbalance" "$(cell "$dir/plain.csv" 2 imbalance)" "$(leaves "$dir/np2/timing.json" |
    awk '/^steps[.]phases[.](generate|reward|logprobs|forward|backward|optimize)[.]/ { s[substr($1, length($1) - 2)] += $2 }
         END { printf "%.15g", s["max"] / s["ean"] }')"
equal "share of backward" "$(cell "$dir/plain.csv" 2 share_backward)" \
    "$(calc "100 * $(leaf np2 steps.phases.backward.mean) / $two")"
equal "imbalance of backward" "$(cell "$dir/plain.csv" 2 max_over_mean_backward)" \
    "$(calc "$(leaf np2 steps.phases.backward.max) / $(leaf np2 steps.phases.backward.mean)")"

# -- what cannot be read --------------------------------------------------------------------------------
# refuse TEXT FOLDER..: exit code 1 and one line with the text
refuse() {
    text=$1
    shift
    "$program" --report "$@" >"$dir/out" 2>"$dir/err"
    rc=$?
    if [ $rc != 1 ] || [ "$(wc -l <"$dir/err")" != 1 ] || ! grep -qF "$text" "$dir/err"; then
        fail "exit $rc (want 1), looking for '$text': $*"
        cat "$dir/out" "$dir/err"
    fi
}

# spoil SED-SCRIPT FILE: $dir/bad is np1 with that file changed
spoil() {
    rm -rf "$dir/bad"
    cp -r "$dir/np1" "$dir/bad"
    sed -i "$1" "$dir/bad/$2"
}

mkdir "$dir/empty"
refuse 'no such folder' "$dir/nowhere"
refuse 'neither timing.json nor metrics.jsonl' "$dir/empty"
spoil '$d' timing.json
refuse 'bad/timing.json: line' "$dir/bad"
spoil '/"nodes"/d' timing.json
refuse 'nodes' "$dir/bad"
spoil 's/"ranks": 1/"ranks": 0/' timing.json
refuse 'out of range' "$dir/bad"
spoil 's/"forward"/"for\\nward"/' timing.json
refuse 'that this program does not know' "$dir/bad"
spoil 's/"min": [^,]*/"min": 1e9/' timing.json
refuse 'not 0 <= min <= mean <= max' "$dir/bad"
spoil '2s/^{/[/' metrics.jsonl
refuse 'metrics.jsonl:2: ' "$dir/bad"
spoil '3s/"lr": [^,]*/"lr": "x"/' metrics.jsonl
refuse 'metrics.jsonl:3: ' "$dir/bad"
spoil 's/batch_size/batch_sise/' settings.cfg
refuse 'settings.cfg:' "$dir/bad"
echo '{"step": 1' >"$dir/again/samples.jsonl"
refuse 'samples.jsonl:1: ' "$dir/again"
refuse 'no timing.json' "$dir/np1" "$dir/killed"
spoil 's/ batch_size = 8;/ batch_size = 16;/' settings.cfg
refuse 'ppo.batch_size = 8 here, batch_size = 16 there' "$dir/np1" "$dir/bad"
spoil 's/"batch_size": 8/"batch_size": 16/' timing.json
refuse 'batch_size = 8 here, 16 there' "$dir/np1" "$dir/bad"
spoil 's/"parameters": .*/"parameters": 7,/' timing.json
refuse 'not runs of the same input' "$dir/np1" "$dir/bad"

# A run continued with fewer steps than its checkpoint has must not write that state under the lower step.
run 1 np1 2 --resume
[ ! -e "$dir/np1/checkpoint-3/MANIFEST.json" ] && fail "checkpoint-3 is gone"
cmp -s "$dir/np1/checkpoint-2/state.h5" "$dir/np1/checkpoint-3/state.h5" && fail "checkpoint-2 holds the state of step 3"
exit $failed
