#!/usr/bin/env bash
# Recreates the embedded default bit for bit: corpus, prompts, completions, tokenizer and model of input/tiny. Takes minutes on two cores.
#   jobs/make-tiny.sh            BUILD=folder of the build (default build/), NP=ranks (default 2; the result is the same)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
make -s -C "$build" rlhf-hpc make-corpus
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
corpus=runs/tiny-corpus.jsonl
mkdir -p runs
rm -rf runs/tiny-pretrain
"$build/make-corpus" reviews 1 0 20000 >"$corpus"
"$build/make-corpus" prompts 1 20000 1024 >input/tiny/prompts.jsonl
"$build/make-corpus" prompts 1 30000 200 >input/tiny/prompts.heldout.jsonl
"$build/make-corpus" completions 1 40000 512 >input/tiny/completions.jsonl
"$build/make-corpus" completions 1 50000 128 >input/tiny/completions.heldout.jsonl
mpirun --oversubscribe -np "${NP:-2}" "$build/rlhf-hpc" input/tiny/pretrain.cfg
cp runs/tiny-pretrain/model/* input/tiny/
sha256sum input/tiny/model.safetensors input/tiny/tokenizer.json
