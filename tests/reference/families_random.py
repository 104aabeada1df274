#!/usr/bin/env python3
"""Fresh random models of every family, with random options, through our forward pass: logits against transformers.

    families_random.py PROGRAM [SEEDS]      PROGRAM: tests/unit/families of the build; SEEDS (2): models of each family

family_models.py writes the folders and computes their values in float64; PROGRAM compares (1e-4 + 1e-5 relative) and decodes.
"""
import os
import random
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers

from family_models import draw_sequences, expected, rope, write_folder
from record import write


def sizes(r, head_sizes=(6, 8, 10, 16)):
    heads, head = r.choice((1, 2, 4)), r.choice(head_sizes)
    return dict(vocab=r.randint(40, 90), hidden=heads * head, layers=r.randint(1, 3), heads=heads, head=head,
                intermediate=r.randint(9, 70))


def usual(s):
    return dict(vocab_size=s["vocab"], hidden_size=s["hidden"], num_hidden_layers=s["layers"],
                num_attention_heads=s["heads"], intermediate_size=s["intermediate"])


def labels(r, n=None):
    return dict(num_labels=n or r.randint(1, 4))


def scaling(r, head):
    kind = r.choice(("default", "linear", "dynamic", "yarn"))
    rest = {} if kind == "default" else dict(factor=r.choice((1.5, 2.0, 8.0)))
    if kind == "yarn":
        rest["original_max_position_embeddings"] = r.choice((16, 32))
    return rope(kind, **rest) | dict(rope_theta=r.choice((500.0, 10000.0)))


def gpt2(r):
    s = sizes(r)
    return dict(vocab_size=s["vocab"], n_embd=s["hidden"], n_layer=s["layers"], n_head=s["heads"],
                n_inner=r.choice((None, s["intermediate"])), n_positions=64, bos_token_id=0, eos_token_id=0,
                activation_function=r.choice(("gelu_new", "gelu", "relu", "silu")),
                scale_attn_weights=r.random() < 0.7, scale_attn_by_inverse_layer_idx=r.random() < 0.5,
                reorder_and_upcast_attn=r.random() < 0.3, tie_word_embeddings=r.random() < 0.7)


def gpt_neo(r):
    s = sizes(r)
    kinds = [r.choice(("global", "local")) for _ in range(s["layers"])]
    return dict(vocab_size=s["vocab"], hidden_size=s["hidden"], num_layers=s["layers"], num_heads=s["heads"],
                attention_types=[[kinds, 1]], window_size=r.choice((1, 5, 12)), max_position_embeddings=64,
                intermediate_size=r.choice((None, s["intermediate"])), bos_token_id=0, eos_token_id=0)


def opt(r):
    s = sizes(r)
    return dict(vocab_size=s["vocab"], hidden_size=s["hidden"], num_hidden_layers=s["layers"],
                num_attention_heads=s["heads"], ffn_dim=s["intermediate"], max_position_embeddings=64,
                word_embed_proj_dim=r.choice((s["hidden"], 12)), do_layer_norm_before=r.random() < 0.5,
                _remove_final_layer_norm=r.random() < 0.3, enable_bias=r.random() < 0.7)


def gpt_neox(r):
    s = sizes(r, (8, 16))
    return dict(usual(s), max_position_embeddings=64, use_parallel_residual=r.random() < 0.5,
                attention_bias=r.random() < 0.7, tie_word_embeddings=r.random() < 0.3, bos_token_id=0, eos_token_id=0,
                rope_parameters=scaling(r, s["head"]) | dict(partial_rotary_factor=r.choice((0.25, 0.5, 1.0))))


def llama(r):
    s = sizes(r)
    head = r.choice((s["head"], 8))
    return dict(usual(s), num_key_value_heads=r.choice([n for n in (1, 2, 4) if s["heads"] % n == 0]), head_dim=head,
                attention_bias=r.random() < 0.3, mlp_bias=r.random() < 0.3, tie_word_embeddings=r.random() < 0.5,
                max_position_embeddings=64, rope_parameters=scaling(r, head))


def mistral(r):
    config = llama(r) | dict(sliding_window=r.choice((None, 1, 7, 20)))
    del config["attention_bias"], config["mlp_bias"]
    return config


def qwen2(r):
    config = mistral(r) | dict(use_sliding_window=r.random() < 0.6, sliding_window=6, max_window_layers=r.randint(0, 2))
    config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    return config


def qwen3(r):
    return qwen2(r) | dict(head_dim=r.choice((8, 12, 16)), attention_bias=r.random() < 0.5)


def distilbert(r):
    s = sizes(r)
    return dict(vocab_size=s["vocab"], dim=s["hidden"], n_layers=s["layers"], n_heads=s["heads"],
                hidden_dim=s["intermediate"], max_position_embeddings=64, sinusoidal_pos_embds=r.random() < 0.3,
                activation=r.choice(("gelu", "relu")))


def bert(r):
    return dict(usual(sizes(r)), max_position_embeddings=64, type_vocab_size=r.choice((1, 2, 3)))


def roberta(r):
    return bert(r) | dict(pad_token_id=r.choice((0, 1, 3)), max_position_embeddings=70)


POLICIES = [gpt_neox, gpt2, gpt_neo, opt, llama, mistral, qwen2, qwen3]
ENCODERS = [distilbert, bert, roberta]


def make(root, family, classifier, seed):
    r = random.Random(f"{family.__name__} {classifier} {seed}")
    config = family(r) | (labels(r) if classifier else {})
    spec = dict(type=family.__name__, classifier=classifier, config=config,
                dtype=r.choice(("float32", "float16", "bfloat16")))
    folder = os.path.join(root, f"{family.__name__}-{'classifier' if classifier else 'lm'}-{seed}")
    os.makedirs(folder)
    write_folder(folder, spec, r.randrange(2**31))
    lengths = (r.randint(20, 55), r.randint(1, 19))
    generator = torch.Generator().manual_seed(r.randrange(2**31))
    sequences = draw_sequences(generator, lengths, config["vocab_size"])
    write(folder, "expected", expected(folder, spec, sequences), dict(ids=sequences, spec=spec))
    return folder


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    program, seeds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as root:
        folders = []
        for seed in range(seeds):
            folders += [make(root, family, False, seed) for family in POLICIES]
            folders += [make(root, family, True, seed) for family in POLICIES + ENCODERS]
        failed = 0
        for folder in folders:
            done = subprocess.run([os.path.abspath(program), folder], capture_output=True, text=True)
            if done.returncode:
                failed += 1
                with open(os.path.join(folder, "config.json")) as config:
                    print(f"{os.path.basename(folder)}:\n{done.stderr[-600:]}\n{config.read()}")
    print(f"{len(folders)} models of {len(POLICIES) + len(ENCODERS)} families, {failed} differ")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
