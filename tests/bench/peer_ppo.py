#!/usr/bin/env python3
"""One PPO step of the same work as rlhf-hpc --bench CONFIG.cfg does, by transformers and peft on the same device.

    tests/bench/peer_ppo.py CONFIG.cfg [--int8] [--steps N] [--device cuda|cpu] [--micro-batch-size N]

Random weights of the shape in model.path/config.json, bfloat16 (or bitsandbytes int8), LoRA by peft, the reference policy
from the same weights with the adapters off, generation by generate() in batches, PPO's clipped losses, AdamW. Prints the
median seconds of a step and of its phases as one JSON line. Needs torch, transformers, peft; bitsandbytes for --int8.
"""
import argparse
import json
import re
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM


def read_cfg(path):
    """The settings that matter, from the libconfig text: numbers and lists behind their names."""
    text = re.sub(r"#.*", "", open(path).read())

    def value(name, default=None):
        found = re.search(rf"\b{name}\s*=\s*(\[[^\]]*\]|\"[^\"]*\"|[^;]+);", text)
        return json.loads(found.group(1)) if found else default

    def at_most(v):  # a fixed number, or [min, max) drawn per sample: its longest
        return v[1] - 1 if isinstance(v, list) else v

    return {
        "path": value("path"),
        "r": value("r", 16),
        "alpha": value("lora_alpha", 32),
        "targets": value("target_modules"),
        "prompt": at_most(value("prompt_tokens", 32)),
        "new": at_most(value("max_new_tokens", 64)),
        "batch": value("batch_size", 256),
        "mini": value("mini_batch_size", 16),
        "epochs": value("ppo_epochs", 4),
        "lr": value("learning_rate", 1.41e-5),
        "kl": value("init_kl_coef", 0.2),
    }


def build(s, device, int8):
    config = AutoConfig.from_pretrained(s["path"])
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = AutoModelForCausalLM.from_config(config)
        torch.set_default_dtype(torch.float32)
    if int8:
        import bitsandbytes as bnb

        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and "embed_out" not in name and "lm_head" not in name:
                eight = bnb.nn.Linear8bitLt(module.in_features, module.out_features, module.bias is not None,
                                            has_fp16_weights=False, threshold=6.0)
                eight.weight = bnb.nn.Int8Params(module.weight.data.half().cpu(), requires_grad=False, has_fp16_weights=False)
                if module.bias is not None:
                    eight.bias = module.bias
                parent = model.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], eight.to(device))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = get_peft_model(model, LoraConfig(r=s["r"], lora_alpha=s["alpha"], target_modules=s["targets"], task_type="CAUSAL_LM"))
    head = torch.nn.Linear(config.hidden_size, 1, device=device)
    return model, head, config


def forward(model, head, ids, n_prompt):
    out = model(ids, output_hidden_states=True, use_cache=False)
    logits = out.logits[:, n_prompt - 1:-1].float()
    logprob = torch.log_softmax(logits, -1).gather(-1, ids[:, n_prompt:, None]).squeeze(-1)
    value = head(out.hidden_states[-1][:, n_prompt - 1:-1].float()).squeeze(-1)
    return logprob, value


def step(model, head, optimizer, s, prompts, micro, seconds):
    device = prompts.device

    def mark(phase, since):
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.setdefault(phase, []).append(time.perf_counter() - since)
        return time.perf_counter()

    at = time.perf_counter()
    model.eval()
    with torch.no_grad():
        ids = torch.cat([model.generate(input_ids=p, attention_mask=torch.ones_like(p), do_sample=True, top_k=0,
                                        min_new_tokens=s["new"], max_new_tokens=s["new"], pad_token_id=0)
                         for p in prompts.split(64)])
    at = mark("generate", at)
    old, reference = [], []
    with torch.no_grad():
        for part in ids.split(micro):
            old.append(forward(model, head, part, s["prompt"]))
            with model.disable_adapter():
                reference.append(forward(model, head, part, s["prompt"])[0])
    old_logprob = torch.cat([o[0] for o in old])
    old_value = torch.cat([o[1] for o in old])
    reward = -s["kl"] * (old_logprob - torch.cat(reference))
    advantage, last = torch.zeros_like(reward), torch.zeros(len(ids), device=device)
    for t in reversed(range(reward.shape[1])):
        following = old_value[:, t + 1] if t + 1 < reward.shape[1] else 0
        last = reward[:, t] + following - old_value[:, t] + 0.95 * last
        advantage[:, t] = last
    target = advantage + old_value
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    at = mark("logprobs", at)
    model.train()
    for _ in range(s["epochs"]):
        for mini in torch.randperm(len(ids), device=device).split(s["mini"]):
            optimizer.zero_grad(set_to_none=True)
            for part in mini.split(micro):
                logprob, value = forward(model, head, ids[part], s["prompt"])
                ratio = torch.exp(logprob - old_logprob[part])
                policy = torch.max(-advantage[part] * ratio, -advantage[part] * ratio.clamp(0.8, 1.2)).mean()
                clipped = old_value[part] + (value - old_value[part]).clamp(-0.2, 0.2)
                critic = 0.5 * torch.max((value - target[part]) ** 2, (clipped - target[part]) ** 2).mean()
                ((policy + 0.1 * critic) * len(part) / len(mini)).backward()
            optimizer.step()
    mark("update", at)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("config")
    p.add_argument("--int8", action="store_true")
    p.add_argument("--steps", type=int, default=2)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--micro-batch-size", type=int, default=16)
    a = p.parse_args()
    s = read_cfg(a.config)
    torch.manual_seed(0)
    model, head, config = build(s, a.device, a.int8)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad] + list(head.parameters()), lr=s["lr"])
    prompts = torch.randint(config.vocab_size, (s["batch"], s["prompt"]), device=a.device)
    seconds = {}
    for i in range(a.steps + 1):
        if i == 1:  # the first warms up
            seconds = {}
        step(model, head, optimizer, s, prompts, a.micro_batch_size, seconds)
    median = {name: statistics.median(v) for name, v in seconds.items()}
    peak = torch.cuda.max_memory_reserved() if a.device == "cuda" else 0
    print(json.dumps({"peer": "transformers+peft", "int8": a.int8, "device": a.device, "step": sum(median.values()), **median,
                      "reserved_bytes": peak, "torch": torch.__version__}))


main()
