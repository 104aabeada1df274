#!/bin/sh
# Memory is planned: a run places what --plan prints, to the byte, and after its first step the program allocates nothing.
# What libraries allocate in its steps is listed. No checkpoint is written between these steps, and no better adapter, as the policy
# stays what it is: file names, JSON and HDF5 objects are made for the occasion and freed with it.
cd "${srcdir:-.}" || exit 1
. tests/mpi/run.sh
. tests/mpi/classifiers.sh
program=${builddir:-.}/rlhf-hpc counter=${builddir:-.}/tests/support/.libs/allocations.so steps=4
[ -f "$counter" ] || { echo "skipped: no shared libraries"; exit 77; }

head -n 7 input/tiny/prompts.heldout.jsonl >"$work/eval.jsonl" || fail "no prompts"

classifier distilbert letters

# All that a step can ask of the host: rewards of every type, stop strings, drawn lengths, early ends, an evaluation, shown samples.
cat >"$work/ppo.cfg" <<END
task = "ppo";
model: { path = "input/tiny"; quantization = "int8"; outlier_threshold = 2.5; };
lora: { target_modules = ["all-linear"]; };
data: { path = "input/tiny/prompts.jsonl"; eval_path = "$work/eval.jsonl";
        prompt_tokens = [2, 9]; };
generate: { max_new_tokens = [3, 20]; ignore_eos = false; stop_strings = ["great", "."]; };
reward = ( { type = "lexicon"; path = "input/tiny/lexicon.tsv"; weight = 5.0; },
           { type = "program"; command = "while read -r line; do echo \${#line}; done"; weight = 0.01; },
           { type = "classifier"; path = "$work/distilbert-letters"; },
           { type = "adapter"; path = "tests/reference/reward-adapter"; } );
ppo: { batch_size = 12; mini_batch_size = 6; micro_batch_size = 2; ppo_epochs = 2; ent_coef = 0.01; };
run: { output_dir = "$work/run"; max_steps = $steps; save_steps = 0; eval_steps = 1; sample_steps = 1; threads = 1; };
optim: { learning_rate = 0.0; };
END

# The same of fine-tuning; at a rate of 0 no evaluation is better than the first, so that no adapter is written.
cat >"$work/sft.cfg" <<END
task = "sft";
model: { path = "input/tiny"; quantization = "int8"; outlier_threshold = 2.5; };
lora: { target_modules = ["all-linear"]; };
data: { path = "input/tiny/completions.jsonl"; eval_path = "input/tiny/completions.heldout.jsonl"; };
sft: { batch_size = 12; micro_batch_size = 2; };
optim: { learning_rate = 0.0; };
run: { output_dir = "$work/run"; max_steps = $steps; save_steps = 0; eval_steps = 2; threads = 1; };
END

# The same of pairs of answers.
cat >"$work/reward.cfg" <<END
task = "reward";
model: { path = "input/tiny"; quantization = "int8"; outlier_threshold = 2.5; };
lora: { target_modules = ["all-linear"]; };
data: { path = "$work/pairs.jsonl"; eval_path = "$work/pairs.jsonl"; };
reward_model: { batch_size = 12; micro_batch_size = 2; };
optim: { learning_rate = 0.0; };
run: { output_dir = "$work/run"; max_steps = $steps; save_steps = 0; eval_steps = 2; threads = 1; };
END
sed 's/.*"completion": "\(.*\)"}$/{"chosen": "It was good.\1", "rejected": "It was bad."}/' input/tiny/completions.heldout.jsonl |
    head -n 20 >"$work/pairs.jsonl"

# Lines of the plan's table.
table()
{
    sed -n '/^memory plan/,/^  longest sequence/p' "$1"
}

# planned TASK RANKS FIRST: the task allocates what it plans, and nothing in its steps once FIRST lines of metrics are written
planned()
{
    task=$1 n=$2 first=$3
    rm -rf "$work/run" "$work/reports"
    mkdir "$work/reports"
    ranks $n "$program" --plan "$work/$task.cfg" >"$work/plan.log" 2>&1 || { cat "$work/plan.log"; fail "$task --plan on $n"; }
    ranks $n env LD_PRELOAD="$counter" ALLOCATIONS_LINES="$work/run/metrics.jsonl" ALLOCATIONS_FIRST=$first \
        ALLOCATIONS_LAST=$((first + steps - 1)) ALLOCATIONS_REPORT="$work/reports" "$program" "$work/$task.cfg" >"$work/run.log" 2>&1 ||
        { cat "$work/run.log"; fail "$task on $n"; }

    table "$work/plan.log" >"$work/planned"
    table "$work/run.log" >"$work/placed"
    grep -q "^  host staging " "$work/planned" || { cat "$work/plan.log"; fail "no plan of $task on $n"; }
    diff "$work/planned" "$work/placed" || fail "$task on $n placed another plan"

    [ "$(cat "$work"/reports/* | grep -c '^done$')" -eq $n ] || fail "not one report a rank of $task on $n"
    echo "allocations of $((steps - 1)) steps of $task on $n, of all ranks:"
    sed '/^done$/d' "$work"/reports/* | awk '{ calls[$3] += $1; bytes[$3] += $2 }
        END { for (o in calls) printf "%8d calls %10d bytes  %s\n", calls[o], bytes[o], o; if (!NR) print "none" }'
    ! grep -h ' program+' "$work"/reports/* ||
        fail "$task allocates in its steps on $n (addr2line -e rlhf-hpc -f 0x..)"
}

for n in 1 2; do
    planned ppo $n 1
    planned sft $n 2 # the first line is the evaluation before the first step
    planned reward $n 2
done
exit 0
