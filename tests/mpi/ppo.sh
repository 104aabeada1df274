#!/bin/sh
# A short PPO run on the embedded model: the same adapters and metrics on 1, 2 and 4 ranks, with other threads, micro-batches
# and slots, in every numeric mode; a run that stops and continues on other ranks ends with the same bits.
[ "${MPIEXEC:-no}" != no ] || { echo "no mpirun"; exit 77; }
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
export OMP_WAIT_POLICY=passive # four ranks of two threads on few cores must not spin

# run NAME RANKS THREADS MICRO SLOTS STEPS OPTIONS..
run() {
    name=$1 ranks=$2 threads=$3 micro=$4 slots=$5 steps=$6
    shift 6
    "$MPIEXEC" -np "$ranks" "$program" "$@" -s run.output_dir="$dir/$name" -s run.threads="$threads" \
        -s ppo.micro_batch_size="$micro" -s generate.slots="$slots" -s run.max_steps="$steps" -s ppo.batch_size=12 \
        -s ppo.mini_batch_size=6 -s ppo.ppo_epochs=2 -s 'generate.max_new_tokens=[3, 20]' -s generate.ignore_eos=false \
        -s run.save_steps=2 -s optim.lr_scheduler_type=constant input/tiny-ppo.cfg >"$dir/$name.log" 2>&1 || {
        echo "$name failed:"
        cat "$dir/$name.log"
        failed=1
    }
}

# Metrics without times, one line a step.
numbers() {
    sed 's/, "time\/.*//' "$dir/$1/metrics.jsonl"
}

same() {
    numbers "$1" >"$dir/a"
    numbers "$2" >"$dir/b"
    cmp "$dir/a" "$dir/b" && cmp "$dir/$1/adapter/adapter_model.safetensors" "$dir/$2/adapter/adapter_model.safetensors" &&
        cmp "$dir/$1/adapter/model.safetensors" "$dir/$2/adapter/model.safetensors" || {
        echo "$1 and $2 differ"
        failed=1
    }
}

for mode in none dequant llm.int8; do
    case $mode in
    none) set -- -s model.quantization=none ;;
    *) set -- -s model.quantization=int8 -s model.matmul=$mode -s model.outlier_threshold=2.5 ;;
    esac
    run $mode-1 1 1 6 16 3 "$@"
    run $mode-2 2 1 1 3 3 "$@"
    run $mode-4 4 2 4 16 3 "$@"
    same $mode-1 $mode-2
    same $mode-1 $mode-4
    # the first mini-batch of the first step cannot know that it differs from the rollout
    head -n 1 "$dir/$mode-1/metrics.jsonl" | grep -q '"objective/kl": 0,' || { echo "$mode: KL of step 1 is not 0"; failed=1; }
    head -n 1 "$dir/$mode-1/metrics.jsonl" | grep -q '"sampling/logprob_gap": 0,' || { echo "$mode: gap is not 0"; failed=1; }
done
run resumed 2 1 6 16 2 -s model.quantization=none
run resumed 1 2 2 4 3 -s model.quantization=none --resume
same none-1 resumed
exit $failed
