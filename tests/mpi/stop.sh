#!/bin/sh
# Runs end early with a checkpoint and exit code 75: before the end of the Slurm job, before run.max_walltime, after SIGUSR1.
# They continue from there.
. "$srcdir/tests/mpi/run.sh"
program=$builddir/rlhf-hpc
cd "$srcdir" || exit 1

# ppo NAME OPTIONS..: many short steps on two ranks
ppo()
{
    name=$1; shift
    ranks 2 "$program" input/tiny-ppo.cfg -s run.output_dir="$work/$name" -s run.threads=1 -s ppo.batch_size=4 \
        -s run.max_steps=5000 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s run.save_steps=0 -s generate.max_new_tokens=4 "$@" \
        >"$work/$name.out" 2>"$work/$name.err"
}

# stopped NAME CODE WHY END: the code is 75, the line says why, the checkpoint is of the last step and from before END
stopped()
{
    [ "$2" -eq 75 ] || { cat "$work/$1.err"; fail "$1: exit code $2"; }
    steps=$(wc -l <"$work/$1/metrics.jsonl")
    [ "$(grep -c '^rlhf-hpc:' "$work/$1.err")" -eq 1 ] &&
        grep -q "^rlhf-hpc: stopped early after step $steps, because of $3" "$work/$1.err" ||
        { cat "$work/$1.err"; fail "$1: other lines"; }
    manifest=$work/$1/checkpoint-$steps/MANIFEST.json
    [ -f "$manifest" ] || fail "$1: no checkpoint of step $steps"
    [ "$(stat -c %Y "$manifest")" -lt "$4" ] || fail "$1: the checkpoint came after the limit"
}

end=$(($(date +%s) + 4))
SLURM_JOB_END_TIME=$end ppo slurm
stopped slurm $? 'the end of the Slurm job' $end
SLURM_JOB_END_TIME=$(($(date +%s) + 1000)) ppo slurm --resume -s run.max_steps=$((steps + 1)) ||
    { cat "$work/slurm.err"; fail "resume"; }
[ "$(wc -l <"$work/slurm/metrics.jsonl")" -eq $((steps + 1)) ] || fail "the resumed run has not made one step"

end=$(($(date +%s) + 5)) # it starts counting a little later than we do
ppo walltime -s run.max_walltime=3
stopped walltime $? run.max_walltime $end

ppo signal & pid=$!
while kill -0 $pid 2>/dev/null && [ "$(cat "$work/signal/metrics.jsonl" 2>/dev/null | wc -l)" -lt 3 ]; do sleep 0.1; done
for child in $(cat /proc/$pid/task/$pid/children); do kill -USR1 "$child"; done # mpirun, which forwards it
wait $pid
stopped signal $? 'a signal' $(($(date +%s) + 1))
