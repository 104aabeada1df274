# Sourced by the scripts that train score heads on the embedded model: short runs on pairs of answers and on labelled texts, with
# dropout and an adapter.
. "${srcdir:-.}/tests/mpi/sft_runs.sh"

# 20 and 5 rows of each kind, of several lengths
awk -v work="$work" 'BEGIN {
    split("good great lovely funny strong", better); split("bad awful boring weak dull", worse)
    for (i = 0; i < 25; i++) {
        end = i < 20 ? "jsonl" : "heldout.jsonl"
        b = better[1 + i % 5]; w = worse[1 + i * 3 % 5]
        more = i % 3 == 0 ? " , and the actors were too ." : i % 3 == 1 ? " ." : " from the first scene to the last one ."
        printf "{\"prompt\": \"I watched film %d.\", \"chosen\": \" The story was %s%s\", \"rejected\": \" The story was %s%s\"%s}\n",
            i, b, more, w, i % 4 ? " ." : more, i % 7 ? "" : ", \"margin\": 0.5" >(work "/pairs." end)
        printf "{\"text\": \"The story was %s%s\", \"label\": %d}\n", i % 2 ? b : w, more, i % 2 >(work "/classes." end)
    }
}'

# pairs NAME RANKS OPTION.., classes NAME RANKS OPTION..: a run on these data into $work/NAME; what it prints goes to $work/NAME.log
score_head() {
    data=$1 name=$2 n=$3
    shift 3
    ranks "$n" "$program" input/tiny-reward.cfg -s run.output_dir="$work/$name" -s lora.r=4 -s reward_model.batch_size=8 \
        -s data.path="$work/$data.jsonl" -s data.eval_path="$work/$data.heldout.jsonl" "$@" >"$work/$name.log" 2>&1
}

pairs() {
    score_head pairs "$@" -s reward_model.loss=pairwise -s reward_model.center_rewards_coefficient=0.01
}

classes() {
    score_head classes "$@" -s 'reward_model.label_names=["bad", "good"]'
}
