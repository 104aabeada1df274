#!/usr/bin/env python3
"""Records a reward adapter for input/tiny: LoRA and a score head of two classes, written by peft, and the logits of a few token
sequences. Two runs write the same bytes.

    python tests/reference/record_reward_adapter.py [FOLDER]        (default: reward-adapter/ beside this script)
"""
import json
import os
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

LENGTHS = (23, 9, 1)
BASE = "input/tiny"


def backbone():
    return transformers.AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2, dtype=torch.float32)


def write_adapter(folder, generator):
    model = get_peft_model(backbone(), LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=6, target_modules=["query_key_value"],
                                                  layers_to_transform=[1, 3]))
    for name, p in sorted(model.named_parameters()):
        if "lora_" in name or ("modules_to_save" in name and "score" in name):
            p.data = torch.randn(p.shape, generator=generator) * 0.2
    model.save_pretrained(folder)
    for file in os.listdir(folder):
        if not file.startswith("adapter_"):
            os.remove(os.path.join(folder, file))
        else:  # safetensors writes 0600
            os.chmod(os.path.join(folder, file), 0o644)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "reward-adapter"))
    os.chdir(os.path.join(here, "..", ".."))
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(7)
    write_adapter(folder, generator)
    model = PeftModel.from_pretrained(backbone(), folder).eval()
    with torch.no_grad(), open(os.path.join(folder, "expected.jsonl"), "w") as out:
        for n in LENGTHS:
            ids = torch.randint(1, model.config.vocab_size, (1, n), generator=generator)
            logits = model(input_ids=ids).logits[0].tolist()
            out.write(json.dumps({"input_ids": ids[0].tolist(), "logits": [float(f"{z:.7g}") for z in logits]}) + "\n")


main()
