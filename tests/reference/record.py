#!/usr/bin/env python3
"""Records the reference values that the C tests read: four tiny models, their hidden states and
logits, one PPO mini-batch and one SFT batch through peft adapters, one language-model step with all
gradients.

    python tests/reference/record.py [FOLDER]        (default: the folder of this script)

Weights are random but not trivial (no norm weight is 1, no bias 0) and stored in 16 bits. Values
are computed in float64 from the stored weights by transformers' and peft's own modules. Where
those drop to float32 (rotary angles, RMS norm, softmax of eager attention) the module's forward is
replaced by the same formula in float64; every float64 result is then compared with the untouched
modules in float32, so that a mistake here cannot pass as a reference. README.md lists the files.
"""
import json
import math
import os
import shutil
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
import trl.trainer.sft_trainer
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

F64 = torch.float64

# `classic` rewrites config.json with the key names of transformers 4, which most folders on the
# hub have; the other two keep what transformers 5 writes (rope_parameters).
MODELS = {
    "neox-parallel": dict(
        seed=11, dtype=torch.float16, classic=False, kind=transformers.GPTNeoXConfig,
        config=dict(vocab_size=83, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=56, hidden_act="gelu_fast", use_parallel_residual=True,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                         partial_rotary_factor=0.25),
                    max_position_embeddings=128, bos_token_id=0, eos_token_id=0),
        ppo_seed=311, targets=["query_key_value", "dense"]),
    "neox-sequential": dict(
        seed=12, dtype=torch.bfloat16, classic=True, kind=transformers.GPTNeoXConfig,
        config=dict(vocab_size=73, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                    intermediate_size=40, hidden_act="gelu_new", use_parallel_residual=False,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                         partial_rotary_factor=0.5),
                    max_position_embeddings=128, bos_token_id=0, eos_token_id=0)),
    "llama-gqa": dict(
        seed=13, dtype=torch.bfloat16, classic=False, kind=transformers.LlamaConfig,
        config=dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, intermediate_size=40,
                    tie_word_embeddings=True, rms_norm_eps=1e-5,
                    rope_parameters=dict(rope_type="default", rope_theta=5000.0),
                    max_position_embeddings=128, bos_token_id=1, eos_token_id=2),
        ppo_seed=314, targets="all-linear"),
    # head_dim 16 and 64 original positions: wavelengths 6.3 (kept), 19.9 and 62.8 (blended),
    # 199 and longer (divided by the factor), so all three branches of llama3 scaling are used
    "llama-untied": dict(
        seed=14, dtype=torch.float16, classic=True, shard="24KB", kind=transformers.LlamaConfig,
        config=dict(vocab_size=79, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=False,
                    rms_norm_eps=1e-6,
                    rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0,
                                         low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_position_embeddings=64),
                    max_position_embeddings=512, bos_token_id=1, eos_token_id=2)),
}
LENGTHS = (66, 9)  # tokens of the two sequences

PPO = dict(temperature=0.7, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, ent_coef=0.01)
PROMPT_TOKENS = (5, 3, 7)
RESPONSE_TOKENS = (6, 9, 2)

# two prompts with completions, and a packed block: all but its first token are targets
SFT = dict(learning_rate=0.01, adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-8, weight_decay=0.1,
           max_grad_norm=0.25, updates=2)
SFT_PROMPT_TOKENS = (5, 3, 1)
SFT_TARGETS = (8, 4, 30)


# ---- models ----

def weight_std(config, name, shape):
    if "embed_in" in name or "embed_tokens" in name:
        return 0.3 if config.tie_word_embeddings else 0.7  # tied: keeps the logits moderate
    return 1.3 / math.sqrt(shape[-1])


