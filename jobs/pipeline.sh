#!/usr/bin/env bash
# Runs the stages of a folder of inputs, one after the other: those that are done are skipped, the first that fails ends it.
#   jobs/pipeline.sh FOLDER [OPTIONS]     FOLDER/stages names its NAME.cfg in order, a line each; OPTIONS go to each of them
#
# FOLDER/prepare.sh, where there is one, runs before the first stage and makes what the inputs read; a line "NAME KEY=VALUE" that it
# prints is a setting of that stage. A stage that was stopped early (exit code 75) goes on from its checkpoint when the script is run
# again. Paths in the inputs start at the source tree's top, where the stages run.
#   BUILD=folder (default: build/ in the source tree), NP=ranks (default 2), MPIEXEC=launcher (default: mpirun --oversubscribe; srun in
#   a Slurm job).
set -euo pipefail
[ $# -ge 1 ] && [ -f "$1/stages" ] || {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
program=$(cd "${BUILD:-build}" && pwd)/rlhf-hpc
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if [ -n "${SLURM_JOB_ID:-}" ]; then
    launch=${MPIEXEC:-srun}
else
    launch="${MPIEXEC:-mpirun --oversubscribe} -np ${NP:-2}"
fi
case $folder in "$PWD"/*) folder=${folder#"$PWD"/} ;; esac

settings=
if [ -f "$folder/prepare.sh" ]; then
    settings=$(BUILD=$(dirname "$program") "$folder/prepare.sh")
fi

# stage NAME OPTION..
stage() {
    local name=$1 cfg=$folder/$1.cfg out begin input
    shift
    out=$(sed -n 's/.*output_dir = "\([^"]*\)".*/\1/p' "$cfg")
    [ -n "$out" ] || { echo "$cfg: no line with output_dir = \"..\"" >&2; return 1; }
    input=$({ cat "$cfg"; echo "$@"; } | cksum)
    if [ -f "$out/DONE" ]; then
        if [ "$(cat "$out/DONE")" != "$input" ]; then
            echo "$cfg or its options have changed since $out was made: remove it to run the stage again" >&2
            return 1
        fi
        echo "== $name: done before, in $out"
        return 0
    fi
    echo "== $name: $cfg $*"
    begin=$SECONDS
    $launch "$program" --resume "$@" "$cfg" || {
        local code=$?
        echo "== $name: exit code $code after $((SECONDS - begin)) s; $0 $folder goes on from here" >&2
        return $code
    }
    echo "$input" >"$out/DONE"
    echo "== $name: $((SECONDS - begin)) s"
}

# The list is read on descriptor 3: ranks inherit the standard input.
while read -r name <&3; do
    case $name in '' | '#'*) continue ;; esac
    own=()
    while read -r of setting; do
        [ "$of" != "$name" ] || own+=(-s "$setting")
    done <<<"$settings"
    stage "$name" "${own[@]+"${own[@]}"}" "$@"
done 3<"$folder/stages"
