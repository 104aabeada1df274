#!/bin/sh
# One PPO step here and in a plain PyTorch loop of the same shape, batch, lengths, epochs and adapters: in turn, ROUNDS times,
# on the same number of threads; prints the ratios by phase against torch's faster dtype.
#   RLHF_HPC_PEERS=folder-of-torch_ppo.py tests/bench/torch_ppo.sh [1M|15M] [options of rlhf-hpc, as -s model.quantization=none]
# PYTHON: an interpreter with torch; ROUNDS (3); THREADS (2); builddir: where rlhf-hpc is (build, or here)
here=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
peer=${RLHF_HPC_PEERS:+$RLHF_HPC_PEERS/torch_ppo.py} python=${PYTHON:-python3} rounds=${ROUNDS:-3} threads=${THREADS:-2}
preset=${1:-1M}
[ $# -gt 0 ] && shift
[ -n "$peer" ] && [ -f "$peer" ] || { echo "skipped: RLHF_HPC_PEERS names no folder with torch_ppo.py"; exit 77; }
"$python" -c 'import torch' 2>/dev/null || { echo "skipped: $python has no torch (set PYTHON)"; exit 77; }
cd "$here" || exit 1
for program in "${builddir:+$builddir/rlhf-hpc}" build/rlhf-hpc ./rlhf-hpc; do
    [ -n "$program" ] && [ -x "$program" ] && break
done
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
for round in $(seq "$rounds"); do
    "$program" --bench "tests/bench/torch-$preset.cfg" -s run.threads="$threads" "$@" >"$dir/own" || exit 1
    tail -n 1 "$dir/own" >>"$dir/own.jsonl"
    for dtype in float32 bfloat16; do
        "$python" "$peer" --preset "$preset" --threads "$threads" --dtype $dtype >>"$dir/$dtype.jsonl" || exit 1
    done
done
"$python" - "$dir" "$preset" "$threads" <<'END'
import json, statistics, sys
folder, preset, threads = sys.argv[1:]

def lines(name):
    return [json.loads(line) for line in open(f"{folder}/{name}.jsonl")]

def own(run, phase):  # the loop's update is all that follows the log-probabilities
    sec = {name: row["max_sec"] for name, row in run["phases"].items()}
    known = {"generate": sec["generate"], "logprobs": sec["logprobs"], "step": sec["step"]}
    return known.get(phase, sec["step"] - sec["generate"] - sec["logprobs"])

runs, torch = lines("own"), {name: lines(name) for name in ("float32", "bfloat16")}
print(f"{preset}, {threads} threads, medians of {len(runs)} rounds, seconds; the ratio is to torch's faster dtype")
print(f"{'phase':10} {'rlhf-hpc':>9} {'float32':>9} {'bfloat16':>9} {'ratio':>7}   (ratios of the rounds)")
for phase in ("generate", "logprobs", "update", "step"):
    mine = [own(run, phase) for run in runs]
    theirs = {name: [run["seconds"][phase]["median"] for run in rows] for name, rows in torch.items()}
    ratios = [min(theirs[name][i] for name in theirs) / mine[i] for i in range(len(runs))]
    median = statistics.median
    print(f"{phase:10} {median(mine):9.4f} {median(theirs['float32']):9.4f} {median(theirs['bfloat16']):9.4f} {median(ratios):6.2f}x"
          f"   ({' '.join(f'{r:.2f}' for r in ratios)})")
END
