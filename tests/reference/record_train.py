#!/usr/bin/env python3
"""Records what training computes in each family: outputs of a tiny model with adapters on all its
layers' linears, and the gradients of a weighted sum of them.

    python tests/reference/record_train.py [FOLDER]        (default: train/ beside this script)

Policies: log-probability, entropy and value of each response token, summed with given weights.
Classifiers: the classes' scores of each text, summed with given weights; the pooler is frozen, the
score head is trained. Both in float64, compared with the untouched modules in float32, as
record.py does. README.md lists the files.
"""
import math
import os
import re
import shutil
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors.torch import load_file

import record
from record import F64

COMMON = dict(vocab_size=41, bos_token_id=0, eos_token_id=0)
GPT2 = dict(COMMON, n_embd=24, n_layer=2, n_head=3, n_positions=32, n_inner=40,
            scale_attn_by_inverse_layer_idx=True)
LLAMA = dict(COMMON, hidden_size=24, num_hidden_layers=2, intermediate_size=40,
             max_position_embeddings=32, num_key_value_heads=1,
             rope_parameters=dict(rope_type="default", rope_theta=1000.0))
BERT = dict(vocab_size=41, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=40, max_position_embeddings=34, pad_token_id=0, num_labels=3)

# n_labels 0: a policy. A layer's linears are those whose module path matches `linears`.
MODELS = {
    "gpt2": dict(
        seed=21, dtype=torch.float16, config=transformers.GPT2Config(**GPT2), n_labels=0),
    "gpt2-score": dict(
        seed=22, dtype=torch.float32, n_labels=1,
        config=transformers.GPT2Config(**GPT2, num_labels=1)),
    "gpt_neo": dict(
        seed=23, dtype=torch.float16, n_labels=0,
        config=transformers.GPTNeoConfig(
            **COMMON, hidden_size=24, num_layers=2, num_heads=3, intermediate_size=40,
            max_position_embeddings=32, window_size=4, attention_types=[[["global", "local"], 1]])),
    "opt": dict(
        seed=24, dtype=torch.float16, n_labels=0,
        config=transformers.OPTConfig(
            vocab_size=41, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, ffn_dim=40,
            max_position_embeddings=32, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "mistral": dict(
        seed=25, dtype=torch.bfloat16, n_labels=0,
        config=transformers.MistralConfig(**LLAMA, num_attention_heads=3, head_dim=8,
                                          sliding_window=4)),
    "qwen2": dict(
        seed=26, dtype=torch.bfloat16, n_labels=0,
        config=transformers.Qwen2Config(**LLAMA, num_attention_heads=3, tie_word_embeddings=True)),
    "qwen3": dict(
        seed=27, dtype=torch.bfloat16, n_labels=0,
        config=transformers.Qwen3Config(**LLAMA, num_attention_heads=2, head_dim=16)),
    "distilbert": dict(
        seed=28, dtype=torch.float16, n_labels=2,
        config=transformers.DistilBertConfig(
            vocab_size=41, dim=24, n_layers=2, n_heads=3, hidden_dim=40,
            max_position_embeddings=32, num_labels=2)),
    "bert": dict(
        seed=29, dtype=torch.float16, n_labels=3, config=transformers.BertConfig(**BERT)),
    "roberta": dict(
        seed=30, dtype=torch.float32, n_labels=3,
        config=transformers.RobertaConfig(**dict(BERT, pad_token_id=1, type_vocab_size=1))),
}
LINEARS = r".*(layers?|h)\.\d+\..*"  # within the layers
LENGTHS, PROMPT_TOKENS = (12, 9, 5), (4, 3, 2)
TEMPERATURE = 0.7


# ---- models ----

def auto(spec):
    return (transformers.AutoModelForSequenceClassification if spec["n_labels"]
            else transformers.AutoModelForCausalLM)


def randomise(model, generator):
    """Weights of the scale of a trained model; norms around 1, biases of either sign."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=generator, dtype=F64)
            if p.dim() == 2:
                table = re.search(r"wte|wpe|embed_tokens|embed_positions|embeddings\.", name)
                p.copy_((0.5 if table else 1.1 / math.sqrt(p.shape[1])) * r)
            elif name.endswith("bias"):
                p.copy_(0.2 * r)
            else:
                p.copy_(1 + 0.3 * r.clamp(-2.5, 2.5))


def write_model(folder, spec):
    model = auto(spec).from_config(spec["config"], dtype=torch.float32)
    randomise(model, torch.Generator().manual_seed(spec["seed"]))
    model.to(spec["dtype"])
    model.config.dtype = spec["dtype"]
    model.save_pretrained(folder)
    generation = os.path.join(folder, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)


def load_adapted(folder, spec):
    """The stored model with random adapters, a function of the seed, and a trainable score head."""
    model = auto(spec).from_pretrained(folder, dtype=torch.float32)
    model.config.pad_token_id = model.config.pad_token_id or 0  # one text at a time has no padding
    targets = [name for name, m in model.named_modules()
               if isinstance(m, (torch.nn.Linear, transformers.pytorch_utils.Conv1D))
               and re.fullmatch(LINEARS, name)]
    config = peft.LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets)
    model = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(spec["seed"] + 200)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                r = torch.randn(p.shape, generator=generator, dtype=F64)
                p.copy_(0.5 / math.sqrt(p.shape[1]) * r)
    for p in score_head(model, spec).values():
        p.requires_grad_()
    return model


def score_head(model, spec):
    if not spec["n_labels"]:
        return {}
    base = model.get_base_model()
    head = base.score if hasattr(base, "score") else base.classifier
    return dict((head.out_proj if hasattr(head, "out_proj") else head).named_parameters())


def gpt_neo_attention(self, query, key, value, attention_mask=None):
    """GPTNeoSelfAttention._attn, without its float32 (and without dropout)."""
    n = query.size(-2)
    scores = (query @ key.transpose(-1, -2)).where(self.bias[:, :, :n, :n], -torch.inf)
    weights = scores.softmax(-1)
    return weights @ value, weights


def in_float64(model):
    """Makes every step of the model float64, in place."""
    model.double()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, record.RmsNorm64(child))
            elif name == "rotary_emb":
                setattr(parent, name, record.Rotary64(child))
            elif type(child).__name__ == "GPTNeoSelfAttention":
                child._attn = types.MethodType(gpt_neo_attention, child)
    return model


# ---- values ----

def response(model, head, ids, first):
    """logprob, entropy, value of ids[first:]; the state that the head reads gives the value."""
    states = []
    handle = model.get_base_model().get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: states.append(inputs[0]))
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    handle.remove()
    rows = slice(first - 1, len(ids) - 1)
    log_p = torch.log_softmax(logits[rows] / TEMPERATURE, dim=-1)
    logprob = log_p.gather(1, torch.tensor(ids[first:])[:, None])[:, 0]
    value = torch.nn.functional.linear(states[0][0][rows], head["weight"], head["bias"])[:, 0]
    return logprob, -(log_p.exp() * log_p).sum(-1), value


def values(model, spec, texts, given):
    """Outputs, and the gradients of their sum weighted by given["d<output>"]."""
    dtype = next(model.parameters()).dtype
    model.zero_grad()
    head = {k: given[f"value.{k}"].to(dtype).requires_grad_() for k in ("weight", "bias")
            } if not spec["n_labels"] else score_head(model, spec)
    if spec["n_labels"]:
        outputs = dict(score=torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in texts]))
    else:
        parts = [response(model, head, ids, p) for ids, p in zip(texts, PROMPT_TOKENS)]
        outputs = dict(zip(("logprob", "entropy", "value"), map(torch.cat, zip(*parts))))
    sum((given["d" + name].to(dtype) * y).sum() for name, y in outputs.items()).backward()
    result = {name: y.detach() for name, y in outputs.items()}
    for name, p in model.named_parameters():
        if "lora_" in name:
            name = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            result["grad." + name] = p.grad
    result.update({f"grad.head.{name}": p.grad for name, p in head.items()})
    return result


def record_one(folder, spec):
    shutil.rmtree(folder, ignore_errors=True)
    write_model(folder, spec)
    generator = torch.Generator().manual_seed(spec["seed"] + 100)
    texts = [torch.randint(3, 41, (n,), generator=generator).tolist() for n in LENGTHS]
    draw = lambda *shape: torch.randn(shape, generator=generator)
    model = load_adapted(folder, spec)
    given = {"adapter." + name.removeprefix("base_model.model.").removesuffix(".default.weight"):
             p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}
    n = sum(LENGTHS) - sum(PROMPT_TOKENS)
    if spec["n_labels"]:
        given["dscore"] = draw(len(texts), spec["n_labels"])
        given.update({f"head.{name}": p.detach().clone()
                      for name, p in score_head(model, spec).items()})
    else:
        width = model.get_base_model().get_output_embeddings().in_features
        given.update({"dlogprob": draw(n), "dentropy": draw(n), "dvalue": draw(n),
                      "value.weight": draw(1, width) / width ** 0.5, "value.bias": draw(1)})
    result = values(in_float64(model), spec, texts, given)
    record.check_float32(os.path.basename(folder), result,
                         values(load_adapted(folder, spec), spec, texts, given))
    record.write(folder, "train", {**given, **result},
                 dict(ids=texts, prompt_tokens=PROMPT_TOKENS, temperature=TEMPERATURE,
                      n_labels=spec["n_labels"]))


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "train")
    for name, spec in MODELS.items():
        record_one(os.path.join(target, name), spec)


if __name__ == "__main__":
    main()
