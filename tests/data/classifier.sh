#!/bin/sh
# mini-distilbert-sentiment as a reward, from texts to scores: its golden logits with the weights of the file, and its accuracy on
# held-out reviews with both kinds of weights beside the one its makers measured. Needs RLHF_HPC_DATA.
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no trained models"; exit 77; }
. "$srcdir/tests/mpi/run.sh"
golden=$RLHF_HPC_DATA/golden/mini-distilbert-sentiment.jsonl

# The policy that evaluate asks for beside the reward reads 2 tokens of each text.
cat >"$work/evaluate.cfg" <<END
task = "evaluate";
model: { path = "$RLHF_HPC_DATA/models/mini-gpt2-imdb"; };
data: { max_length = 2; };
evaluate: { what = "texts"; };
reward = ( { type = "classifier"; path = "$RLHF_HPC_DATA/models/mini-distilbert-sentiment"; label = "POSITIVE"; } );
END

# scores FILE OPTION..: of its texts, a line each, in $work/scores
scores() {
    file=$1
    shift
    rm -rf "$work/out"
    ranks 2 "$builddir/rlhf-hpc" "$work/evaluate.cfg" -s data.path="$file" -s run.output_dir="$work/out" "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        fail "$file"
    }
    sed 's/.*"score": \([^,}]*\).*/\1/' "$work/out/evaluate.jsonl" >"$work/scores"
}

grep '"kind": "classify"' "$golden" | grep -v '"text": ""' >"$work/texts.jsonl"
for class in 0 1; do
    scores "$work/texts.jsonl" -s reward.0.label=$class
    sed 's/.*"logits": \[\([^]]*\)\].*/\1/' "$work/texts.jsonl" | cut -d, -f$((class + 1)) | paste - "$work/scores" | awk -v class=$class '
        { d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d; if (d > 1e-4 + 1e-5 * ($1 < 0 ? -$1 : $1)) bad = 1 }
        END { printf "golden logits of class %d: %d texts, %g off at most\n", class, NR, worst; exit bad || !NR }' || fail "golden logits"
done

# accuracy NAME EXPECTED QUANTIZATION SLACK: share of reviews whose class is that of the score's sign against the other's
accuracy() {
    texts=$RLHF_HPC_DATA/reviews/$1.heldout.jsonl
    scores "$texts" -s reward.0.quantization="$3" -s reward.0.function_to_apply=softmax
    sed 's/.*"label": \([01]\).*/\1/' "$texts" | paste - "$work/scores" | awk -v name="$1, $3" -v expected="$2" -v slack="$4" '
        { right += ($1 == 1) == ($2 > 0.5) }
        END { printf "%s: %d reviews, accuracy %.4f\n", name, NR, right / NR; d = right / NR - expected; exit d > slack || d < -slack }' ||
        fail "accuracy on $1 with $3"
}

for set in imdb=0.80867 rt-polarity=0.752; do
    accuracy ${set%=*} ${set#*=} none 0.0001
    accuracy ${set%=*} ${set#*=} int8 0.005
done
