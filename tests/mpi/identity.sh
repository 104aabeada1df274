#!/bin/sh
# The same bits whatever the ranks, threads, micro-batches and slots, in every numeric mode: adapters, metrics and samples; and
# each sample is trained by exactly one rank.
#
#   tests/mpi/identity.sh         3 runs of 3 steps in each mode (make check)
#   tests/mpi/identity.sh full    36 runs of 20 steps in each mode: -np 1, 2, 4 x threads 1, 2 x micro-batch 1, 4, 16 x slots 3, 16
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"

# variant MODE STEPS RANKS THREADS MICRO_BATCH SLOTS: one run, compared with the first of its mode
variant() {
    name=$1-np$3-threads$4-micro$5-slots$6
    ppo "$name" "$3" $(mode "$1") -s run.max_steps="$2" -s run.threads="$4" -s ppo.micro_batch_size="$5" -s generate.slots="$6" \
        -s ppo.mini_batch_size=24 -s lora.lora_dropout=0.05 || { cat "$work/$name.log"; fail "$name"; }
    grep -q "trained on $((24 * 2 * $2)) samples, each on one rank" "$work/$name.log" || fail "$name: not every sample trained once"
    if [ -z "$first" ]; then
        first=$name
        [ "$(numbers "$name" | sort -u | wc -l)" -eq "$2" ] || fail "$name: steps with equal numbers"
    else
        same "$first" "$name"
        rm -rf "${work:?}/$name"*
    fi
    runs=$((runs + 1))
}

for mode in ${MODES:-none dequant llm.int8}; do
    first='' runs=0
    if [ "${1:-}" = full ]; then
        for np in 1 2 4; do for threads in 1 2; do for micro in 1 4 16; do for slots in 3 16; do
            variant $mode 20 $np $threads $micro $slots
        done; done; done; done
    else
        variant $mode 3 1 1 16 16
        variant $mode 3 2 2 1 3
        variant $mode 3 4 1 4 16
    fi
    echo "$mode: $runs runs, equal bits; adapters $(sha256sum <"$work/$first/adapter/adapter_model.safetensors" | cut -c1-16)"
done
