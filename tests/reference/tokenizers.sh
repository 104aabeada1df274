#!/bin/sh
# Random strings through every tokenizer of the data folder, against Hugging Face's library: see tokenizers_random.py.
#   tests/reference/tokenizers.sh [COUNT]    strings for each tokenizer (make check: 60; the measure of the project: 10000)
# Needs $RLHF_HPC_DATA, and Python ($RLHF_HPC_PYTHON, python3) with tokenizers.
srcdir=${srcdir:-.} program=${builddir:-.}/rlhf-hpc
python=${RLHF_HPC_PYTHON:-python3}
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -n "$RLHF_HPC_DATA" ] || skip "RLHF_HPC_DATA is not set"
"$python" -c 'import tokenizers' 2>/dev/null || skip "$python has no tokenizers: set RLHF_HPC_PYTHON"
exec "$python" "$srcdir/tests/reference/tokenizers_random.py" "$program" "${1:-60}" "$RLHF_HPC_DATA"/tokenizers/* "$RLHF_HPC_DATA"/models/* \
    --stages "$RLHF_HPC_DATA/models/mini-gpt2-imdb"
