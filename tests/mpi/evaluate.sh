#!/bin/sh
# task = "evaluate": scores of texts as counted by hand, their log-probabilities with and without a reward; responses of the
# reference, whose KL is 0, and totals that follow from the lines; the same files on two ranks.
. "${srcdir:-.}/tests/mpi/run.sh"
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 99
printf 'good\t2\nbad\t-1\n' >"$work/lexicon.tsv"
# 3 / 4, -1 (of the text, not of the prompt beside it), 0
cat >"$work/texts.jsonl" <<'END'
{"text": "Good, good, bad day"}
{"prompt": "good", "text": "bad"}
{"text": "The film"}
END
cat >"$work/plain.cfg" <<END
task = "evaluate";
model: { path = "input/tiny"; };
data: { path = "$work/texts.jsonl"; };
run: { threads = 1; };
END
cat "$work/plain.cfg" - >"$work/scored.cfg" <<END
reward = ( { type = "lexicon"; path = "$work/lexicon.tsv"; } );
END

# evaluate NAME RANKS INPUT OPTIONS..
evaluate()
{
    name=$1 n=$2 input=$3
    shift 3
    ranks "$n" "$program" -s run.output_dir="$work/$name" "$@" "$work/$input.cfg" >"$work/$name.log" 2>&1 ||
        { cat "$work/$name.log"; fail "$name"; }
}

same()
{
    cmp "$work/$1/evaluate.jsonl" "$work/$2/evaluate.jsonl" && cmp "$work/$1/evaluate.json" "$work/$2/evaluate.json" ||
        fail "$1 and $2 differ"
}

evaluate texts 1 scored -s evaluate.what=texts
evaluate texts2 2 scored -s evaluate.what=texts
same texts texts2
[ "$(sed 's/.*"score": \(.*\)}/\1/' "$work/texts/evaluate.jsonl" | tr '\n' ' ')" = "0.75 -1 0 " ] || fail "scores of texts"
evaluate plain 2 plain
sed 's/, "score.*}/}/' "$work/texts/evaluate.jsonl" | cmp - "$work/plain/evaluate.jsonl" || fail "a reward changes log-probabilities"

evaluate responses 1 scored -s reward.0.path=input/tiny/lexicon.tsv -s data.path=input/tiny/prompts.heldout.jsonl \
    -s 'generate.max_new_tokens=[2,7]' -s generate.slots=50
evaluate responses2 2 scored -s reward.0.path=input/tiny/lexicon.tsv -s data.path=input/tiny/prompts.heldout.jsonl \
    -s 'generate.max_new_tokens=[2,7]' -s generate.slots=3 \
    -s run.threads=2 -s evaluate.micro_batch_size=1
same responses responses2
[ "$(grep -c '"kl": 0.0}' "$work/responses/evaluate.jsonl")" = 200 ] || fail "the KL of the reference to itself is not 0"
sed 's/.*"score": \([^,]*\).*/\1/' "$work/responses/evaluate.jsonl" |
    awk -v totals="$(cat "$work/responses/evaluate.json")" '
        function total(name) { match(totals, "\"" name "\": [^,}]*"); return substr(totals, RSTART + length(name) + 4) + 0 }
        function near(a, b) { return a - b < 1e-9 && b - a < 1e-9 }
        { sum += $1; squares += $1 * $1 }
        END {
            mean = sum / NR; std = sqrt((squares - NR * mean * mean) / (NR - 1))
            exit !(sum != 0 && total("prompts") == NR && near(total("score"), mean) && near(total("score_std"), std) &&
                   near(total("score_stderr"), std / sqrt(NR)))
        }' || { cat "$work/responses/evaluate.json"; fail "the totals do not follow from the scores"; }

# a plan writes nothing: a folder that holds a run does not stop it
mkdir "$work/run" && echo '{"step": 1}' >"$work/run/metrics.jsonl"
evaluate run 1 plain --plan
[ "$(ls "$work/run")" = metrics.jsonl ] || fail "the plan wrote into the folder"
exit 0
