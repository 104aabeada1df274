#!/usr/bin/env python3
"""Compares an sft run with TRL: the loss of data.eval_path before the first step, which TRL's SFTTrainer computes from the same
files: its tokens, end tokens, masks and blocks.

    rlhf-hpc -s model.quantization=none -s run.max_steps=1 .. -s run.output_dir=RUN input.cfg
    python tests/reference/check_sft.py RUN

For JSON Lines of text, or of prompt and completion. In the current directory of the run, as paths may be relative to it.
"""
import json
import os
import re
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import transformers
import trl


def setting(text, group, key):
    body = re.search(rf"^{group}:\n\{{(.*?)^\}}", text, re.M | re.S).group(1)
    return json.loads(re.search(rf"^\s*{key} = (.*);", body, re.M).group(1))


def main():
    run = sys.argv[1]
    datasets.disable_progress_bars()
    with open(os.path.join(run, "settings.cfg")) as f:
        text = f.read()
    with open(os.path.join(run, "metrics.jsonl")) as f:
        ours = json.loads(f.readline())["eval/loss"]
    folder = setting(text, "model", "path")
    with open(setting(text, "data", "eval_path")) as f:
        rows = [json.loads(line) for line in f]
    completions = "completion" in rows[0]
    keys = ("prompt", "completion") if completions else ("text",)
    data = datasets.Dataset.from_list([{k: row[k] for k in keys} for row in rows])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.eos_token  # masked; the model may have none of its own
    packing = setting(text, "sft", "packing")
    wrapped = packing == "wrapped" or (packing == "auto" and not completions)
    context = model.config.max_position_embeddings
    length = min(setting(text, "sft", "block_size"), context) if wrapped else context
    with tempfile.TemporaryDirectory() as out:
        how = trl.SFTConfig(output_dir=out, packing=wrapped, packing_strategy="wrapped", max_length=length, use_cpu=True,
                            shuffle_dataset=False, report_to=[], disable_tqdm=True, bf16=False, fp16=False)
        trainer = trl.SFTTrainer(model=model, args=how, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
        blocks = trainer.eval_dataset
        if wrapped:  # TRL keeps the last block though it is not full
            blocks = blocks.filter(lambda block: len(block["input_ids"]) == length)
        trainer.args.per_device_eval_batch_size = len(blocks)
        theirs = trainer.evaluate(blocks)["eval_loss"]
    print(f"eval/loss here {ours:.7f}, eval_loss of TRL {theirs:.7f}, {abs(ours / theirs - 1):.1e} apart")
    sys.exit(abs(ours / theirs - 1) > 1e-5)


if __name__ == "__main__":
    main()
