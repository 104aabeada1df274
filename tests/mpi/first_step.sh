#!/bin/sh
# The policy that is trained is the policy that sampled: over the first mini-batch of a step every ratio is exactly 1 (their mean
# is 1, their variance 0), approxkl and the gap between log-probabilities of decoding and of training are 0. And the policy that
# starts is the reference: KL 0. Also, on two ranks, from an adapter that is not zero. With RLHF_HPC_DATA on trained
# models of both families.
. "${srcdir:-.}/tests/mpi/ppo_runs.sh"

# value NAME KEY: a number of the first step of a run
value() {
    head -n 1 "$work/$1/metrics.jsonl" | sed -n "s|.*\"$2\": \([^,}]*\).*|\1|p"
}

# first_step NAME KL RANKS OPTION..: one update in the first step; KL: 0, or "any"
first_step() {
    name=$1 kl=$2 np=$3
    shift 3
    ppo "$name" "$np" -s ppo.mini_batch_size=24 -s ppo.ppo_epochs=1 -s run.max_steps=1 "$@" || {
        cat "$work/$name.log"
        fail "$name"
    }
    for want in val/ratio=1 val/ratio_var=0 policy/approxkl_avg=0 policy/clipfrac_avg=0 sampling/logprob_gap=0 \
        objective/kl="$kl"; do
        got=$(value "$name" "${want%=*}")
        case ${want#*=} in
        any) [ "$got" != 0 ] || fail "$name: KL of an adapter that is not zero is 0" ;;
        *) [ "$got" = "${want#*=}" ] || fail "$name: ${want%=*} is $got, not ${want#*=}" ;;
        esac
    done
    echo "$name: $(value "$name" response_length/mean) tokens a response, ratio $(value "$name" val/ratio), its variance" \
        "$(value "$name" val/ratio_var), approxkl $(value "$name" policy/approxkl_avg), logprob_gap" \
        "$(value "$name" sampling/logprob_gap), kl $(value "$name" objective/kl)"
}

for mode in none dequant llm.int8; do
    first_step $mode 0 1 $(mode $mode) -s ppo.micro_batch_size=5
    first_step $mode-again any 2 $(mode $mode) -s model.adapter="$work/$mode/adapter" -s model.ref_adapter=none -s run.seed=1 \
        -s generate.slots=3
    if [ -n "${RLHF_HPC_DATA:-}" ]; then
        first_step $mode-llama 0 2 $(mode $mode) -s model.path="$RLHF_HPC_DATA/models/stories260K" \
            -s data.path="$RLHF_HPC_DATA/prompts/tinystories.jsonl" -s data.prompt_tokens='[3, 17]'
        first_step $mode-neox 0 2 $(mode $mode) -s model.path="$RLHF_HPC_DATA/models/mini-gpt-neox-imdb" \
            -s data.path="$RLHF_HPC_DATA/prompts/reviews.jsonl"
    fi
done
[ -n "${RLHF_HPC_DATA:-}" ] || echo "RLHF_HPC_DATA is not set: without the trained models"
