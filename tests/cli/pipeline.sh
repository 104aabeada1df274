#!/bin/sh
# jobs/pipeline.sh: the small recipe on the embedded model with a few steps each; a second run does nothing; a stage that was stopped
# goes on; an input that changed, or fails, ends it with its code; what comes behind is not begun.
. "${srcdir:-.}/tests/cli/expect.sh"
[ "${MPIEXEC:-no}" != no ] || { echo "skipped: no mpirun"; exit 77; }
build=$(cd "$(dirname "$program")" && pwd)
mkdir "$work/top" || exit 99
cp -R jobs input "$work/top" || exit 99
chmod -R u+w "$work/top" && cd "$work/top" || exit 99
unset RLHF_HPC_DATA
OMPI_MCA_rmaps_base_oversubscribe=1; export OMPI_MCA_rmaps_base_oversubscribe

# pipeline CODE OPTION..: what it prints is in $work/log
pipeline() {
    code=$1
    shift
    BUILD=$build MPIEXEC=$MPIEXEC NP=2 jobs/pipeline.sh input/imdb-small "$@" >"$work/log" 2>&1
    rc=$?
    [ $rc -eq "$code" ] && return
    tail -n 20 "$work/log"
    echo "exit code $rc, not $code: $*"
    failed=1
}

# stages TEXT: the lines of stages
stages() {
    [ "$(sed -n 's/^== \([a-z]*\): .* s$/\1 run/p; s/^== \([a-z]*\): done before.*/\1 done/p' "$work/log" | tr '\n' ' ')" = "$1" ] && return
    grep '^==' "$work/log"
    echo "these are not the stages: $1"
    failed=1
}

few="-s run.threads=1 -s run.eval_steps=0"
sed -i -E 's/max_steps = [0-9]+/max_steps = 2/' input/imdb-small/*.cfg
sed -i 's/batch_size = 64; mini_batch_size = 16/batch_size = 8; mini_batch_size = 8/' input/imdb-small/ppo.cfg
sed -i -E 's/ batch_size = [0-9]+; \};/ batch_size = 2; };/' input/imdb-small/sft.cfg input/imdb-small/classifier.cfg
pipeline 0 $few
stages "sft run merge run classifier run ppo run "
for file in sft/adapter/adapter_config.json merge/model/config.json classifier/adapter/config.json ppo/adapter/adapter_model.safetensors; do
    [ -s "runs/imdb-small/$file" ] || { echo "no $file"; failed=1; }
done
grep -q '"reward/second_opinion"' runs/imdb-small/ppo/metrics.jsonl || { echo "the second opinion is not logged"; failed=1; }
pipeline 0 $few
stages "sft done merge done classifier done ppo done "

# a stage that was stopped before its end goes on from its checkpoint
rm -r runs/imdb-small/classifier runs/imdb-small/ppo
cp input/imdb-small/classifier.cfg "$work"
sed -i 's/max_steps = 2/max_steps = 100000; max_walltime = 4/' input/imdb-small/classifier.cfg
pipeline 75 $few
stages "sft done merge done "
[ ! -e runs/imdb-small/ppo ] || { echo "a stage behind the one that was stopped was begun"; failed=1; }
cp "$work/classifier.cfg" input/imdb-small
stopped=$(ls -d runs/imdb-small/classifier/checkpoint-* 2>/dev/null) # none where the machine is so slow that no step was made
pipeline 0 $few
stages "sft done merge done classifier run ppo run "
[ -z "$stopped" ] || grep -q '^continuing from runs/imdb-small/classifier/checkpoint-' "$work/log" || { echo "the stopped stage began anew"; failed=1; }

# what is done with another input is not taken for done; a stage that fails ends it
sed -i 's/lora_alpha = 64/lora_alpha = 32/' input/imdb-small/classifier.cfg
pipeline 1 $few
grep -q 'classifier.cfg or its options have changed since runs/imdb-small/classifier was made' "$work/log" || { cat "$work/log"; failed=1; }
rm -r runs/imdb-small/sft runs/imdb-small/merge
pipeline 1 $few -s data.path=none
grep -q 'none: cannot open' "$work/log" || { cat "$work/log"; failed=1; }
[ ! -e runs/imdb-small/merge ] || { echo "a stage behind the one that failed was begun"; failed=1; }
exit $failed