def randomise(model, generator):
    """Weights of the scale of a trained model; norms around 1, biases of either sign."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=generator, dtype=F64)
            if p.dim() == 2:
                p.copy_(weight_std(model.config, name, p.shape) * r)
            elif name.endswith("bias"):
                p.copy_(0.2 * r)
            else:
                p.copy_(1 + 0.3 * r.clamp(-2.5, 2.5))


def classic_config(path):
    """Rewrites the rope keys of a config.json as transformers 4 wrote them."""
    with open(path) as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = int(rope.pop("rope_theta"))
        config["rotary_pct"] = rope.pop("partial_rotary_factor")
    else:
        config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def write_model(folder, spec):
    config = spec["kind"](**spec["config"])
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, torch.Generator().manual_seed(spec["seed"]))
    model.to(spec["dtype"])
    model.config.dtype = spec["dtype"]
    model.save_pretrained(folder, max_shard_size=spec.get("shard", "1GB"))
    os.remove(os.path.join(folder, "generation_config.json"))
    if spec["classic"]:
        classic_config(os.path.join(folder, "config.json"))


def inverse_frequencies(config):
    """Rotary frequencies in float64 (transformers computes them in float32)."""
    rope = config.rope_parameters
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n = int(head * rope.get("partial_rotary_factor", 1.0))
    inv = rope["rope_theta"] ** (-torch.arange(0, n, 2, dtype=F64) / n)
    if rope["rope_type"] == "default":
        return inv
    assert rope["rope_type"] == "llama3"
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * inv / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * inv / factor + smooth * inv


class Rotary64(torch.nn.Module):
    def __init__(self, rotary):
        super().__init__()
        self.inv = inverse_frequencies(rotary.config)
        torch.testing.assert_close(self.inv.float(), rotary.inv_freq.float(), rtol=1e-6, atol=0)
        assert rotary.attention_scaling == 1

    def forward(self, x, position_ids):
        angle = position_ids[..., None].to(F64) * self.inv
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()


class RmsNorm64(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def in_float64(model):
    """Makes every step of the model float64, in place."""
    model.double()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                setattr(parent, name, RmsNorm64(child))
            elif name == "rotary_emb":
                setattr(parent, name, Rotary64(child))
    return model.eval()


def load_model(folder):
    """sdpa: its softmax follows the dtype of its inputs, eager attention's is always float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def trunk(model):
    """(embedding, blocks, final norm) of the model inside whatever wraps it."""
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    if base.config.model_type == "gpt_neox":
        return base.gpt_neox.embed_in, base.gpt_neox.layers, base.gpt_neox.final_layer_norm
    return base.model.embed_tokens, base.model.layers, base.model.norm


def forward(model, ids):
    """One sequence alone, so that nothing is padded: name -> [tokens][...]."""
    embed, blocks, norm = trunk(model)
    seen, handles = {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0]
        return hook

    for name, module in [("hidden.embed", embed), ("hidden.norm", norm)] + [
            (f"hidden.block.{i}", block) for i, block in enumerate(blocks)]:
        handles.append(module.register_forward_hook(keep(name)))
    seen["logits"] = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return seen


# ---- the three kinds of values; each returns (tensors in float64, numbers for the JSON file) ----

def forward_values(model, sequences):
    outputs = [forward(model, ids) for ids in sequences]
    return {name: torch.cat([o[name] for o in outputs]).detach() for name in outputs[0]}, {}


