# Sourced by the scripts here: how to start ranks, and where to write.
# ranks N PROGRAM ARG..: runs it on N ranks.
set -u
case ${MPIEXEC:-no} in no) echo "skipped: no mpirun"; exit 77;; esac
work=$(mktemp -d "${TMPDIR:-/tmp}/rlhf-hpc-test.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 99' INT TERM

ranks()
{
    n=$1; shift
    "$MPIEXEC" -np "$n" "$@"
}

fail()
{
    echo "FAILED: $*"
    exit 1
}

# ends N MODE CODE LINE: the mode on N ranks exits with the code; its one line is LINE (a basic regular expression)
ends()
{
    before=$(date +%s)
    if [ "$1" = alone ]; then "$program" "$2" 2>"$work/err"; else ranks "$1" "$program" "$2" 2>"$work/err"; fi
    code=$?
    took=$(($(date +%s) - before))
    [ $code -eq "$3" ] || { cat "$work/err"; fail "$2 on $1: exit code $code"; }
    [ $took -lt 20 ] || fail "$2 on $1: took $took s"
    [ "$(grep -c '^rlhf-hpc:' "$work/err")" -eq 1 ] || { cat "$work/err"; fail "$2 on $1: not one line"; }
    grep -q "^rlhf-hpc: $4\$" "$work/err" || { cat "$work/err"; fail "$2 on $1: other line"; }
}

# mode NAME: prints the options of a numeric mode. The threshold is one that small activations reach.
mode()
{
    case $1 in
    none) echo "-s model.quantization=none" ;;
    *) echo "-s model.quantization=int8 -s model.matmul=$1 -s model.outlier_threshold=2.5" ;;
    esac
}

# The numbers of the metrics that do not depend on the clock, a line a step.
numbers()
{
    sed -E 's/, "(time|perf)\/[^,}]*//g' "$work/$1/metrics.jsonl"
}

# equal A B FILE..: metrics (times aside) and these files of two runs are equal to the bit
equal()
{
    numbers "$1" >"$work/a.numbers"
    numbers "$2" >"$work/b.numbers"
    cmp "$work/a.numbers" "$work/b.numbers" || fail "$1 and $2: other metrics"
    a=$1 b=$2
    shift 2
    for file in "$@"; do
        cmp "$work/$a/$file" "$work/$b/$file" || fail "$a and $b: another $file"
    done
}

# children PID: processes started by it
children()
{
    cat "/proc/$1/task/$1/children"
}

# killed SAVED STEPS RUN NAME RANKS OPTION..: starts RUN NAME RANKS OPTION.., a function that runs into $work/NAME, waits until it
# is in a step behind its checkpoint of step SAVED, and kills its ranks
killed()
{
    saved=$1 steps=$2 run=$3 name=$4 n=$5
    shift 3
    $run "$@" &
    shell=$!
    until [ -d "$work/$name/checkpoint-$saved" ] && grep -q "\"step\": $((saved + 1))," "$work/$name/metrics.jsonl"; do
        kill -0 $shell 2>/dev/null || { cat "$work/$name.log"; fail "$name ended before it could be killed"; }
        sleep 0.05
    done
    launcher=$shell
    pids=$(children $launcher)
    while [ "$(echo $pids | wc -w)" -lt "$n" ]; do # the shell's only child is mpirun, whose children are the ranks
        launcher=$pids
        pids=$(children $launcher) || fail "$name: no ranks found"
    done
    kill -KILL $pids || fail "$name: no ranks to kill"
    wait $shell && fail "$name was killed, yet ended well"
    [ ! -e "$work/$name/checkpoint-$steps" ] || fail "$name was killed too late"
    echo "$name: killed after step $(tail -n 1 "$work/$name/metrics.jsonl" | sed 's/^{"step": \([0-9]*\).*/\1/'), checkpoint of step $saved"
}
