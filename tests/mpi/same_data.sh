#!/bin/sh
# Ranks that read other data than rank 0, as copies of a file on the nodes' own disks may be, are refused by number before the first
# step: in tasks that train on examples, and where each rank takes prompts from its own copy.
. "${srcdir:-.}/tests/mpi/run.sh"
program=$(cd "${builddir:-build}" && pwd)/rlhf-hpc
cd "${srcdir:-.}" && root=$(pwd) || exit 99
OMPI_MCA_rmaps_base_oversubscribe=1; export OMPI_MCA_rmaps_base_oversubscribe

mkdir "$work/0" "$work/1" || exit 99
for rank in 0 1; do
    for i in 1 2 3 4; do
        echo "{\"prompt\": \"I watched film $i\", \"completion\": \" and liked it.\", \"chosen\": \" good\", \"rejected\": \" bad\"}"
    done >"$work/$rank/data.jsonl"
    echo '{"prompt": "It", "completion": " was.", "chosen": " good", "rejected": " bad"}' >"$work/$rank/eval.jsonl"
done
for task in sft reward ppo; do
    sed "s,\"input/,\"$root/input/,g" input/tiny-$task.cfg >"$work/$task.cfg"
done
sed 's/^task = .*/task = "evaluate";/' "$work/ppo.cfg" >"$work/evaluate.cfg"

# both TASK OPTION..: on two ranks, each in its own folder
both()
{
    task=$1
    shift
    rm -rf "$work/runs-$task"
    ranks 2 sh -c 'cd "$0/${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" && exec "$@"' "$work" "$program" "$work/$task.cfg" \
        -s data.path=data.jsonl -s data.eval_path=eval.jsonl -s run.max_steps=1 -s run.save_steps=0 -s run.threads=1 \
        -s run.output_dir="$work/runs-$task" "$@" >"$work/log" 2>&1
}

all()
{
    "$@" sft &&
    "$@" reward -s reward_model.loss=pairwise -s 'reward_model.label_names=[]' &&
    "$@" ppo -s ppo.batch_size=4 -s ppo.mini_batch_size=4 &&
    "$@" evaluate
}

refused()
{
    both "$@" && { cat "$work/log"; fail "$1: other data on rank 1"; }
    grep -q "^rlhf-hpc: the data of data.path.* is not the same on all ranks: rank 1 differs from rank 0$" \
        "$work/log" || { cat "$work/log"; fail "$1: other message"; }
}

all both || { cat "$work/log"; fail "the same data"; }
sed -i 's/film 3/film 5/' "$work/1/data.jsonl"
all refused
cp "$work/0/data.jsonl" "$work/1/data.jsonl"
cat "$work/1/data.jsonl" >>"$work/1/eval.jsonl"
refused sft
echo "same data run, other data are refused"
