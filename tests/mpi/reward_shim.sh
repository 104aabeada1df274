#!/bin/sh
# Rewards of the CUDA module, on the shim: a classifier's scores are near those of the CPU (bfloat16 against float), and a PPO run with
# an encoder, a causal classifier and a reward adapter has the same bits on one rank and on two.
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
. tests/mpi/shim.sh
. tests/mpi/classifiers.sh
classifier distilbert letters
classifier llama-classifier letters
cat >"$work/rewards" <<END
reward = ( { type = "classifier"; name = "mood"; path = "$work/distilbert-letters"; label = "good"; },
           { type = "classifier"; name = "size"; path = "$work/llama-classifier-letters"; quantization = "int8"; max_length = 12; },
           { type = "adapter"; path = "tests/reference/reward-adapter"; } );
END
sed '/^reward/d' input/tiny-ppo.cfg | cat - "$work/rewards" >"$work/ppo.cfg"
PPO_INPUT=$work/ppo.cfg

printf '{"text": "a fine film, with wit."}\n{"text": "dull"}\n' >"$work/texts.jsonl"
sed "s/name = \"size\"/weight = 0.0; &/" "$work/ppo.cfg" >"$work/texts.cfg"
for reward in 0 2; do # mood alone, then the adapter alone: the other has no weight
    for device in cpu cuda; do
        "$program" "$work/texts.cfg" -s task=evaluate -s evaluate.what=texts -s data.path="$work/texts.jsonl" -s run.device=$device \
            -s reward.$((2 - reward)).weight=0 -s run.output_dir="$work/$device$reward" >"$work/log" 2>&1 || { cat "$work/log"; fail "texts on $device"; }
        sed 's/.*"score": \([^,}]*\).*/\1/' "$work/$device$reward/evaluate.jsonl" >"$work/$device.scores"
    done
    paste "$work/cpu.scores" "$work/cuda.scores" | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { printf "%g off at most\n", worst; exit worst > 0.05 || !NR }' || fail "reward $reward: other scores"
done

small="-s run.device=cuda -s run.max_steps=1 -s run.sample_steps=1 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s generate.max_new_tokens=[3,8]"
ppo one 1 $small || { cat "$work/one.log"; fail "PPO on one rank"; }
ppo two 2 $small || { cat "$work/two.log"; fail "PPO on two ranks"; }
same one two
echo "one step on 1 and 2 ranks, equal bits"
