#!/bin/sh
# Fine-tuning with data that it cannot learn from, or settings that contradict each other: one line each, and nothing left behind.
. "$srcdir/tests/cli/expect.sh"
data=$work/data
printf '{"prompt": "I watched", "completion": " this film"}\n' >"$work/pair"
cat >"$work/input.cfg" <<EOF
task = "sft";
model: { path = "input/tiny"; };
data: { path = "$data"; };
run: { output_dir = "$out"; max_steps = 1; };
EOF

# data CODE BYTES TEXT [ARG..]: bytes as printf writes them
data()
{
    code=$1 bytes=$2 said=$3
    shift 3
    printf "$bytes" >"$data"
    refused $code "$said" "$@" "$work/input.cfg"
}

refused_on_two 1 'data: cannot open' "$work/input.cfg"
data 1 '{"review": "a"}\n' 'data:1: no field "text"; there is "review"'
data 1 '{"prompt": "I watched"}\n' 'data:1: no field'
data 1 '{"prompt": "I watched", "completion": 3}\n' 'data:1: the field "completion" is an integer'
data 1 '{"text": "a film"}\n{"text": "a\n' 'data:2: not valid JSON'
data 1 '{"input_ids": [3, 512]}\n' 'data:1: input_ids holds 512'
data 1 '{"input_ids": [3]}\n' 'data: no row has a token to learn'
data 1 '{"text": "a film"}\n' 'data: no row has a token to learn' -s data.max_length=1
data 1 '{"text": "I watched this film"}\n' 'data: 1 of 1 rows have more than 3 tokens' -s data.max_length=3 \
    -s data.truncation=error -s sft.packing=none
printf '{"text": "a film"}\n' >"$data"
refused 1 'none: cannot open' -s data.eval_path="$work/none" "$work/input.cfg"
refused_on_two 2 "sft.packing: \"wrapped\" trains on every token of a block, and $work/pair:1 has a prompt" \
    -s data.path="$work/pair" -s sft.packing=wrapped "$work/input.cfg"
refused 2 "sft.packing: \"wrapped\" trains on every token of a block, and $work/pair:1 has a prompt" \
    -s data.eval_path="$work/pair" "$work/input.cfg"
refused 2 'run.eval_steps=5: needs data.eval_path' -s run.eval_steps=5 "$work/input.cfg"
refused 2 'sft.num_train_epochs=0: 0 is out of range' -s sft.num_train_epochs=0 "$work/input.cfg"
refused 2 'sft.block_size=1: 1 is out of range' -s sft.block_size=1 "$work/input.cfg"
refused 2 'sft.packing=bfd: unknown name' -s sft.packing=bfd "$work/input.cfg"
refused 2 'the smallest plan needs' -s run.memory_limit=0.001 "$work/input.cfg"
refused 1 'none/adapter_config.json: cannot open' -s model.adapter="$work/none" "$work/input.cfg"
refused 2 'target_modules match no linear layer' -s 'lora.target_modules=["no_such_layer"]' "$work/input.cfg"
exit $failed
