#!/bin/sh
# PPO on the embedded model through the CUDA backend: its metrics follow the CPU backend's, 1 rank and 2 give the same bits, and a
# killed run goes on as if nothing had been. On a card, or on the CPU where LD_LIBRARY_PATH leads to tests/shim.
#   tests/gpu/ppo.sh [STEPS [OPTION..]]
. "$srcdir/tests/mpi/ppo_runs.sh"
steps=${1:-20}
[ $# -gt 0 ] && shift

# run NAME RANKS DEVICE OPTION..
run() {
    to=$1 n=$2 device=$3
    shift 3
    ppo "$to" "$n" -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s 'generate.max_new_tokens=[4, 9]' \
        -s generate.ignore_eos=true -s run.max_steps="$steps" -s run.device="$device" -s run.sample_steps="$steps" "$@"
}

# mean NAME KEY FIRST: of a metric from step FIRST on
mean() {
    sed -n "$3,\$p" "$work/$1/metrics.jsonl" | grep -oE "\"$2\": *[-0-9.e+]+" | awk '{ s += $2 } END { printf "%.6g", s / NR }'
}

# follows WHAT KEY FIRST ABSOLUTE RELATIVE: the CUDA run's mean is the CPU's within these
follows() {
    c=$(mean cpu "$2" "$3") g=$(mean cuda "$2" "$3")
    echo "$1: CPU $c, CUDA $g"
    awk -v c="$c" -v g="$g" -v a="$4" -v r="$5" 'BEGIN { d = g - c; e = a + r * (c < 0 ? -c : c); exit !(d < e && -d < e) }' ||
        fail "$1: $g, the CPU has $c"
}

for mode in ${MODES:-none dequant llm.int8}; do
    rm -rf "$work/cpu" "$work/cuda" "$work/two" "$work/killed"
    options="$(mode $mode)"
    run cpu 1 cpu $options "$@" || { cat "$work/cpu.log"; fail "$mode on the CPU"; }
    run cuda 1 cuda $options "$@" || { cat "$work/cuda.log"; fail "$mode on CUDA"; }
    run two 2 cuda $options ${SHARE:+-s run.share_device=true} "$@" || { cat "$work/two.log"; fail "$mode on CUDA, 2 ranks"; }
    echo "== $mode, $steps steps"
    same cuda two
    # one token drawn otherwise makes another trajectory: means over the run, within bf16's 2^-8 and that
    follows "entropy of the policy" policy/entropy_avg 1 0.05 0.02
    follows "score" objective/scores 1 0.5 0.1
    follows "KL" objective/kl 1 0.05 0.25
    follows "value loss" loss/value_avg 1 0.05 0.25
    gap=$(mean cuda sampling/logprob_gap 1)
    awk -v g="$gap" 'BEGIN { exit !(g == 0) }' || fail "$mode: a gap of $gap between drawn and recomputed log-probs"
done
