#!/bin/sh
# task = "merge" on 1, 2 and 4 ranks: the same files. A merge that is stopped leaves nothing and can be started again.
. "${srcdir:-.}/tests/mpi/run.sh"
program=${builddir:-.}/rlhf-hpc
cd "${srcdir:-.}" || exit 99

merge()
{
    name=$1 n=$2
    shift 2
    ranks "$n" "$program" -s run.output_dir="$work/$name" "$@" "$work/input.cfg" >"$work/$name.log" 2>&1
}

cat >"$work/input.cfg" <<EOF
task = "merge";
model: { path = "$work/base"; adapter = "tests/reference/adapters/regex"; };
run: { output_dir = "$work/unused"; };
EOF
cp -r tests/reference/llama-untied "$work/base"
cp tests/fuzz/seeds/metaspace.json "$work/base/tokenizer.json"
for base in original dequantized; do
    for n in 1 2 4; do
        merge $base$n $n -s merge.base=$base -s run.threads=$n || { cat "$work/$base$n.log"; fail "$base on $n"; }
        diff -r "$work/${base}1/model" "$work/$base$n/model" || fail "$base on $n ranks: other files"
    done
done
cmp -s "$work/original1/model/model-00001-of-00002.safetensors" "$work/dequantized1/model/model-00001-of-00002.safetensors" &&
    fail "merge.base makes no difference"

merge stopped 2 -s run.max_walltime=1 && fail "a merge within no time"
grep -q "stopped by run.max_walltime; nothing is left of the merge" "$work/stopped.log" || { cat "$work/stopped.log"; fail "how it stopped"; }
[ -e "$work/stopped" ] && fail "a stopped merge has left $(ls "$work/stopped")"
exit 0
