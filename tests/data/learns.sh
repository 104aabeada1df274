#!/bin/sh
# PPO with the VADER lexicon on trained models of both families: the mean score of responses to 200 prompts that were kept apart
# rises by at least 3 standard errors of the difference, with a KL below 10. Takes minutes; needs RLHF_HPC_DATA.
#
#   tests/data/learns.sh [MODEL..]    default: stories260K neox-imdb; NP: ranks (2)
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no trained models"; exit 77; }
. "${srcdir:-.}/tests/bench/judge.sh"
inputs=$(cd "$srcdir/tests/data" && pwd)
cd "$RLHF_HPC_DATA" || exit 99
[ $# -gt 0 ] || set -- stories260K neox-imdb
for model in "$@"; do
    cfg=$inputs/$model.cfg
    prompts=$(sed -n 's/^data:.*path = "\([^"]*\)".*/\1/p' "$cfg")
    awk -v apart="$work/heldout.jsonl" 'NR % 2 || n == 200 { print; next } { n++; print >apart }' \
        "$prompts" >"$work/prompts.jsonl"
    judge $model-before "$cfg" "$work/heldout.jsonl"
    begin=$(date +%s)
    launch $model "$cfg" -s data.path="$work/prompts.jsonl"
    seconds=$(($(date +%s) - begin))
    judge $model-after "$cfg" "$work/heldout.jsonl" -s model.adapter="$work/$model/adapter"
    before=$(total $model-before score) after=$(total $model-after score) kl=$(total $model-after kl)
    rise="($after - $before) / sqrt($(total $model-before score_stderr) ^ 2 + $(total $model-after score_stderr) ^ 2)"
    echo "$model: score $(calc "$before") +- $(calc "$(total $model-before score_stderr)") before, $(calc "$after") +-" \
        "$(calc "$(total $model-after score_stderr)") after $seconds s: $(calc "$rise") standard errors; KL $(calc "$kl");" \
        "distinct-2 $(calc "$(total $model-before distinct_2)") before, $(calc "$(total $model-after distinct_2)") after"
    grep -E '^ *(prompt|reference|policy) ' "$work/$model.log"
    holds "$rise >= 3" "$model: standard errors that the score rose by"
    holds "$kl < 10 && $kl > 0" "$model: KL"
done
