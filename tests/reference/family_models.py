"""Tiny random models of every family, written by transformers, and what they compute in float64.

record_families.py records a few of them for the C tests; families_random.py makes new ones.
"""
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from record import F64, randomise

FIRST_ID = 5  # ids below are padding and the like: transformers passes over padding in classifiers

SMALL = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
LLAMA = dict(SMALL, intermediate_size=40, num_key_value_heads=2, max_position_embeddings=96,
             bos_token_id=1, eos_token_id=2)
BERT = dict(SMALL, intermediate_size=40, max_position_embeddings=64)
LABELS = dict(id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2})


def rope(kind, **rest):
    return dict(rope_type=kind, rope_theta=10000.0, **rest)


# name -> model_type, keys of config.json, and how the folder is written. `classifier`: for sequence classification;
# `dtype`: of the file; `old`: what files of older software look like (see rewrite_old).
MODELS = {
    "gpt2": dict(type="gpt2", dtype="float16", old=True, config=dict(
        vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_inner=56, n_positions=64,
        scale_attn_by_inverse_layer_idx=True, bos_token_id=0, eos_token_id=0)),
    "gpt2-classifier": dict(type="gpt2", classifier=True, config=dict(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=64, scale_attn_weights=False,
        bos_token_id=0, eos_token_id=0, **LABELS)),
    "gpt-neo": dict(type="gpt_neo", dtype="bfloat16", config=dict(
        vocab_size=61, hidden_size=32, num_layers=3, num_heads=4, attention_types=[[["global", "local", "local"], 1]],
        window_size=7, max_position_embeddings=64, bos_token_id=0, eos_token_id=0)),
    "opt": dict(type="opt", dtype="float16", config=dict(
        SMALL, ffn_dim=56, max_position_embeddings=64, word_embed_proj_dim=32)),
    "opt-post-norm": dict(type="opt", config=dict(
        SMALL, ffn_dim=40, max_position_embeddings=64, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "llama-linear": dict(type="llama", dtype="bfloat16", old=True, config=dict(
        LLAMA, rope_parameters=rope("linear", factor=2.5))),
    "llama-yarn": dict(type="llama", dtype="float16", config=dict(
        LLAMA, head_dim=16, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=24,
                                                 beta_fast=2.0, beta_slow=0.5))),
    "llama-classifier": dict(type="llama", classifier=True, dtype="bfloat16", config=dict(LLAMA, **LABELS)),
    "mistral": dict(type="mistral", dtype="bfloat16", old=True, config=dict(
        LLAMA, sliding_window=9, rope_parameters=rope("default"))),
    "qwen2": dict(type="qwen2", dtype="bfloat16", config=dict(
        LLAMA, tie_word_embeddings=True, rope_parameters=rope("default"))),
    "qwen2-window": dict(type="qwen2", config=dict(
        LLAMA, use_sliding_window=True, sliding_window=8, max_window_layers=1, rope_parameters=rope("default"))),
    "qwen3": dict(type="qwen3", dtype="float16", config=dict(
        LLAMA, head_dim=16, attention_bias=True, rope_parameters=rope("default"))),
    "distilbert": dict(type="distilbert", classifier=True, config=dict(
        vocab_size=61, dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=64, **LABELS)),
    "bert": dict(type="bert", classifier=True, old=True, config=dict(BERT, num_labels=2)),
    "roberta": dict(type="roberta", classifier=True, dtype="float16", config=dict(
        BERT, type_vocab_size=1, pad_token_id=1, max_position_embeddings=66, **LABELS)),
}


# ---- folders ----

def auto_class(spec):
    if spec.get("classifier"):
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModelForCausalLM


def write_folder(folder, spec, seed):
    config = transformers.AutoConfig.for_model(spec["type"], **spec["config"])
    model = auto_class(spec).from_config(config, dtype=torch.float32)
    randomise(model, torch.Generator().manual_seed(seed))
    dtype = getattr(torch, spec.get("dtype", "float32"))
    model.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder)
    generation = os.path.join(folder, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)
    if spec.get("old"):
        rewrite_old(folder, spec)


