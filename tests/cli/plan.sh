#!/bin/sh
# --plan of gpt-neox-20b (tests/bench/neox-20b.cfg: int8, adapters of rank 16 on query_key_value) without a device: fits 22.5 GiB; its
# lines are what the shape gives; what the plan gives up first where there is less; the refusal where nothing fits. By the module
# on the shim, and by the real one where CUDA's libraries are.
. "${srcdir:-.}/tests/cli/expect.sh"
build=$(dirname "$program")
plan=$work/plan

# planned OPTION..: the plan is in $plan
planned() {
    "$program" --plan --bench tests/bench/neox-20b.cfg "$@" >"$plan" 2>"$work/stderr" && return
    cat "$work/stderr"
    echo "no plan: $*"
    failed=1
}

# line NAME: its bytes, 0 if it is not there
line() {
    sed -n "s/^  $1  *\([0-9]*\) bytes.*/\1/p" "$plan" | grep . || echo 0
}

# is NAME BYTES
is() {
    [ "$(line "$1")" -eq "$2" ] && return
    echo "$1: $(line "$1") bytes planned, should be $2"
    failed=1
}

# within NAME BYTES
within() {
    [ "$(line "$1")" -gt 0 ] && [ "$(line "$1")" -le "$2" ] && return
    echo "$1: $(line "$1") bytes planned, should be $2 or less"
    failed=1
}

# chosen TOKENS SEQUENCES SLOTS LAYERS: of a pass, decode slots, layers whose activations are kept
chosen() {
    grep -q "longest sequence 22 tokens; pass of $1 tokens, $2 sequences; $3 decode slots; activations of $4 of 44 layers" "$plan" && return
    tail -n 1 "$plan"
    echo "should be a pass of $1 tokens, $2 sequences, $3 slots, $4 layers"
    failed=1
}

GiB=1073741824
L=44 H=6144 I=24576 V=50432 r=16 positions=2048 rotary=24
adapters=$((L * r * (H + 3 * H))) # of query_key_value: A [r][H] and B [3H][r]
trained=$((adapters + H + 1))     # with the value head
up() { echo $((($1 + 63) / 64 * 64)); } # arrays begin at multiples of 64 bytes

# What does not depend on the room there is. The budget that is held to here counts the same shapes; where a line is another:
lines() {
    is "base weights" $((L * (3 * H * H + H * H + 2 * H * I)))  # equal: 44 x 452,984,832 = 19,931,332,608
    # biases and norms in float32 for float16: + 7.0 MB; rotary tables of 2048 positions, which the budget leaves out: + 0.2 MB
    is "scales, norms" $((4 * L * (3 * H + H + I + H) * 2 + 4 * (2 * L + 1) * 2 * H + 4 * positions * rotary))
    is "embedding, head" $((2 * V * H * 2))                     # equal: 1,239,416,832
    # weight, gradient and moments: 16 bytes each in the budget. Here 22: a bfloat16 copy that products read (+ 2), and an int64
    # accumulator for a float32 gradient (+ 4), which gives 1 rank and many the same bits.
    is "adapters, value head" $(($(up $((4 * trained))) + 2 * adapters))
    is "gradient accumulators" $(($(up $((8 * trained))) + 64))
    is "optimizer" $((2 * $(up $((4 * trained)))))
    is "context, libraries (est.)" $((GiB * 5 / 8))             # the budget: 0.4 to 0.6 GB, without the recorded programs
}

# with_room TOKENS ROWS SLOTS: what does. ROWS: of the head, response tokens of a pass.
with_room() {
    # equal: 1.03125 MiB a token. One slot more than decode: rows that make up its multiple write there.
    is "KV cache" $(((${3} + 1) * 22 * L * 2 * H * 2))
    # Inputs of 44 layers: equal, 540,672 bytes a token. Beside them the last layer's output (H), one layer's own activations,
    # recomputed (14 H), what lies between layers (9 H), derivatives (23 H), and those of the head's rows.
    is "activations" $((2 * H * ((L + 1 + 14 + 9 + 23) * $1 + $2)))
    # The budget has 71 MB of logits and 302 MB of expanded weights. Logits are never whole, weights never expanded.
    within "workspace" 150000000
}

folders=${LD_LIBRARY_PATH:-}
for module in "$build/tests/shim" "$build"; do
    [ -e "$module/rlhf-hpc-cuda.so" ] || continue
    if ldd "$module/rlhf-hpc-cuda.so" | grep -q 'not found'; then
        echo "not planned by $module: CUDA's libraries are not here"
        continue
    fi
    echo "planned by $module"
    done=yes
    LD_LIBRARY_PATH=$module${folders:+:$folders}
    export LD_LIBRARY_PATH

    planned
    lines
    with_room 176 120 64
    chosen 176 64 64 1
    within total $((225 * GiB / 10))

    planned -s run.memory_limit=24 # mini-batches of 16 in one pass
    lines
    with_room 352 240 64
    chosen 352 64 64 1

    planned -s run.memory_limit=21.625 # half the slots before passes of single sequences
    lines
    with_room 88 60 32
    chosen 88 32 32 1
    within total $((21625 * GiB / 1000))

    refused 2 'the smallest plan needs 20.' --plan --bench tests/bench/neox-20b.cfg -s run.memory_limit=20.5
    refused 2 'there are 8.00: raise run.memory_limit, or lower' --plan --bench tests/bench/neox-20b.cfg -s run.memory_limit=8
done
[ "${done:-no}" = yes ] || { echo "skipped: no CUDA module is built here"; exit 77; }
exit $failed
