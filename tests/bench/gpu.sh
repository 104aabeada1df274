#!/usr/bin/env bash
# What a card does, within 25 minutes: its tests, --bench of gpt-neox-20b (the published recipe, then long sequences) and of a llama of
# 1.1 billion parameters, two ranks that share the card, and the same PPO steps by transformers + peft. In a build or in an unpacked
# bundle. A part that fails, or takes longer than its limit, does not stop the others.
#   tests/bench/gpu.sh [PART..]     all parts: card check neox neox-long llama shared peer-llama peer-neox
# OUT (./gpu-report): report.txt and report.json, to which each call adds, and a log a part. PYTHON (python3): with torch for the peer.
# To try it on less: NEOX, NEOX_LONG, LLAMA (inputs), BENCH_OPTIONS, and what tests/gpu/check.sh takes.
set -euo pipefail
srcdir=${srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
srcdir=$(cd "$srcdir" && pwd)
builddir=${builddir:-$srcdir/build}
[ ! -f "$srcdir/env.sh" ] || builddir=$srcdir
program=$(cd "$builddir" && pwd)/rlhf-hpc
out=${OUT:-gpu-report}
mkdir -p "$out"
out=$(cd "$out" && pwd)
: >>"$out/parts.jsonl"
export srcdir builddir OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
neox=${NEOX:-tests/bench/neox-20b.cfg} neox_long=${NEOX_LONG:-tests/bench/neox-20b-long.cfg} llama=${LLAMA:-tests/bench/llama-1b.cfg}
cd "$srcdir"

say() {
    echo "$@" | tee -a "$out/report.txt"
}

# own COMMAND..: with the bundle's libraries, where this is one
own() (
    [ ! -f "$srcdir/env.sh" ] || . "$srcdir/env.sh"
    exec "$@"
)

# peer COMMAND..: without them
peer() {
    LD_LIBRARY_PATH=$(tr : '\n' <<<"${LD_LIBRARY_PATH:-}" | grep -v "^$srcdir/lib" | paste -sd :) "$@"
}

# largest COLUMN: of what the card was seen with, null if nothing
largest() {
    awk -F ', *' -v c="$1" '$c + 0 > m { m = $c + 0 } END { if (m) print m; else print "null" }' "$out/watch"
}

# part NAME LIMIT COMMAND..: the last line that is a JSON object is its result. Meanwhile the card is asked four times a second for
# MiB used, MHz and W.
part() {
    local name=$1 limit=$2 rc=0 since=$SECONDS watcher result
    shift 2
    nvidia-smi --query-gpu=memory.used,clocks.sm,power.draw --format=csv,noheader,nounits -lms 250 >"$out/watch" 2>/dev/null &
    watcher=$!
    own timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1 || rc=$?
    kill $watcher 2>/dev/null || true
    wait $watcher 2>/dev/null || true
    result=$(grep '^{' "$out/$name.log" | tail -n 1 || true)
    say "== $name: $* (exit $rc, $((SECONDS - since)) s of $limit, at most $(largest 1) MiB of the card used, $(largest 2) MHz, $(largest 3) W)"
    grep -v '^{' "$out/$name.log" | tail -n 60 | tee -a "$out/report.txt" || true
    printf '{"part":"%s","exit":%d,"sec":%d,"most_mib":%s,"most_mhz":%s,"most_watt":%s,"result":%s}\n' "$name" $rc \
        $((SECONDS - since)) "$(largest 1)" "$(largest 2)" "$(largest 3)" "${result:-null}" >>"$out/parts.jsonl"
    rm -f "$out/watch"
}

write_json() {
    printf '{"parts":[%s]}\n' "$(paste -sd , "$out/parts.jsonl")" >"$out/report.json"
}

# bench NAME LIMIT INPUT OPTION..: without a launcher, which would bind the rank to a core
bench() {
    local name=$1 limit=$2
    shift 2
    # shellcheck disable=SC2086 # words
    part "$name" "$limit" "$program" --bench "$@" ${BENCH_OPTIONS:-}
}

# step_of PART: seconds of a step, of --bench (the slowest rank's median) or of the peer
step_of() {
    sed -n 's/^{"bench".*"step":{[^}]*"max_sec":\([0-9.e+-]*\).*/\1/p; s/^{"peer".*"step": \([0-9.e+-]*\).*/\1/p' "$out/$1.log" | tail -n 1
}

# ratio PEER OWN: of the seconds of a step
ratio() {
    local theirs ours
    theirs=$(step_of "$1") ours=$(step_of "$2" 2>/dev/null || true)
    if [ -n "$theirs" ] && [ -n "$ours" ]; then
        say "a PPO step: peer $theirs s, here $ours s: $(awk -v p="$theirs" -v o="$ours" 'BEGIN { printf "%.2f", p / o }') times"
        printf '{"part":"ratio %s","peer_sec":%s,"own_sec":%s}\n' "$1" "$theirs" "$ours" >>"$out/parts.jsonl"
    fi
}

# peer_part NAME LIMIT OWN INPUT OPTION..: the peer, and how much longer its step takes than that of part OWN
peer_part() {
    local name=$1 limit=$2 ours=$3 missing
    shift 3
    if ! missing=$(peer "${PYTHON:-python3}" -c 'import torch, transformers, peft' 2>&1); then
        say "== $name: skipped, $(tail -n 1 <<<"$missing")"
        return
    fi
    part "$name" "$limit" env LD_LIBRARY_PATH="$(peer printenv LD_LIBRARY_PATH || true)" "${PYTHON:-python3}" tests/bench/peer_ppo.py "$@"
    ratio "$name" "$ours"
}

run_card() {
    say "$(date -u +%FT%TZ) on $(hostname)"
    say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit --format=csv 2>&1 || true)"
    part card 30 "$program" --version
}

run_check() {
    part check 360 tests/gpu/check.sh quick
}

# All responses of the longest kind, as the peer's are.
run_neox() {
    bench neox 270 "$neox" -s run.max_steps=2 -s generate.max_new_tokens=15
}

run_neox-long() {
    bench neox-long 200 "$neox_long" -s run.max_steps=1
}

run_llama() {
    bench llama 90 "$llama"
}

run_shared() {
    # shellcheck disable=SC2086 # words
    part shared 120 mpirun -np 2 --bind-to none "$program" --bench "$llama" -s run.share_device=true ${BENCH_OPTIONS:-}
}

run_peer-llama() {
    peer_part peer-llama 130 llama "$llama"
}

# In int8 where bitsandbytes is, else in bf16 where the card holds that.
run_peer-neox() {
    local kind= mib
    mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1 || true)
    if peer "${PYTHON:-python3}" -c 'import bitsandbytes' 2>/dev/null; then
        kind=--int8
    elif [ "${mib:-0}" -lt 60000 ]; then
        say "== peer-neox: skipped, no bitsandbytes, and ${mib:-0} MiB do not hold it in bf16"
        return
    fi
    peer_part peer-neox 270 neox "$neox" --steps 1 $kind
}

[ $# -gt 0 ] || set -- card check neox neox-long llama shared peer-llama peer-neox
for name in "$@"; do
    if ! declare -F "run_$name" >/dev/null; then
        echo "gpu.sh: no part \"$name\"" >&2
        exit 2
    fi
done
for name in "$@"; do
    "run_$name"
    write_json
done
