#!/usr/bin/env python3
"""Records a tiny model of every family and its logits (or class logits) for the C tests: family_models.py says which.

    python tests/reference/record_families.py [FOLDER]        (default: families/ beside this script)

Values are computed in float64 from the stored weights by transformers' own modules, whose float32 parts are replaced; each
result is then compared with the untouched modules in float32. Two runs write the same bytes.
"""
import os
import shutil
import sys
import warnings

import torch
import transformers

from family_models import MODELS, draw_sequences, expected, load, values, worst_errors, write_folder
from record import check_float32, write

LENGTHS = (41, 6)  # tokens of the two sequences: longer and shorter than the windows


def record(folder, name, spec, seed):
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder, spec, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    sequences = draw_sequences(generator, LENGTHS, spec["config"]["vocab_size"])
    tensors = expected(folder, spec, sequences)
    check_float32(name, tensors, values(load(folder, spec), sequences))
    rounded = values(load(folder, spec).bfloat16(), sequences)
    write(folder, "expected", tensors, dict(ids=sequences, bfloat16_error=worst_errors(tensors, rounded)))
    for file in os.listdir(folder):  # safetensors writes 0600
        os.chmod(os.path.join(folder, file), 0o644)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "families")
    os.makedirs(root, exist_ok=True)
    for i, (name, spec) in enumerate(MODELS.items()):
        record(os.path.join(root, name), name, spec, 500 + i)


if __name__ == "__main__":
    main()