def pretrain_values(model, sequences):
    """Mean cross-entropy of every next token of both sequences, gradients of all weights."""
    model.zero_grad()
    loss, n = 0, 0
    for ids in sequences:
        logits = forward(model, ids)["logits"][:-1]
        loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]),
                                                        reduction="sum")
        n += len(ids) - 1
    loss = loss / n
    loss.backward()
    grads = {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    return grads, dict(loss=loss.item(), n_tokens=n)


def response_values(model, head, ids, prompt_tokens):
    """Log-probability, entropy and value of each response token (SPEC 2.3: the logits and the
    value that belong to a token stand at the position before it)."""
    out = forward(model, ids)
    rows = slice(prompt_tokens - 1, len(ids) - 1)
    log_p = torch.log_softmax(out["logits"][rows] / PPO["temperature"], dim=-1)
    target = torch.tensor(ids[prompt_tokens:])
    logprob = log_p.gather(1, target[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    value = torch.nn.functional.linear(out["hidden.norm"][rows], head["v_head.summary.weight"],
                                       head["v_head.summary.bias"])[:, 0]
    return logprob, entropy, value


def ppo_values(model, head, samples, given):
    """SPEC 2.8, with an entropy bonus. given: old_logprob, old_value, advantage, return."""
    head = {name: t.detach().clone().to(next(model.parameters()).dtype).requires_grad_()
            for name, t in head.items()}
    given = {name: t.to(next(model.parameters()).dtype) for name, t in given.items()}
    model.zero_grad()
    parts = [response_values(model, head, ids, p) for ids, p in zip(samples, PROMPT_TOKENS)]
    logprob, entropy, value = (torch.cat(column) for column in zip(*parts))
    old_logprob, old_value = given["old_logprob"], given["old_value"]
    advantage, ret = given["advantage"], given["return"]

    ratio = (logprob - old_logprob).exp()
    unclipped = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - PPO["cliprange"], 1 + PPO["cliprange"])
    policy_loss = torch.maximum(unclipped, clipped).mean()
    value_clipped = torch.maximum(torch.minimum(value, old_value + PPO["cliprange_value"]),
                                  old_value - PPO["cliprange_value"])
    error, error_clipped = (value - ret) ** 2, (value_clipped - ret) ** 2
    value_loss = 0.5 * torch.maximum(error, error_clipped).mean()
    mean_entropy = entropy.mean()
    loss = policy_loss + PPO["vf_coef"] * value_loss - PPO["ent_coef"] * mean_entropy
    loss.backward()

    tensors = dict(logprob=logprob, entropy=entropy, value=value, ratio=ratio)
    tensors = {name: t.detach() for name, t in tensors.items()}
    for name, p in model.named_parameters():
        if p.requires_grad:
            tensors["grad." + name.replace(".default.", ".")] = p.grad
    for name, t in head.items():
        tensors["grad." + name] = t.grad
    numbers = dict(
        loss=loss.item(), policy_loss=policy_loss.item(), value_loss=value_loss.item(),
        entropy=mean_entropy.item(), ratio=ratio.mean().item(),
        approxkl=(0.5 * (logprob - old_logprob) ** 2).mean().item(),
        policykl=(old_logprob - logprob).mean().item(),
        clipfrac=(clipped > unclipped).double().mean().item(),
        value_clipfrac=(error_clipped > error).double().mean().item())
    return tensors, numbers, edge_distance(ratio, value, value_clipped, old_value, ret)


def edge_distance(ratio, value, value_clipped, old_value, ret):
    """How far the nearest token is from a place where the loss has no derivative."""
    clipped = value != value_clipped
    tie = ((value + value_clipped) / 2 - ret).abs()[clipped]  # both squared errors are equal at 0
    edges = [(ratio - 1).abs() - PPO["cliprange"],
             (value - old_value).abs() - PPO["cliprange_value"], tie]
    return min(edge.abs().min().item() for edge in edges if edge.numel())


def sft_loss(model, samples):
    """SPEC 3.2 in the dtype of the model, each sequence alone; (loss, log-probabilities)."""
    parts = []
    for ids, prompt in zip(samples, SFT_PROMPT_TOKENS):
        log_p = torch.log_softmax(forward(model, ids)["logits"][prompt - 1:-1], dim=-1)
        parts.append(log_p.gather(1, torch.tensor(ids[prompt:])[:, None])[:, 0])
    logprob = torch.cat(parts)
    return -logprob.sum() / logprob.numel(), logprob


def trl_loss(model, samples):
    """The same of TRL's collator and the model's own loss, on one padded batch."""
    collate = trl.trainer.sft_trainer.DataCollatorForLanguageModeling(pad_token_id=0)
    batch = collate([dict(input_ids=ids, labels=[-100] * prompt + ids[prompt:])
                     for ids, prompt in zip(samples, SFT_PROMPT_TOKENS)])
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                 labels=batch["labels"], use_cache=False).loss


def sft_values(model, samples):
    """Gradients of the loss, and the adapters after two clipped AdamW updates on the same batch."""
    named = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=SFT["learning_rate"],
                                  betas=(SFT["adam_beta1"], SFT["adam_beta2"]),
                                  eps=SFT["adam_epsilon"], weight_decay=SFT["weight_decay"])
    tensors, numbers = {}, {}
    for update in range(SFT["updates"]):
        optimizer.zero_grad()
        loss, logprob = sft_loss(model, samples)
        loss.backward()
        if update == 0:
            tensors["logprob"] = logprob.detach()
            tensors.update({f"grad.{n}": p.grad.clone() for n, p in named.items()})
            numbers["loss"] = loss.item()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), SFT["max_grad_norm"])
        numbers[f"grad_norm_{update}"] = norm.item()
        assert norm > SFT["max_grad_norm"], "the norm is not clipped: lower max_grad_norm"
        optimizer.step()
    tensors.update({f"updated.{n}": p.detach().clone() for n, p in named.items()})
    return tensors, numbers


# ---- recording ----

def check_float32(name, values64, values32):
    """The float64 values must be those of the untouched modules, up to float32's rounding."""
    worst = 0.0
    for key, expected in values64.items():
        scale = expected.abs().max().item() + 1e-6
        worst = max(worst, (expected - values32[key].double()).abs().max().item() / scale)
    print(f"{name}: float32 by the untouched modules differs by {worst:.1e} of the largest value")
    assert worst < 2e-5, name


