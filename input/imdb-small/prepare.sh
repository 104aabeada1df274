#!/bin/sh
# What the stages read, in runs/imdb-small/data: a policy, a sentiment classifier, reviews to train on and reviews kept apart. With
# $RLHF_HPC_DATA they are trained models and real reviews; without it the embedded model, the made-up reviews that it was trained on,
# and the word list as the reward. Runs at the top of the source tree; BUILD: folder of the build.
set -eu
here=input/imdb-small data=runs/imdb-small/data
mkdir -p $data
link() {
    rm -f "$data/$2"
    ln -s "$1" "$data/$2"
}
if [ -n "${RLHF_HPC_DATA:-}" ]; then
    from=$(cd "$RLHF_HPC_DATA" && pwd)
    link "$from/models/mini-gpt-neox-imdb" policy
    link "$from/models/mini-distilbert-sentiment" reward
    link "$from/reviews/imdb.train.jsonl" reviews.jsonl
    link "$from/reviews/imdb.heldout.jsonl" heldout.jsonl
else
    make -s -C "$BUILD" make-corpus >&2
    rm -f $data/reviews.jsonl $data/heldout.jsonl
    "$BUILD/make-corpus" reviews 1 20000 3000 >$data/reviews.jsonl
    "$BUILD/make-corpus" reviews 1 30000 400 >$data/heldout.jsonl
    link "$PWD/input/tiny" policy
    echo sft sft.block_size=48
    echo sft data.min_chars=0
    echo ppo data.min_chars=0
    echo ppo 'data.prompt_tokens=[3, 8]'
    echo ppo reward.0.type=lexicon
    echo ppo reward.0.path=input/tiny/lexicon.tsv
    echo ppo reward.0.label=
    echo ppo reward.0.weight=5.0
fi
head -n 200 $data/heldout.jsonl >$data/prompts.heldout.jsonl