def rewrite_old(folder, spec):
    """GPT-2's names without prefix and with the mask as a buffer; BERT's with gamma, beta and position_ids; rotary
    keys of transformers 4."""
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    if spec["type"] == "gpt2":
        tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        tensors["h.0.attn.bias"] = torch.ones((1, 1, 8, 8), dtype=torch.uint8).tril()
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    if spec["type"] == "bert":
        tensors = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
                   for name, t in tensors.items()}
        tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(tensors, path, metadata={"format": "pt"})
    config_path = os.path.join(folder, "config.json")
    with open(config_path) as f:
        config = json.load(f)
    parameters = config.pop("rope_parameters", None)
    if parameters:
        config["rope_theta"] = parameters.pop("rope_theta")
        config["rope_scaling"] = None
        if parameters["rope_type"] != "default":
            config["rope_scaling"] = dict(parameters, type=parameters["rope_type"])
            del config["rope_scaling"]["rope_type"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.30.0"
    with open(config_path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def load(folder, spec):
    """sdpa: its softmax follows the dtype of its inputs, eager attention's is always float32. GPT-Neo has eager alone."""
    attention = "eager" if spec["type"] == "gpt_neo" else "sdpa"
    return auto_class(spec).from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


# ---- float64 ----

class Rotary64(torch.nn.Module):
    """Frequencies from the module's own formula, in float64 where it is plain or linear; yarn's blend is recomputed."""

    def __init__(self, rotary):
        super().__init__()
        self.inv, self.scale = frequencies(rotary.config), rotary.attention_scaling
        torch.testing.assert_close(self.inv.float(), rotary.inv_freq.float(), rtol=2e-6, atol=0)

    def forward(self, x, position_ids):
        angle = position_ids[..., None].to(F64) * self.inv
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos() * self.scale, angle.sin() * self.scale


def frequencies(config):
    parameters = config.rope_parameters
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n = int(head * parameters.get("partial_rotary_factor", 1.0))
    inv = parameters["rope_theta"] ** (-torch.arange(0, n, 2, dtype=F64) / n)
    if parameters["rope_type"] in ("default", "dynamic"):
        return inv
    if parameters["rope_type"] == "linear":
        return inv / parameters["factor"]
    assert parameters["rope_type"] == "yarn"
    turns = torch.tensor([parameters.get("beta_fast") or 32, parameters.get("beta_slow") or 1], dtype=F64)
    original = parameters["original_max_position_embeddings"]
    pair = n * torch.log(original / (turns * 2 * torch.pi)) / (2 * torch.log(torch.tensor(parameters["rope_theta"], dtype=F64)))
    low, high = max(pair[0].floor().item(), 0), min(pair[1].ceil().item(), n - 1)
    ramp = ((torch.arange(n // 2, dtype=F64) - low) / max(high - low, 0.001)).clamp(0, 1)
    return inv / parameters["factor"] * ramp + inv * (1 - ramp)


class RmsNorm64(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def gpt_neo_attention64(self, query, key, value, attention_mask=None):
    n = query.size(-2)
    scores = (query @ key.transpose(-1, -2)).masked_fill(~self.bias[:, :, :n, :n], -torch.inf)
    weights = scores.softmax(-1)
    return weights @ value, weights


def in_float64(model):
    """Makes every step of the model float64, in place."""
    model.double()
    for parent in list(model.modules()):
        if isinstance(parent, GPTNeoSelfAttention):
            parent._attn = gpt_neo_attention64.__get__(parent)
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, RmsNorm64(child))
            elif name == "rotary_emb":
                setattr(parent, name, Rotary64(child))
    return model.eval()


# ---- values ----

def draw_sequences(generator, lengths, vocab_size):
    return [torch.randint(FIRST_ID, vocab_size, (n,), generator=generator).tolist() for n in lengths]


def values(model, sequences):
    """name -> [tokens of all sequences][..] (`logits` of a classifier: [sequences][labels]); each sequence alone, so that
    nothing is padded. `hidden.norm`: what the head over the vocabulary reads."""
    seen = {"logits": []}
    head = model.get_output_embeddings()
    if head is not None:
        seen["hidden.norm"] = []
        handle = head.register_forward_pre_hook(lambda _module, inputs: seen["hidden.norm"].append(inputs[0][0]))
    with torch.no_grad():
        for ids in sequences:
            arguments = dict(use_cache=False) if head is not None else {}
            seen["logits"].append(model(input_ids=torch.tensor([ids]), **arguments).logits[0])
    if head is None:
        return {"logits": torch.stack(seen["logits"])}
    handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def expected(folder, spec, sequences):
    return values(in_float64(load(folder, spec)), sequences)


def worst_errors(expected, values):
    """The largest error of a tensor, of its norm: among the outputs, among the gradients (0: there are none)."""
    error = {k: ((values[k].double() - x).norm() / x.norm()).item() for k, x in expected.items()}
    return [round(max((e for k, e in error.items() if k.startswith("grad.") == grads), default=0.0), 3)
            for grads in (False, True)]