def write(folder, name, tensors, numbers):
    tensors = {k: v.to(torch.float32).contiguous() for k, v in tensors.items()}
    save_file(tensors, os.path.join(folder, name + ".safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, name + ".json"), "w") as f:
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in numbers.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


def draw_ids(generator, n, vocab_size):
    return torch.randint(0, vocab_size, (n,), generator=generator).tolist()


def write_adapter(folder, spec):
    """A peft folder with both matrices random, and the value head where TRL looks for it."""
    generator = torch.Generator().manual_seed(spec["seed"] + 200)
    base = load_model(folder)
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none",
                             target_modules=spec["targets"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                std = 0.5 / math.sqrt(p.shape[1])
                p.copy_(std * torch.randn(p.shape, generator=generator, dtype=F64))
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = os.path.basename(folder)
    saved.target_modules = sorted(saved.target_modules)  # a set: its order changes from run to run
    adapter = os.path.join(folder, "adapter")
    model.save_pretrained(adapter)
    os.remove(os.path.join(adapter, "README.md"))
    hidden = base.config.hidden_size
    head = {"v_head.summary.weight": torch.randn((1, hidden), generator=generator) / hidden ** 0.5,
            "v_head.summary.bias": torch.randn((1,), generator=generator)}
    save_file(head, os.path.join(adapter, "model.safetensors"), metadata={"format": "pt"})


def load_adapter(folder):
    return peft.PeftModel.from_pretrained(load_model(folder), os.path.join(folder, "adapter"),
                                          is_trainable=True).eval()


def record_ppo(folder, spec):
    write_adapter(folder, spec)
    head = load_file(os.path.join(folder, "adapter", "model.safetensors"))
    generator = torch.Generator().manual_seed(spec["ppo_seed"])
    samples = [draw_ids(generator, p + r, spec["config"]["vocab_size"])
               for p, r in zip(PROMPT_TOKENS, RESPONSE_TOKENS)]

    model = in_float64(load_adapter(folder))
    n = sum(RESPONSE_TOKENS)
    zeros = {k: torch.zeros(n) for k in ("old_logprob", "old_value", "advantage", "return")}
    now, _, _ = ppo_values(model, head, samples, zeros)
    draw = lambda scale: scale * torch.randn((n,), generator=generator, dtype=F64)
    given = {"old_logprob": now["logprob"] + draw(0.25), "old_value": now["value"] + draw(0.3),
             "advantage": draw(1.0)}
    given["return"] = given["old_value"] + draw(1.0)
    given = {k: v.to(torch.float32) for k, v in given.items()}

    tensors, numbers, distance = ppo_values(model, head, samples, given)
    assert distance > 2e-3, "a token lies on an edge of the loss: change ppo_seed"
    assert 0 < numbers["clipfrac"] < 1 and 0 < numbers["value_clipfrac"] < 1
    check_float32(f"{os.path.basename(folder)} ppo", tensors,
                  ppo_values(load_adapter(folder), head, samples, given)[0])
    write(folder, "ppo", {**given, **tensors},
          dict(ids=samples, prompt_tokens=PROMPT_TOKENS, response_tokens=RESPONSE_TOKENS,
               settings=PPO, expected=numbers))


def record_sft(folder, spec):
    generator = torch.Generator().manual_seed(spec["ppo_seed"] + 100)
    samples = [draw_ids(generator, p + t, spec["config"]["vocab_size"])
               for p, t in zip(SFT_PROMPT_TOKENS, SFT_TARGETS)]
    samples[2][12] = spec["config"]["eos_token_id"]  # two texts in a block
    with torch.no_grad():
        by_trl = trl_loss(load_adapter(folder), samples).item()
    tensors, numbers = sft_values(in_float64(load_adapter(folder)), samples)
    assert abs(by_trl - numbers["loss"]) < 1e-5 * numbers["loss"], "TRL's loss is another one"
    check_float32(f"{os.path.basename(folder)} sft", tensors, sft_values(load_adapter(folder), samples)[0])
    write(folder, "sft", tensors,
          dict(ids=samples, prompt_tokens=SFT_PROMPT_TOKENS, settings=SFT, expected=numbers))


def record(folder, spec):
    shutil.rmtree(folder, ignore_errors=True)
    write_model(folder, spec)
    name = os.path.basename(folder)
    generator = torch.Generator().manual_seed(spec["seed"] + 100)
    sequences = [draw_ids(generator, n, spec["config"]["vocab_size"]) for n in LENGTHS]
    model = in_float64(load_model(folder))

    tensors, _ = forward_values(model, sequences)
    check_float32(name, tensors, forward_values(load_model(folder), sequences)[0])
    write(folder, "expected", tensors, dict(ids=sequences))
    if "targets" not in spec:
        return
    tensors, numbers = pretrain_values(model, sequences)
    check_float32(f"{name} pretrain", tensors, pretrain_values(load_model(folder), sequences)[0])
    stored = set(load_file(os.path.join(folder, "model.safetensors")))
    renamed = {k.replace("grad.lm_head.", "grad.embed_out.") if name.startswith("neox") else k: v
               for k, v in tensors.items()}
    assert {k.removeprefix("grad.") for k in renamed} == stored, sorted(stored)
    write(folder, "pretrain", renamed, dict(ids=sequences, **numbers))
    record_ppo(folder, spec)
    record_sft(folder, spec)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name, spec in MODELS.items():
        record(os.path.join(root, name), spec)
        for folder, _, files in os.walk(os.path.join(root, name)):
            for file in files:  # safetensors writes 0600
                os.chmod(os.path.join(folder, file), 0o644)


if __name__ == "__main__":
    main()
