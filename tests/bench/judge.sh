# Sourced by the scripts that measure what PPO has taught a policy: training, and responses to prompts kept apart from it.
: "${srcdir:=.}" "${builddir:=build}" "${MPIEXEC:=mpirun}" "${NP:=2}"
. "$srcdir/tests/mpi/run.sh"
set -e # a number that is not found ends the script
program=$(cd "$builddir" && pwd)/rlhf-hpc
OMPI_MCA_rmaps_base_oversubscribe=1; export OMPI_MCA_rmaps_base_oversubscribe

# launch NAME CFG OPTION..: a run into $work/NAME, which must end well
launch() {
    name=$1 cfg=$2
    shift 2
    ranks "$NP" "$program" "$cfg" -s run.output_dir="$work/$name" "$@" >"$work/$name.log" 2>&1 || {
        cat "$work/$name.log"
        fail "$name"
    }
}

# judge NAME CFG PROMPTS OPTION..: the responses to all prompts, drawn with the same random numbers for every policy, scored with
# the rewards of the input
judge() {
    name=$1 cfg=$2 prompts=$3
    shift 3
    launch "$name" "$cfg" -s task=evaluate -s evaluate.what=responses -s data.path="$prompts" -s run.seed=1000 "$@"
}

# total NAME KEY: a number of evaluate.json
total() {
    found=$(sed -nE "s/.*\"$2\": ?([^,}]*).*/\1/p" "$work/$1/evaluate.json")
    [ -n "$found" ] || fail "$1: no $2 in evaluate.json"
    echo "$found"
}

# calc EXPRESSION: its value in short; holds EXPRESSION WHAT: fails where it is not true
calc() {
    awk "BEGIN { printf \"%.3g\", $1 }"
}

holds() {
    awk "BEGIN { exit !($1) }" || fail "$2: $1"
}
