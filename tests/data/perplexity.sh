#!/bin/sh
# Perplexity of the trained models with int8 weights, in both ways of multiplying, within 1 % of that with the weights of the
# file; and that one as it was computed by other code. Needs RLHF_HPC_DATA.
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no trained models"; exit 77; }
. "$srcdir/tests/mpi/run.sh"

# total NAME KEY: a number of evaluate.json
total() {
    sed -n "s/.*\"$2\": \([^,}]*\).*/\1/p" "$work/$1/evaluate.json"
}

# within NAME A B SHARE: A and B differ by at most that share of B
within() {
    awk -v a="$2" -v b="$3" -v share="$4" 'BEGIN { d = a / b - 1; exit !(d <= share && d >= -share) }' ||
        fail "$1: $2, which is not within $4 of $3"
}

# evaluate NAME OPTION..: a run into $work/NAME on two ranks
evaluate() {
    name=$1
    shift
    ranks 2 "$builddir/rlhf-hpc" "$work/evaluate.cfg" -s run.output_dir="$work/$name" "$@" >"$work/$name.log" 2>&1 || {
        cat "$work/$name.log"
        fail "$name"
    }
}

# compare MODEL TEXTS FORMAT: perplexities of the first 256 tokens of each text
compare() {
    cat >"$work/evaluate.cfg" <<END
task = "evaluate";
model: { path = "$RLHF_HPC_DATA/models/$1"; };
data: { path = "$2"; format = "$3"; max_length = 256; };
END
    evaluate "$1" -s model.quantization=none
    float=$(total "$1" perplexity)
    echo "$1: float32 $float over $(total "$1" tokens) tokens"
    for matmul in dequant llm.int8; do
        evaluate "$1-$matmul" -s model.quantization=int8 -s model.matmul=$matmul
        int8=$(total "$1-$matmul" perplexity)
        echo "$1: $matmul $int8, ratio $(awk "BEGIN { print $int8 / $float }")"
        [ "$int8" != "$float" ] || fail "$1: $matmul has not quantised anything"
        within "$1, $matmul" "$int8" "$float" 0.01
    done
}

# 100 stories, as in the golden values
awk -v RS='<[|]endoftext[|]>\n' 'NR <= 100 { printf "%s<|endoftext|>\n", $0 }' "$RLHF_HPC_DATA/text/tinystories.txt" \
    >"$work/stories.txt"
compare stories260K "$work/stories.txt" text
golden() {
    sed -n "s/.*\"$1\": \([^,}]*\).*/\1/p" "$RLHF_HPC_DATA/golden/stories260K.jsonl"
}
[ "$(total stories260K tokens)" -eq "$(golden tokens_scored)" ] || fail "stories260K: other tokens than in the golden values"
within "stories260K against the golden values" "$(total stories260K perplexity)" "$(golden perplexity_per_token)" 0.00001

# reviews as the model was trained on them
sed -n '1,100{s/"text": "/&<|endoftext|>/;s/<br \/>/\\n/g;p}' "$RLHF_HPC_DATA/reviews/imdb.heldout.jsonl" >"$work/reviews.jsonl"
compare mini-gpt-neox-imdb "$work/reviews.jsonl" jsonl
