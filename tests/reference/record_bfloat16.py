#!/usr/bin/env python3
"""Records how far transformers and peft in bfloat16 are from the recorded values of families/ and train/, into bfloat16.json: by this the
tests measure backends whose activations are bfloat16.

    python tests/reference/record_bfloat16.py [FOLDER]        (default: beside this script)

A folder's numbers are the largest distance of an output (logits, states, log-probabilities, scores) and of a tensor's gradient, each in
units of the norm of what is recorded.
"""
import json
import os
import sys
import warnings

import torch
import transformers
from safetensors.torch import load_file

import family_models
import record_train


def distance(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def largest(values, recorded):
    """Of outputs and of gradients."""
    by_kind = {}
    for name, got in values.items():
        kind = "gradients" if name.startswith("grad.") else "outputs"
        by_kind[kind] = max(by_kind.get(kind, 0), round(distance(got, recorded[name]), 4))
    return by_kind


def family(folder, spec):
    with open(os.path.join(folder, "expected.json")) as f:
        sequences = json.load(f)["ids"]
    model = family_models.load(folder, spec).bfloat16()
    return largest(family_models.values(model, sequences), load_file(os.path.join(folder, "expected.safetensors")))


def training(folder, spec):
    with open(os.path.join(folder, "train.json")) as f:
        texts = json.load(f)["ids"]
    recorded = load_file(os.path.join(folder, "train.safetensors"))
    model = record_train.load_adapted(folder, spec).bfloat16()
    return largest(record_train.values(model, spec, texts, recorded), recorded)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    result = {}
    for kind, measure, models in (("families", family, family_models.MODELS), ("train", training, record_train.MODELS)):
        for name, spec in models.items():
            result[f"{kind}/{name}"] = measure(os.path.join(root, kind, name), spec)
    with open(os.path.join(root, "bfloat16.json"), "w") as f:
        lines = [f"  {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in result.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
