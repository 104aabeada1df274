#!/usr/bin/env python3
"""Loads a model folder with transformers (and an adapter folder with peft) and prints, as one line
of JSON, the logits of given ids: what other software reads from the files that we wrote.

    check_folder.py FOLDER --ids '[[5, 3, 8], [2, 9]]' [--adapter FOLDER] [--dtype float32|float64]

Prints {"logits": [sequence][token][vocabulary], "values": [sequence][token], "missing": [name]};
"values" only where the adapter folder has a value head (model.safetensors), computed from the
hidden states after the final norm. Exit code 0; 77 where transformers or peft is not installed.
"""
import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)


def load(args):
    """The model, and the names of weights that the folder should have had."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        args.folder, dtype=torch.float32, output_loading_info=True)
    missing = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])
    if args.adapter:
        model = peft.PeftModel.from_pretrained(model, args.adapter)
        stored = load_file(os.path.join(args.adapter, "adapter_model.safetensors"))
        loaded = peft.get_peft_model_state_dict(model)
        missing += sorted(set(stored) ^ set(loaded))
    return model.to(getattr(torch, args.dtype)).eval(), missing


def load_head(args):
    path = os.path.join(args.adapter, "model.safetensors") if args.adapter else ""
    if not os.path.exists(path):
        return None
    head = load_file(path)
    dtype = getattr(torch, args.dtype)
    return head["v_head.summary.weight"].to(dtype), head["v_head.summary.bias"].to(dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--ids", required=True, type=json.loads)
    parser.add_argument("--adapter")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)

    model, missing = load(args)
    head = load_head(args)
    result = {"logits": [], "missing": missing}
    if head:
        result["values"] = []
    with torch.no_grad():
        for ids in args.ids:  # one by one: nothing is padded
            out = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
            result["logits"].append(out.logits[0].tolist())
            if head:
                value = torch.nn.functional.linear(out.hidden_states[-1][0], *head)
                result["values"].append(value[:, 0].tolist())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
