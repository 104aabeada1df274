#!/bin/sh
# Encoding speed of every tokenizer of the data folder on reviews, stories and a play, on one core: at least 10 MB/s.
# Needs RLHF_HPC_DATA.
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no tokenizers"; exit 77; }
builddir=$(cd "${builddir:-build}" && pwd) || exit 99
make -s -C "$builddir" tests/bench/tokenizer || exit 99
cd "$RLHF_HPC_DATA" || exit 99
slow=0
for name in bert-base-uncased gpt2 gpt-neox-20b roberta-base llama-2 mistral-7b-v0.1 mistral-7b-v0.1-legacy llama-3 qwen3; do
    speed=$("$builddir/tests/bench/tokenizer" 10 tokenizers/$name reviews/imdb.train.jsonl text/tinystories.txt \
        text/tinyshakespeare.txt | sed -n 's/^separate: .* \([0-9.]*\) MB\/s$/\1/p')
    echo "$name: $speed MB/s"
    awk "BEGIN { exit !($speed >= 10) }" || slow=1
done
exit $slow
