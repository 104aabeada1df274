#!/bin/sh
# The small recipe on real reviews (input/imdb-small): fine-tuning lowers the perplexity of held-out reviews; PPO raises the reward on
# 200 held-out prompts by at least 3 standard errors of the difference from each seed, with a KL below 10. Takes minutes; needs
# RLHF_HPC_DATA.
#
#   tests/data/pipeline.sh [SEED..]    default: 0 1 2; NP: ranks (2)
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no trained models, no reviews"; exit 77; }
RLHF_HPC_DATA=$(cd "$RLHF_HPC_DATA" && pwd); export RLHF_HPC_DATA
. "${srcdir:-.}/tests/bench/judge.sh"
[ $# -gt 0 ] || set -- 0 1 2
build=$(cd "$builddir" && pwd)
mkdir "$work/top" && cp -R "$srcdir/jobs" "$srcdir/input" "$work/top" && chmod -R u+w "$work/top" && cd "$work/top" || exit 99
cp input/imdb-small/ppo.cfg "$work" || exit 99
cfg=input/imdb-small/ppo.cfg prompts=runs/imdb-small/data/prompts.heldout.jsonl
for seed in "$@"; do
    begin=$(date +%s)
    sed "s/^run: {/run: { seed = $seed;/" "$work/ppo.cfg" >$cfg
    BUILD=$build jobs/pipeline.sh input/imdb-small >"$work/pipeline.log" 2>&1 || { tail -n 30 "$work/pipeline.log"; fail "seed $seed"; }
    grep '^== ' "$work/pipeline.log"
    if [ ! -e runs/before ]; then
        perplexity='s/.*"eval\/perplexity": \([^,}]*\).*/\1/p'
        before=$(sed -n "1$perplexity" runs/imdb-small/sft/metrics.jsonl) after=$(sed -n "$perplexity" runs/imdb-small/sft/metrics.jsonl | tail -n 1)
        accuracy=$(sed -n 's/.*"eval\/accuracy": \([^,}]*\).*/\1/p' runs/imdb-small/classifier/metrics.jsonl | tail -n 1)
        echo "perplexity of held-out reviews: $(calc "$before"), $(calc "$after") after fine-tuning; the pipeline's own classifier: $(calc "100 * $accuracy") %"
        holds "$after < $before" "perplexity"
        judge reference $cfg $prompts
        touch runs/before
    fi
    judge policy-$seed $cfg $prompts -s model.adapter=runs/imdb-small/ppo/adapter
    before=$(total reference score) after=$(total policy-$seed score) kl=$(total policy-$seed kl)
    rise="($after - $before) / sqrt($(total reference score_stderr) ^ 2 + $(total policy-$seed score_stderr) ^ 2)"
    echo "seed $seed: reward $(calc "$before") +- $(calc "$(total reference score_stderr)") before, $(calc "$after") +-" \
        "$(calc "$(total policy-$seed score_stderr)") after: $(calc "$rise") standard errors; KL $(calc "$kl"); distinct-2" \
        "$(calc "$(total reference distinct_2)") before, $(calc "$(total policy-$seed distinct_2)") after; $(($(date +%s) - begin)) s"
    grep -E '^ *(prompt|reference|policy) ' "$work/pipeline.log"
    holds "$rise >= 3" "seed $seed: standard errors that the reward rose by"
    holds "$kl < 10 && $kl > 0" "seed $seed: KL"
    rm -r runs/imdb-small/ppo
done
