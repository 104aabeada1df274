#!/usr/bin/env bash
# The tests of the CUDA backend on a card, a line each and a total: operations with real shapes; models of every family against values
# of transformers; PPO runs that follow the CPU's, with the same bits on one rank and on two; a killed run that goes on; memcheck and
# racecheck where compute-sanitizer is installed.
# In a build (make check-gpu) or in an unpacked bundle. Without a device it says why and exits with 77. The module on the shim
# serves where LD_LIBRARY_PATH leads to it; RLHF_TEST_SMALL=1 leaves its large shapes out.
#   tests/gpu/check.sh [quick]    quick: shorter runs, no compute-sanitizer
#   LIMIT: seconds that a test may take (900). KILLED: steps of the run that is killed, and of its checkpoint ("60 20"). MODES: as
#   in tests/gpu/ppo.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export srcdir=${srcdir:-$(cd "$here/../.." && pwd)}
export builddir=${builddir:-$srcdir/build}
if [ -f "$srcdir/env.sh" ]; then
    builddir=$srcdir
    . "$srcdir/env.sh"
fi
program=$builddir/rlhf-hpc
if ! [ -x "$program" ]; then
    echo "check-gpu: no program in $builddir: build it, or name its folder in builddir" >&2
    exit 2
fi
beside=$(dirname "$(readlink -f "$program")") # the tests look for the module beside themselves
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$beside
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export MPIEXEC=${MPIEXEC:-mpirun}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

skip_all() {
    echo "check-gpu skipped: $1"
    exit 77
}

# Skips all where there is no device, and where CUDA's libraries are not there to find one; on a machine with a card their absence
# is what fails.
find_device() {
    local said
    [ -x "$builddir/tests/ops/rope" ] || skip_all "its programs are not built (they need cmocka)"
    said=$(RLHF_TEST_DEVICE=cuda RLHF_TEST_SMALL=1 "$builddir/tests/ops/rope" 2>&1) || true
    case $said in
    *"no NVIDIA driver"*) skip_all "no NVIDIA driver on this machine" ;;
    *"no device is visible"*) skip_all "no device is visible" ;;
    *"cannot open shared object file"*)
        said=$(sed -n 's/.*run\.device = "cuda": //p' <<<"$said" | head -n 1)
        nvidia-smi >/dev/null 2>&1 || skip_all "no card, and $said"
        echo "check-gpu: $said" >&2
        exit 1
        ;;
    esac
}

# shares N: N ranks on this machine would share a device
shares() {
    "$MPIEXEC" -np "$1" "$program" --plan -s run.device=cuda "$srcdir/input/tiny-ppo.cfg" 2>&1 | grep -q 'run.share_device = true'
}

# check NAME COMMAND..
check() {
    local name=$1 rc=0 since=$SECONDS
    shift
    timeout -k 10 "${LIMIT:-900}" "$@" >"$log" 2>&1 || rc=$?
    case $rc in
    0) passed=$((passed + 1)) word=PASS ;;
    77) skipped=$((skipped + 1)) word=SKIP ;;
    *) failed=$((failed + 1)) word=FAIL ;;
    esac
    printf '%s %5d s  %s\n' $word $((SECONDS - since)) "$name"
    case $rc in
    0) ;;
    77) tail -n 1 "$log" | sed 's/^/    /' ;;
    124 | 137) echo "    longer than ${LIMIT:-900} s" && tail -n 10 "$log" | sed 's/^/    /' ;;
    *) tail -n 30 "$log" | sed 's/^/    /' ;;
    esac
}

# each_program WHAT COMMAND..: COMMAND with each of the programs of tests/ops, and of those of tests/unit that run models
each_program() {
    local what=$1 tested
    shift
    for tested in "$builddir"/tests/ops/* "$builddir"/tests/unit/{families,generate,lora,model,model_train,score_task}; do
        if [ -f "$tested" ] && [ -x "$tested" ] && [[ $(basename "$tested") != *.* ]]; then
            check "$what: $(basename "$tested")" "$@" "$tested"
        fi
    done
}

# runs KILLED STEPS OPTION..: PPO of STEPS steps with the options; one of the steps in KILLED ("all saved") is killed and resumed
runs() {
    local mode share= killed=$1
    shift
    ! shares 2 || share=1
    for mode in ${MODES:-none dequant llm.int8}; do
        check "PPO: $mode, follows the CPU, 1 rank = 2 ranks${share:+ on one card}" env MODES="$mode" SHARE=$share \
            "$srcdir/tests/gpu/ppo.sh" "$@"
    done
    shift
    ! shares 4 || set -- "$@" -s run.share_device=true
    # shellcheck disable=SC2086 # two words
    check "PPO: killed, resumed on other numbers of ranks" env MODES=llm.int8 PPO_OPTIONS="-s run.device=cuda $*" \
        "$srcdir/tests/mpi/killed.sh" $killed
}

sanitizer() {
    local tool
    PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
    export RLHF_TEST_SMALL=1
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not installed: no memcheck, no racecheck"
    elif compute-sanitizer "$builddir/tests/ops/rope" 2>&1 | grep -q 'not supported'; then
        echo "compute-sanitizer does not support this device: no memcheck, no racecheck"
    else
        for tool in memcheck racecheck; do
            each_program $tool compute-sanitizer --tool $tool --error-exitcode 9
        done
    fi
}

find_device
export RLHF_TEST_DEVICE=cuda
each_program test env
if [ "${1:-}" = quick ]; then
    runs "${KILLED:-60 20}" 20 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1
else
    # 2560 samples: means do not hang on single tokens. 20 steps: later the policy moves fast, and runs that differ part ways.
    runs "${KILLED:-60 20}" 20 -s ppo.batch_size=128 -s ppo.mini_batch_size=64
    sanitizer
fi
echo "check-gpu: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
