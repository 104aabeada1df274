#!/bin/sh
# A run whose ranks are killed (SIGKILL) in the middle of a step and that is resumed on another number of ranks ends with the bits
# of a run that was left alone.
#
#   tests/mpi/killed.sh [STEPS SAVED]    STEPS of the whole run, killed after the checkpoint of step SAVED (default 11, 6)
#   MODES: numeric modes of none, dequant, llm.int8 (default llm.int8)
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"
steps=${1:-11} saved=${2:-6}
[ -r /proc/$$/task/$$/children ] || { echo "skipped: /proc does not list the children of a process"; exit 77; }

for mode in ${MODES:-llm.int8}; do
    set -- $(mode "$mode") -s run.max_steps="$steps" -s optim.lr_scheduler_type=cosine -s run.save_steps="$saved" \
        -s run.save_total_limit=0
    ppo $mode-whole 1 "$@" || { cat "$work/$mode-whole.log"; fail "the whole run"; }
    for np in 2 4; do
        killed "$saved" "$steps" ppo $mode-np$np $np "$@"
        next=$((np == 2 ? 4 : 1))
        ppo $mode-np$np $next "$@" --resume || { cat "$work/$mode-np$np.log"; fail "resumed on $next ranks"; }
        grep -Eq "step +$((saved + 1))/$steps " "$work/$mode-np$np.log" || fail "the run did not continue after step $saved"
        ! grep -Eq "step +$saved/$steps " "$work/$mode-np$np.log" || fail "the run began anew"
        same $mode-whole $mode-np$np
        echo "$mode: $steps steps on 1 rank = $saved steps on $np ranks, killed, the rest on $next"
    done
done
