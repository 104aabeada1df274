# Sourced by the scripts that run PPO on the embedded model: short runs, and what must be equal between two of them.
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}"
. "$srcdir/tests/mpi/run.sh"
program=$(cd "$builddir" && pwd)/rlhf-hpc
cd "$srcdir" || exit 99
OMP_WAIT_POLICY=passive; export OMP_WAIT_POLICY # ranks with more threads than cores must not spin
OMPI_MCA_rmaps_base_oversubscribe=1; export OMPI_MCA_rmaps_base_oversubscribe

# ppo NAME RANKS OPTION..: a run of ragged prompts and responses into $work/NAME; what it prints goes to $work/NAME.log.
# PPO_OPTIONS: of all runs, after the others. PPO_INPUT: in place of input/tiny-ppo.cfg.
ppo() {
    name=$1 n=$2
    shift 2
    ranks "$n" "$program" "${PPO_INPUT:-input/tiny-ppo.cfg}" -s ppo.batch_size=24 -s ppo.mini_batch_size=12 -s ppo.ppo_epochs=2 \
        -s 'data.prompt_tokens=[2, 7]' -s 'generate.max_new_tokens=[3, 20]' -s generate.ignore_eos=false \
        -s run.save_steps=0 -s run.sample_steps=2 -s run.output_dir="$work/$name" "$@" ${PPO_OPTIONS:-} >"$work/$name.log" 2>&1
}

# same A B: adapters, metrics (times aside) and samples of two runs are equal to the bit
same() {
    equal "$1" "$2" adapter/adapter_model.safetensors adapter/model.safetensors samples.jsonl
}
