#!/bin/sh
# Classifiers trained on film reviews, beside a bag of words: held-out accuracy on rt-polarity (9,162 sentences to learn from) and
# on IMDB (3,000 whole reviews), from a small language model and from the encoder of a sentiment classifier. The second has an
# advantage that its numbers must be read with: it was trained on 24,738 other IMDB reviews and on these rt-polarity sentences (not
# on what is held out).
# Takes some ten minutes; needs RLHF_HPC_DATA.
#
#   tests/data/reward.sh [DATA..]    rt-polarity, imdb (default both); NP: ranks (2)
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no reviews and no trained models"; exit 77; }
. "$srcdir/tests/mpi/run.sh"
reviews=$RLHF_HPC_DATA/reviews

# bag_of_words TRAIN HELDOUT: accuracy of naive Bayes on the words that a text has, once each, add-one smoothing (Pang, Lee and
# Vaithyanathan 2002)
bag_of_words() {
    awk '
    {
        label = text = $0
        sub(/^.*"label": /, "", label)
        label = substr(label, 1, 1)
        sub(/^.*"text": "/, "", text)
        sub(/", "label": .*$/, "", text)
        gsub(/\\u[0-9a-f]*|\\[nrt"\\]|<br \/>/, " ", text)
        n = split(tolower(text), word, /[^a-z0-9'\'']+/)
        heldout = FILENAME != ARGV[1]
        if (heldout && !all)
            for (w in vocabulary)
                words++
        split("", seen)
        odds = heldout ? log(texts[1] / texts[0]) : 0
        for (i = 1; i <= n; i++) {
            w = word[i]
            if (w == "" || w in seen)
                continue
            seen[w]
            if (heldout)
                odds += log((count[w, 1] + 1) / (total[1] + words)) - log((count[w, 0] + 1) / (total[0] + words))
            else {
                count[w, label]++
                total[label]++
                vocabulary[w]
            }
        }
        if (heldout) {
            right += (odds > 0) == label
            all++
        } else
            texts[label]++
    }
    END { printf "%.3f\n", right / all }' "$1" "$2"
}

# classifier DATA MODEL OPTION..: prints the held-out accuracy before and after, and the seconds
classifier() {
    data=$1 model=$2
    shift 2
    rm -rf "$work/run"
    cat >"$work/reward.cfg" <<END
task = "reward";
model: { path = "$RLHF_HPC_DATA/models/$model"; quantization = "none"; };
lora: { target_modules = ["all-linear"]; };
data: { path = "$reviews/$data.train.jsonl"; eval_path = "$reviews/$data.heldout.jsonl"; truncation = "keep_end"; };
reward_model: { loss = "cross_entropy"; label_names = ["NEGATIVE", "POSITIVE"]; };
run: { output_dir = "$work/run"; save_steps = 0; threads = 1; };
END
    begin=$(date +%s)
    ranks "${NP:-2}" "$builddir/rlhf-hpc" "$work/reward.cfg" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
    sed -n 's|.*"eval/accuracy": \([^,}]*\).*|\1|p' "$work/run/metrics.jsonl" | sed -n '1p;$p' | tr '\n' ' '
    echo $(($(date +%s) - begin))
}

# above LEAST DATA MODEL OPTION..: trains, prints a row, and asks for so much accuracy
above() {
    least=$1
    shift
    numbers=$(classifier "$@") || fail "$1 from $2"
    echo "$1 $2 $numbers" | awk '{ printf "%-12s %-28s %.3f before, %.3f after %d s\n", $1, $2, $3, $4, $5 }'
    echo "$numbers" | awk -v least="$least" '{ exit !($2 > least) }' || fail "$1 from $2: not above $least"
}

[ $# -gt 0 ] || set -- rt-polarity imdb
for data in "$@"; do
    words=$(bag_of_words "$reviews/$data.train.jsonl" "$reviews/$data.heldout.jsonl")
    printf '%-12s %-28s %.3f\n' "$data" "naive Bayes, bag of words" "$words"
    case $data in
    imdb) epochs=2.5 batch=8 least=$words ;;
    *) epochs=4 batch=16 least=0.74 ;;
    esac
    above "$least" "$data" mini-distilbert-sentiment -s optim.learning_rate=3e-4 -s reward_model.batch_size=32 \
        -s reward_model.num_train_epochs=2
    above 0.66 "$data" mini-gpt-neox-imdb -s optim.learning_rate=1e-3 -s lora.r=64 -s lora.lora_alpha=64 \
        -s reward_model.batch_size=$batch -s reward_model.num_train_epochs=$epochs
done
