#!/bin/sh
# Rewards of type adapter: the logits that transformers and peft computed for token sequences; a PPO run on the same base has the
# same bits on 1, 2 and 4 ranks, and no second model in its plan.
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
recorded=tests/reference/reward-adapter

cat >"$work/evaluate.cfg" <<END
task = "evaluate";
model: { path = "input/tiny"; quantization = "none"; };
data: { path = "$recorded/expected.jsonl"; };
evaluate: { what = "texts"; };
reward = ( { type = "adapter"; path = "$recorded"; } );
END
for class in 0 1; do
    ranks 2 "$program" "$work/evaluate.cfg" -s run.output_dir="$work/class$class" -s reward.0.label=$class >"$work/log" 2>&1 ||
        { cat "$work/log"; fail "class $class"; }
    sed 's/.*"score": \([^,}]*\).*/\1/' "$work/class$class/evaluate.jsonl" >"$work/scores"
    sed 's/.*"logits": \[\(.*\)\].*/\1/' $recorded/expected.jsonl | cut -d, -f$((class + 1)) | paste - "$work/scores" | awk '
        { d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d; if (d > 1e-4 + 1e-5 * ($1 < 0 ? -$1 : $1)) bad = 1 }
        END { printf "%g off\n", worst; exit bad || NR != 3 }' || fail "logits of class $class"
done

cat >"$work/rewards" <<END
reward = ( { type = "adapter"; name = "first"; path = "$recorded"; function_to_apply = "softmax"; },
           { type = "adapter"; name = "second"; path = "$recorded"; label = "LABEL_0"; weight = 0.5; } );
END
sed '/^reward/d' input/tiny-ppo.cfg | cat - "$work/rewards" >"$work/ppo.cfg"
PPO_INPUT=$work/ppo.cfg
for n in 1 2 4; do
    ppo np$n $n -s run.max_steps=2 -s run.threads=1 || { cat "$work/np$n.log"; fail "PPO on $n"; }
    [ $n = 1 ] || same np1 np$n
done
! grep '^  reward model' "$work/np1.log" || fail "a second model in the plan"
for part in first second; do
    [ "$(grep -o "\"reward/$part\": [^,}]*" "$work/np1/metrics.jsonl" | sort -u | wc -l)" -eq 2 ] || fail "reward/$part of two steps"
done
echo "2 steps on 1, 2 and 4 ranks, equal bits"
