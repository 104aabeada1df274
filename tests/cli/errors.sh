#!/bin/sh
# Wrong usage: exit code, one message on stderr, on one rank and on two.
program=${builddir:-.}/rlhf-hpc
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

# expect CODE TEXT COMMAND..: the exit code, and one line on stderr that begins with rlhf-hpc: and holds the text
expect() {
    code=$1 text=$2
    shift 2
    "$@" >"$dir/out" 2>"$dir/err" </dev/null
    rc=$?
    lines=$(grep -c '^rlhf-hpc: ' "$dir/err")
    if [ "$rc" != "$code" ] || [ "$lines" != 1 ] || ! grep -qF "$text" "$dir/err"; then
        echo "exit $rc (want $code), $lines messages, looking for '$text': $*"
        cat "$dir/err"
        failed=1
    fi
}

echo 'task = "ppo"; ppo: { cliprage = 0.1; };' >"$dir/misspelt.cfg"
echo 'task = "evaluate"; model: { path = "/nonexistent"; }; data: { path = "/nonexistent"; };' >"$dir/missing.cfg"
echo 'task = "dpo"; model: { path = "x"; }; data: { path = "x"; };' >"$dir/dpo.cfg"
sed -i "s|;\$|; run: { output_dir = \"$dir/run\"; };|" "$dir/missing.cfg" "$dir/dpo.cfg"
expect 2 'unknown option' "$program" --plam x.cfg
expect 1 'nowhere.cfg' "$program" "$dir/nowhere.cfg"
expect 2 'did you mean ppo.cliprange' "$program" "$dir/misspelt.cfg"
expect 1 '/nonexistent' "$program" "$dir/missing.cfg"
expect 2 'not built yet' "$program" "$dir/dpo.cfg"
if [ "${MPIEXEC:-no}" != no ]; then
    expect 2 'did you mean ppo.cliprange' "$MPIEXEC" -np 2 "$program" "$dir/misspelt.cfg"
    expect 1 '/nonexistent' "$MPIEXEC" -np 2 "$program" "$dir/missing.cfg"
fi
exit $failed
