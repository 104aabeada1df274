#!/bin/sh
# A fine-tuning whose ranks are killed (SIGKILL) in the middle of a step and that is resumed on another number of ranks ends with the
# bits of a run that was left alone; it goes on where it stopped. At this rate the adapter it began with stays the best, which the
# resumed run must know.
. "${srcdir:-.}/tests/mpi/sft_runs.sh"
[ -r /proc/$$/task/$$/children ] || { echo "skipped: /proc does not list the children of a process"; exit 77; }
steps=12 saved=5
set -- -s run.max_steps=$steps -s run.save_steps=$saved -s run.eval_steps=3 -s run.save_total_limit=0 -s run.threads=1 \
    -s optim.lr_scheduler_type=cosine -s optim.learning_rate=1e-2
completions whole 1 "$@" || { cat "$work/whole.log"; fail "the whole run"; }
[ "$(grep -c "^the best adapter so far" "$work/whole.log")" -eq 1 ] || { cat "$work/whole.log"; fail "another adapter was the best"; }
for np in 2 4; do
    killed $saved $steps completions np$np $np "$@"
    next=$((np == 2 ? 4 : 1))
    completions np$np $next "$@" --resume || { cat "$work/np$np.log"; fail "resumed on $next ranks"; }
    grep -q "^continuing from .*/checkpoint-$saved$" "$work/np$np.log" || { cat "$work/np$np.log"; fail "it began anew"; }
    ! grep -q "after step 0 " "$work/np$np.log" || fail "the run began with an evaluation again"
    equal whole np$np $files
    echo "$steps steps on 1 rank = $saved steps on $np ranks, killed, the rest on $next"
done

# it stops in time, with a checkpoint of its last step, and goes on from there
completions walltime 2 -s run.max_walltime=3 -s run.max_steps=5000 -s run.save_steps=0 -s run.threads=1
code=$?
stopped=$(tail -n 1 "$work/walltime/metrics.jsonl" | sed 's/^{"step": \([0-9]*\).*/\1/')
[ $code -eq 75 ] && grep -q "^rlhf-hpc: stopped early after step $stopped, because of run.max_walltime" "$work/walltime.log" &&
    [ -f "$work/walltime/checkpoint-$stopped/MANIFEST.json" ] || { cat "$work/walltime.log"; fail "exit code $code"; }
completions walltime 1 --resume -s run.max_steps=$((stopped + 1)) -s run.threads=1 || { cat "$work/walltime.log"; fail "resumed"; }
[ -e "$work/walltime/checkpoint-$((stopped + 1))" ] || fail "the resumed run has not made one step"
echo "stopped by run.max_walltime after step $stopped"
