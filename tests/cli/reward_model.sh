#!/bin/sh
# Rewards and classes with data that they cannot be trained on, or settings that contradict each other: one line each.
. "$srcdir/tests/cli/expect.sh"
data=$work/data
cat >"$work/input.cfg" <<END
task = "reward";
model: { path = "input/tiny"; };
data: { path = "$data"; };
run: { output_dir = "$out"; max_steps = 1; };
END

# data CODE BYTES TEXT [ARG..]: bytes as printf writes them
data()
{
    code=$1 bytes=$2 said=$3
    shift 3
    printf "$bytes" >"$data"
    refused $code "$said" "$@" "$work/input.cfg"
}

classes="-s reward_model.loss=cross_entropy"
refused_on_two 1 'data: cannot open' "$work/input.cfg"
data 1 '{"text": "a", "label": 1}\n' 'data:1: no field "chosen"; there is "text", "label"'
data 1 '{"messages": [{"role": "user", "content": "a"}]}\n' 'data:1: no field "chosen"; there is "messages"'
data 1 '{"prompt": "a", "chosen": "b"}\n' 'data:1: no field "rejected"'
data 1 '{"chosen": "a", "rejected": "b", "margin": "c"}\n' 'data:1: the field "margin" is a string, not a number'
data 1 '{"chosen": "a b c d e f", "rejected": "b"}\n' 'data: none of 1 pairs fits into the context of 3 tokens' -s data.max_length=3
data 1 '{"chosen": "a", "rejected": "b"}\n' 'data:1: no field "text"' $classes
data 1 '{"text": "a"}\n' 'data:1: no field "label"' $classes
data 1 '{"text": "a", "label": 1.5}\n' 'data:1: the field "label" is a float' $classes
data 2 '{"text": "a", "label": "x"}\n' 'data: 1 class: a classifier needs two or more' $classes
data 1 '{"text": "a", "label": -1}\n{"text": "a", "label": 1}\n' 'data:1: the label -1 is not in 0 .. 1 (LABEL_0, LABEL_1)' $classes
data 1 '{"text": "a", "label": "x"}\n{"text": "a", "label": "y"}\n' 'data:1: the label "x" is none of y, z' $classes -s 'reward_model.label_names=["y", "z"]'
data 1 '{"text": "a b c d e f", "label": 0}\n{"text": "a", "label": 1}\n' 'data: 1 of 2 texts have more than 3 tokens' $classes \
    -s data.max_length=3 -s data.truncation=error
data 1 '{"text": "", "label": 0}\n{"text": "a", "label": 1}\n' 'data:1: the text gives no tokens' $classes
awk 'BEGIN { for (i = 0; i < 10001; i++) printf "{\"text\": \"a\", \"label\": \"n%d\"}\n", i }' >"$data"
refused 2 'data: 10001 classes, at most 10000: is data.label_field the class?' $classes "$work/input.cfg"
printf '{"chosen": "a", "rejected": "b"}\n' >"$data"
refused 2 'reward_model.head_only=true: the head is trained without adapters' -s reward_model.head_only=true -s model.adapter=a "$work/input.cfg"
refused 2 'reward_model.loss=ranking: unknown name' -s reward_model.loss=ranking "$work/input.cfg"
refused 2 'reward_model.batch_size=0: 0 is out of range' -s reward_model.batch_size=0 "$work/input.cfg"
refused 2 'the smallest plan needs' -s run.memory_limit=0.001 "$work/input.cfg"
exit $failed
