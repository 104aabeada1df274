# Sourced by the scripts that fine-tune the embedded model: short runs on packed texts and on completions, with dropout.
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
. "$srcdir/tests/mpi/run.sh"
program=$(cd "$builddir" && pwd)/rlhf-hpc
cd "$srcdir" || exit 99
OMP_WAIT_POLICY=passive; export OMP_WAIT_POLICY # ranks with more threads than cores must not spin
OMPI_MCA_rmaps_base_oversubscribe=1; export OMPI_MCA_rmaps_base_oversubscribe
files="adapter/adapter_model.safetensors adapter-best/adapter_model.safetensors" # what must be equal, beside the metrics

head -n 20 input/tiny/completions.jsonl >"$work/completions.jsonl" || exit 99
head -n 5 input/tiny/completions.heldout.jsonl >"$work/completions.heldout.jsonl" || exit 99
for name in completions completions.heldout; do
    sed -E 's/^\{"prompt": "(.*)", "completion": "(.*)"\}$/\1\2/' "$work/$name.jsonl" >"$work/$name.txt" || exit 99
done

# sft NAME RANKS OPTION..: a run into $work/NAME; what it prints goes to $work/NAME.log
sft() {
    name=$1 n=$2
    shift 2
    ranks "$n" "$program" input/tiny-sft.cfg -s run.output_dir="$work/$name" -s lora.r=4 -s sft.batch_size=8 "$@" \
        >"$work/$name.log" 2>&1
}

# completions NAME RANKS OPTION.., texts NAME RANKS OPTION..: the same on these data
completions() {
    sft "$@" -s data.path="$work/completions.jsonl" -s data.eval_path="$work/completions.heldout.jsonl"
}

texts() {
    sft "$@" -s data.format=text -s data.path="$work/completions.txt" -s data.eval_path="$work/completions.heldout.txt" \
        -s sft.block_size=24
}
