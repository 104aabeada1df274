#!/usr/bin/env python3
"""Records what training computes in each family: outputs of the folders of record_families.py with adapters on all
linears of the layers, and the gradients of a weighted sum of them.

    python tests/reference/record_train.py [FOLDER]        (default: families/ beside this script)

Policies: log-probability, entropy and value of each response token, summed with given weights. Classifiers: the
scores of each text, summed with given weights; the pooler is frozen, the score head is trained. In float64, compared
with the untouched modules in float32. Two runs write the same bytes.
"""
import math
import os
import re
import sys
import warnings

import peft
import torch
import transformers
from transformers.pytorch_utils import Conv1D

from family_models import MODELS, draw_sequences, in_float64, load, worst_errors
from record import F64, check_float32, write

NAMES = ("gpt2", "gpt2-classifier", "gpt-neo", "opt", "opt-post-norm", "llama-classifier", "mistral", "qwen2",
         "qwen2-window", "qwen3", "distilbert", "bert", "roberta")
LINEARS = r".*(layers?|h)\.\d+\..*"  # paths of modules within the layers
LENGTHS, PROMPT_TOKENS = (20, 9, 5), (4, 3, 2)  # tokens: longer and shorter than the windows
TEMPERATURE = 0.7


def adapted(folder, spec, seed):
    """The stored model with random adapters, a function of the seed, and a trainable score head."""
    model = load(folder, spec)
    targets = [name for name, m in model.named_modules()
               if isinstance(m, (torch.nn.Linear, Conv1D)) and re.fullmatch(LINEARS, name)]
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapters(model).values():
            p.copy_(0.5 / math.sqrt(p.shape[1]) * torch.randn(p.shape, generator=generator, dtype=F64))
    for p in score_head(model).values():
        p.requires_grad_()
    return model.eval()


def adapters(model):
    """name as our program has it ("transformer.h.0.attn.c_attn.lora_A") -> parameter"""
    return {name.removeprefix("base_model.model.").removesuffix(".default.weight"): p
            for name, p in model.named_parameters() if "lora_" in name}


def score_head(model):
    """Parameters of the last layer of a classifier; of a policy none."""
    base = model.get_base_model()
    head = getattr(base, "score", None) or getattr(base, "classifier", None)
    return dict(getattr(head, "out_proj", head).named_parameters()) if head else {}


def response(model, value, ids, first):
    """logprob, entropy, value of ids[first:], each from the state before it."""
    states = []
    handle = model.get_base_model().get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: states.append(inputs[0]))
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    handle.remove()
    rows = slice(first - 1, len(ids) - 1)
    log_p = torch.log_softmax(logits[rows] / TEMPERATURE, dim=-1)
    logprob = log_p.gather(1, torch.tensor(ids[first:])[:, None])[:, 0]
    values = torch.nn.functional.linear(states[0][0][rows], value["weight"], value["bias"])[:, 0]
    return logprob, -(log_p.exp() * log_p).sum(-1), values


def train_values(model, texts, given):
    """Outputs, and the gradients of their sum weighted by given["d<output>"]."""
    dtype = next(model.parameters()).dtype
    head = score_head(model)
    model.zero_grad()
    if head:
        outputs = dict(score=torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in texts]))
    else:
        head = {k: given[f"head.{k}"].clone().to(dtype).requires_grad_() for k in ("weight", "bias")}
        parts = [response(model, head, ids, first) for ids, first in zip(texts, PROMPT_TOKENS)]
        outputs = dict(zip(("logprob", "entropy", "value"), map(torch.cat, zip(*parts))))
    sum((given["d" + name].to(dtype) * y).sum() for name, y in outputs.items()).backward()
    result = {name: y.detach() for name, y in outputs.items()}
    result.update({f"grad.{name}": p.grad for name, p in adapters(model).items()})
    result.update({f"grad.head.{name}": p.grad for name, p in head.items()})
    return result


def record(folder, name, seed):
    spec = MODELS[name]
    generator = torch.Generator().manual_seed(seed)
    texts = draw_sequences(generator, LENGTHS, spec["config"]["vocab_size"])
    draw = lambda *shape: torch.randn(shape, generator=generator)
    model = adapted(folder, spec, seed + 1)
    given = {f"adapter.{k}": p.detach().clone() for k, p in adapters(model).items()}
    given.update({f"head.{k}": p.detach().clone() for k, p in score_head(model).items()})
    if spec.get("classifier"):
        given["dscore"] = draw(len(texts), model.config.num_labels)
    else:
        n, width = sum(LENGTHS) - sum(PROMPT_TOKENS), model.get_base_model().get_output_embeddings().in_features
        given.update({"dlogprob": draw(n), "dentropy": draw(n), "dvalue": draw(n),
                      "head.weight": draw(1, width) / width ** 0.5, "head.bias": draw(1)})
    result = train_values(in_float64(model), texts, given)
    check_float32(name, result, train_values(adapted(folder, spec, seed + 1), texts, given))
    write(folder, "train", {**given, **result},
          dict(ids=texts, prompt_tokens=PROMPT_TOKENS, temperature=TEMPERATURE,
               bfloat16_error=worst_errors(result, train_values(adapted(folder, spec, seed + 1).bfloat16(), texts, given))))
    os.chmod(os.path.join(folder, "train.safetensors"), 0o644)  # safetensors writes 0600


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "families")
    for i, name in enumerate(NAMES):
        record(os.path.join(root, name), name, 900 + 10 * i)


if __name__ == "__main__":
    main()
