#!/usr/bin/env python3
"""Adapters as peft writes them, every key of adapter_config.json that is read at least once, and the logits of the base model
with and without them. The C tests read the files (tests/unit/lora.c); peft_roundtrip.py holds the same cases against the stack.

    python tests/reference/record_adapters.py [FOLDER]        (default: adapters/ beside this script)

Computed in float64 by the modules of record.py; merging by peft in float64 must give the same logits. Two runs write the same bytes.
"""
import json
import math
import os
import shutil
import sys

import record
import peft
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))

# A GPT-2, whose linear layers are Conv1D: [in][out]
GPT2 = dict(seed=21, dtype=torch.float32, classic=False, kind=transformers.GPT2Config,
            config=dict(vocab_size=59, n_embd=16, n_layer=2, n_head=2, n_inner=24, n_positions=64, bos_token_id=0,
                        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))

CASES = {
    "patterns": dict(base="llama-gqa", r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
                     rank_pattern={"v_proj": 1, r".*\.1\.self_attn\.o_proj": 5, "layers.0.mlp.down_proj": 2},
                     alpha_pattern={"q_proj": 4, "^model.layers.1.mlp.down_proj": 9}),
    "layers": dict(base="llama-gqa", r=4, lora_alpha=8, target_modules=["self_attn.k_proj", "up_proj"], use_rslora=True,
                   layers_to_transform=[1], layers_pattern="layers"),
    "one-layer": dict(base="neox-parallel", r=2, lora_alpha=5, target_modules=["query_key_value"], layers_to_transform=0,
                      init_lora_weights="gaussian"),
    "exclude": dict(base="neox-parallel", r=2, lora_alpha=3, target_modules="all-linear",
                    exclude_modules=r".*\.0\.mlp\..*", rank_pattern={"dense": 4}, use_rslora=True),
    "regex": dict(base="llama-untied", r=2, lora_alpha=4, target_modules=r".*\.layers\.\d\.(self_attn\.[qv]|mlp\.gate)_proj",
                  exclude_modules=["layers.1.self_attn.v_proj"], alpha_pattern={r"(q|gate)_proj": 7}),
    "score": dict(base="llama-untied", r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["score"],
                  task_type="SEQ_CLS"),
    "conv1d": dict(base="gpt2", r=3, lora_alpha=6, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True,
                   rank_pattern={"mlp.c_proj": 2}),
}
TOKENS, LABELS = 12, 3


def base_folder(folder, name):
    return os.path.join(folder, "gpt2") if name == "gpt2" else os.path.join(HERE, name)


def write_gpt2(folder):
    model = transformers.GPT2LMHeadModel(GPT2["kind"](**GPT2["config"]))
    generator = torch.Generator().manual_seed(GPT2["seed"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            if name.endswith("bias"):
                p.copy_(0.1 * noise)
            elif "ln_" in name:
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(noise * (0.5 if "wte" in name or "wpe" in name else 1.2 / math.sqrt(p.shape[0])))
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))


def load_base(folder, kind):
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa", **(
        dict(num_labels=LABELS, pad_token_id=0) if "Sequence" in kind.__name__ else {})).eval()


def write_adapter(folder, base, name, spec):
    spec = {key: list(value) if isinstance(value, list) else value for key, value in spec.items() if key != "base"}
    task = spec.pop("task_type", "CAUSAL_LM")
    kind = transformers.AutoModelForSequenceClassification if task == "SEQ_CLS" else transformers.AutoModelForCausalLM
    model = peft.get_peft_model(load_base(base, kind), peft.LoraConfig(task_type=task, lora_dropout=0.1, **spec))
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(0.7 / math.sqrt(p.shape[-1]) * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    model.peft_config["default"].base_model_name_or_path = os.path.basename(base)
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    path = os.path.join(folder, "adapter_config.json")  # peft keeps these as sets
    with open(path) as f:
        config = json.load(f)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key].sort()
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    return kind


def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].detach()


def record_case(folder, root, name, spec):
    shutil.rmtree(folder, ignore_errors=True)
    base = base_folder(root, spec["base"])
    write_adapter(folder, base, name, spec)
    # a language model's logits even where the head beside the adapters is a classifier's
    language = transformers.AutoModelForCausalLM
    vocab = transformers.AutoConfig.from_pretrained(base).vocab_size
    ids = record.draw_ids(torch.Generator().manual_seed(len(name)), TOKENS, vocab)

    def adapted():
        model = load_base(base, language)
        if spec.get("task_type") != "SEQ_CLS":
            return peft.PeftModel.from_pretrained(model, folder)
        config = peft.LoraConfig.from_pretrained(folder)
        config.task_type, config.modules_to_save = "CAUSAL_LM", None
        model = peft.get_peft_model(model, config)
        state = record.load_file(os.path.join(folder, "adapter_model.safetensors"))
        peft.set_peft_model_state_dict(model, {k: v for k, v in state.items() if "lora_" in k})
        return model

    model = record.in_float64(adapted())
    on = logits(model, ids)
    with model.disable_adapter():
        off = logits(model, ids)
    merged = logits(model.merge_and_unload(), ids)
    assert (on - merged).abs().max() < 1e-10, name
    assert (on - off).abs().max() > 1e-2, name
    record.check_float32(name, dict(on=on), dict(on=logits(adapted().eval(), ids)))
    record.write(folder, "expected", dict(on=on, off=off), dict(ids=ids, base=spec["base"]))


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "adapters")
    os.makedirs(root, exist_ok=True)
    write_gpt2(os.path.join(root, "gpt2"))
    for name, spec in CASES.items():
        record_case(os.path.join(root, name), root, name, spec)
        print(name, json.dumps(spec))


if __name__ == "__main__":
    main()
