#!/bin/sh
# A run whose ranks are killed (SIGKILL) in the middle of a step and that is resumed on another number of ranks ends with the bits
# of a run that was left alone.
#
#   tests/mpi/killed.sh [STEPS SAVED]    STEPS of the whole run, killed after the checkpoint of step SAVED (default 11, 6)
#   MODES: numeric modes of none, dequant, llm.int8 (default llm.int8)
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
steps=${1:-11} saved=${2:-6}
[ -r /proc/$$/task/$$/children ] || { echo "skipped: /proc does not list the children of a process"; exit 77; }

# children PID: processes started by it
children() {
    cat "/proc/$1/task/$1/children"
}

# killed NAME RANKS OPTION..: starts a run, waits until it is in a step behind its checkpoint, and kills its ranks
killed() {
    ppo "$@" &
    shell=$!
    until [ -d "$work/$1/checkpoint-$saved" ] && [ "$(wc -l <"$work/$1/metrics.jsonl")" -gt "$saved" ]; do
        kill -0 $shell 2>/dev/null || { cat "$work/$1.log"; fail "$1 ended before it could be killed"; }
        sleep 0.05
    done
    launcher=$shell
    pids=$(children $launcher)
    while [ "$(echo $pids | wc -w)" -lt "$2" ]; do # the shell's only child is mpirun, whose children are the ranks
        launcher=$pids
        pids=$(children $launcher) || fail "$1: no ranks found"
    done
    kill -KILL $pids || fail "$1: no ranks to kill"
    wait $shell && fail "$1 was killed, yet ended well"
    [ ! -e "$work/$1/checkpoint-$steps" ] || fail "$1 was killed too late"
    echo "$1: killed after step $(wc -l <"$work/$1/metrics.jsonl"), checkpoint of step $saved"
}

for mode in ${MODES:-llm.int8}; do
    set -- $(mode "$mode") -s run.max_steps="$steps" -s optim.lr_scheduler_type=cosine -s run.save_steps="$saved" \
        -s run.save_total_limit=0
    ppo $mode-whole 1 "$@" || { cat "$work/$mode-whole.log"; fail "the whole run"; }
    for np in 2 4; do
        killed $mode-np$np $np "$@"
        next=$((np == 2 ? 4 : 1))
        ppo $mode-np$np $next "$@" --resume || { cat "$work/$mode-np$np.log"; fail "resumed on $next ranks"; }
        grep -Eq "step +$((saved + 1))/$steps " "$work/$mode-np$np.log" || fail "the run did not continue after step $saved"
        ! grep -Eq "step +$saved/$steps " "$work/$mode-np$np.log" || fail "the run began anew"
        same $mode-whole $mode-np$np
        echo "$mode: $steps steps on 1 rank = $saved steps on $np ranks, killed, the rest on $next"
    done
done
