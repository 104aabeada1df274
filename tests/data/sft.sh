#!/bin/sh
# Fine-tuning a trained model on film reviews as they were written (with <br /> in them) lowers the perplexity of held-out ones by at
# least a tenth. Takes minutes; needs RLHF_HPC_DATA.
#
#   tests/data/sft.sh [STEPS]    default: one epoch, 330 steps; NP: ranks (2)
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
[ -n "${RLHF_HPC_DATA:-}" ] || { echo "RLHF_HPC_DATA is not set: no trained models"; exit 77; }
. "$srcdir/tests/mpi/run.sh"
cat >"$work/sft.cfg" <<END
task = "sft";
model: { path = "$RLHF_HPC_DATA/models/mini-gpt-neox-imdb"; };
lora: { target_modules = ["all-linear"]; };
data: { path = "$RLHF_HPC_DATA/reviews/imdb.train.jsonl"; eval_path = "$RLHF_HPC_DATA/reviews/imdb.heldout.jsonl"; };
sft: { block_size = 256; batch_size = 16; };
optim: { learning_rate = 2e-3; };
run: { output_dir = "$work/run"; max_steps = ${1:-0}; };
END
begin=$(date +%s)
ranks "${NP:-2}" "$builddir/rlhf-hpc" "$work/sft.cfg" >"$work/log" 2>&1 || { cat "$work/log"; fail "sft"; }
seconds=$(($(date +%s) - begin))
perplexity='s/.*"eval\/perplexity": \([^,}]*\).*/\1/p'
before=$(sed -n "1$perplexity" "$work/run/metrics.jsonl" | head -n 1)
after=$(tail -n 1 "$work/run/metrics.jsonl" | sed -n "$perplexity")
echo "held-out perplexity $before before, $after after $(tail -n 1 "$work/run/metrics.jsonl" | sed 's/^{"step": \([0-9]*\).*/\1/') steps," \
    "$seconds s with both evaluations"
awk -v a="$after" -v b="$before" 'BEGIN { exit !(a < 0.9 * b) }' || fail "the perplexity did not fall by a tenth"
