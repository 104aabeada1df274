#!/bin/sh
# What the main job learns: the embedded model trained from several seeds; then the mean score of its responses to 200 prompts
# that it was not trained on, beside those of the reference policy and what the corpus's positive reviews say behind such prompts.
#
#   tests/bench/heldout.sh [SEED..]    default: 1 2 3; NP: ranks (2)
. "${srcdir:-.}/tests/bench/judge.sh"
[ $# -gt 0 ] || set -- 1 2 3
make -s -C "$builddir" make-corpus || fail "make-corpus"
corpus=$(cd "$builddir" && pwd)/make-corpus
cd "$srcdir" || exit 99
cfg=input/tiny-ppo.cfg prompts=input/tiny/prompts.heldout.jsonl

# processor_seconds BEGIN END: of a rank, between two outputs of times; that is the time by the clock where the machine is
# otherwise idle, for ranks that wait do not sleep
processor_seconds() {
    cat "$1" "$2" | tr 'ms' '  ' | awk -v ranks="$NP" 'NR % 2 == 0 { t = 60 * $1 + $2 + 60 * $3 + $4 - t }
        END { printf "%.0f\n", t / ranks }'
}

# Positive reviews behind their first words, which are the prompts: {"text": rest}
"$corpus" prompts 1 30000 200 | cmp - $prompts || fail "the prompts are not those of the corpus"
"$corpus" reviews 1 30000 200 | paste -d '\n' $prompts - |
    awk -F '"' 'NR % 2 { n = length($4); next } /"label": 1/ { printf "{\"text\": \"%s\"}\n", substr($4, n + 1) }' \
        >"$work/positive.jsonl"
launch positive $cfg -s task=evaluate -s evaluate.what=texts -s data.path="$work/positive.jsonl"
judge reference $cfg $prompts
best=$(total positive score) base=$(total reference score) diversity=$(total reference distinct_2)
row="%-18s %8s %8s %10s %8s %10s %8s\n"
printf "$row" policy score s.e. "gap closed" KL distinct-2 "s a rank"
printf "$row" reference "$(calc "$base")" "$(calc "$(total reference score_stderr)")" "" "" "$(calc "$diversity")" ""
printf "$row" "positive reviews" "$(calc "$best")" "$(calc "$(total positive score_stderr)")" "" "" "" ""
for seed in "$@"; do
    times >"$work/begin"
    launch trained-$seed $cfg -s run.seed="$seed" -s run.max_steps=100
    times >"$work/end"
    seconds=$(processor_seconds "$work/begin" "$work/end")
    judge heldout-$seed $cfg $prompts -s model.adapter="$work/trained-$seed/adapter"
    score=$(total heldout-$seed score) kl=$(total heldout-$seed kl) distinct=$(total heldout-$seed distinct_2)
    closed="($score - $base) / ($best - $base)"
    printf "$row" "seed $seed" "$(calc "$score")" "$(calc "$(total heldout-$seed score_stderr)")" "$(calc "100 * $closed") %" \
        "$(calc "$kl")" "$(calc "$distinct")" $seconds
    holds "$closed >= 0.6" "seed $seed: share of the gap that is closed"
    holds "$kl < 10 && $kl > 0" "seed $seed: KL"
    holds "$distinct >= $diversity / 2" "seed $seed: distinct-2"
    holds "$seconds < 180" "seed $seed: processor seconds of a rank"
done
echo "samples of the last:"
grep -E '^ *(prompt|reference|policy) ' "$work/trained-$seed.log"
