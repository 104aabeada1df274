#!/usr/bin/env python3
"""Folders written here load in transformers and peft, and what peft writes is read here.

The cases of record_adapters.py go both ways with weights drawn anew: logits with the adapter on, off, written again by us, and
merged by us, within 1e-4 + 1e-5 of peft's; the merged folder loads in transformers as it is.

Not part of make check (it needs torch, transformers, peft, safetensors):
    make tests/reference/folders && tests/reference/adapters.sh
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import record_adapters
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig
from transformers.utils import logging

NEOX = dict(model_type="gpt_neox", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, rotary_pct=0.25, rotary_emb_base=5000, max_position_embeddings=64,
            layer_norm_eps=1e-5, hidden_act="gelu_fast", use_parallel_residual=False, bos_token_id=0,
            eos_token_id=0, tie_word_embeddings=False)
LLAMA = dict(model_type="llama", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, intermediate_size=48, rms_norm_eps=1e-6, rope_theta=5000.0,
             max_position_embeddings=64, hidden_act="silu", bos_token_id=1, eos_token_id=[2, 3],
             tie_word_embeddings=True)
LLAMA3 = dict(LLAMA, head_dim=16, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
              rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                original_max_position_embeddings=32))
LINEAR = dict(NEOX, rope_scaling=dict(rope_type="linear", factor=2.0), attention_bias=False)


def check_model(folder, config):
    model, info = AutoModelForCausalLM.from_pretrained(folder / "model", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    # transformers understands the written config as it does the original
    want = AutoConfig.for_model(**config)
    got = AutoConfig.from_pretrained(folder / "model")
    got.rope_parameters.pop("type", None)  # the name of rope_type in transformers before 4.43, written beside it
    for key in ("hidden_act", "rope_parameters", "eos_token_id", "bos_token_id", "tie_word_embeddings",
                "attention_bias", "max_position_embeddings", "num_attention_heads", "head_dim", "rms_norm_eps",
                "layer_norm_eps", "use_parallel_residual", "mlp_bias", "num_key_value_heads"):
        assert getattr(want, key, None) == getattr(got, key, None), (key, getattr(want, key), getattr(got, key))
    raw = load_file(folder / "model" / "model.safetensors")
    state = model.state_dict()
    for name, tensor in raw.items():
        # transformers 5 calls NeoX's head lm_head in memory and embed_out in files
        assert torch.equal(state[name if name in state else "lm_head.weight"], tensor), name
    return model


def check_adapter(folder, model):
    ids = torch.tensor([[1, 5, 9, 2]])
    base = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        before = model(ids).logits.clone()
        peft_model = PeftModel.from_pretrained(model, folder / "adapter").eval()
        after = peft_model(ids).logits
        with peft_model.disable_adapter():
            assert torch.equal(peft_model(ids).logits, before)
    assert not torch.equal(before, after)
    raw = load_file(folder / "adapter" / "adapter_model.safetensors")
    state = peft_model.state_dict()
    for name, tensor in raw.items():
        assert torch.equal(state[name.replace(".weight", ".default.weight")], tensor), name
    assert len(raw) == sum("lora_" in k for k in state), "peft has adapters that the file lacks"
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    merged = peft_model.merge_and_unload().state_dict()
    for name in (n for n in raw if "lora_A" in n):
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        delta = config["lora_alpha"] / config["r"] * raw[name.replace("lora_A", "lora_B")] @ raw[name]
        assert torch.allclose(merged[module + ".weight"], base[module + ".weight"] + delta, atol=1e-5), module
    head = load_file(folder / "adapter" / "model.safetensors")
    assert head["v_head.summary.weight"].shape == (1, model.config.hidden_size)
    assert head["v_head.summary.bias"].tolist() == [0.25]
    return len(raw)


def check_reading(program, folder, targets):
    """An adapter that peft makes and saves, read by our program: the sums of its tensors agree."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    kwargs = dict(target_modules=targets) if targets else {}
    peft_model = get_peft_model(model, LoraConfig(r=3, lora_alpha=7, lora_dropout=0.1, use_rslora=True,
                                                  task_type="CAUSAL_LM", init_lora_weights=False, **kwargs))
    peft_model.save_pretrained(folder / "from_peft")
    out = subprocess.run([program, "read", folder, folder / "from_peft"], check=True, capture_output=True, text=True)
    assert not out.stderr, out.stderr
    lines = out.stdout.splitlines()
    raw = load_file(folder / "from_peft" / "adapter_model.safetensors")
    assert lines[0] == f"r 3 alpha 7 dropout 0.1 rslora 1 pairs {len(raw) // 2}", lines[0]
    for line in lines[1:]:
        module, a, b = line.split()
        for which, got in (("A", a), ("B", b)):
            want = raw[f"base_model.model.{module}.lora_{which}.weight"].double().sum().item()
            assert abs(want - float(got)) < 1e-9, (module, which, want, got)


def our_logits(program, model, adapter, ids):
    out = subprocess.run([program, "logits", model, adapter or "-", *map(str, ids)], check=True, capture_output=True, text=True)
    return torch.tensor([[float(x) for x in line.split()] for line in out.stdout.splitlines()])


def expect_close(what, got, want, absolute=1e-4, relative=1e-5):
    worst = ((got - want).abs() - relative * want.abs()).max().item()
    assert got.shape == want.shape and worst <= absolute, (what, worst)
    return max(worst, 0)


def set_known_keys(config):
    """What both say about an adapter; lists of peft are sets."""
    keys = ("alpha_pattern", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "layers_to_transform", "lora_alpha",
            "lora_dropout", "peft_type", "r", "rank_pattern", "target_modules", "task_type", "use_rslora")
    known = {}
    for key in keys:
        value = config.get(key)
        if key == "layers_to_transform" and isinstance(value, int):
            value = [value]
        known[key] = sorted(value) if isinstance(value, list) else value or None
    return known


def merge(rlhf_hpc, base, adapter, out, *settings):
    """The program's own merge: the folder, and the largest memory in bytes."""
    (out.parent / "merge.cfg").write_text(f'task = "merge"; model: {{ path = "{base}"; adapter = "{adapter}"; }}; '
                                          f'run: {{ output_dir = "{out}"; }};')
    command = [rlhf_hpc, *(x for s in settings for x in ("-s", s)), out.parent / "merge.cfg"]
    # a process counts what its parent held before it was started: a small one in between
    watch = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", watch, *command], check=True, capture_output=True, text=True)
    return out / "model", 1024 * int(done.stdout)


def check_case(program, rlhf_hpc, name, spec, scratch):
    """One case of record_adapters.py, from peft to us, back, and merged."""
    root = pathlib.Path(record_adapters.HERE) / "adapters"
    base, adapter = pathlib.Path(record_adapters.base_folder(root, spec["base"])), scratch / name
    kind = record_adapters.write_adapter(adapter, str(base), name, spec)
    classifier = kind is AutoModelForSequenceClassification
    config = json.loads((root / name / "expected.json").read_text())
    ids, batch = config["ids"], torch.tensor([config["ids"]])
    # a random adapter that is not the recorded one
    state = load_file(adapter / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
    save_file({k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in state.items()},
              adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    model = PeftModel.from_pretrained(record_adapters.load_base(base, kind), adapter)
    again = scratch / "again"
    subprocess.run([program, "rewrite", base, adapter, again], check=True)
    rewritten = json.loads((again / "adapter_config.json").read_text())
    assert set_known_keys(rewritten) == set_known_keys(json.loads((adapter / "adapter_config.json").read_text())), rewritten
    back = PeftModel.from_pretrained(record_adapters.load_base(base, kind), again)
    for key, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[key]) or ".original_module." in key, key
    merged, _ = merge(rlhf_hpc, base, adapter, scratch / "merged", "merge.dtype=float32")
    loaded, info = kind.from_pretrained(merged, dtype="auto", output_loading_info=True, **({"pad_token_id": 0} if classifier else {}))
    expected_rest = {"lm_head.weight"} if classifier else set()
    assert not info["missing_keys"] and not info["mismatched_keys"] and set(info["unexpected_keys"]) <= expected_rest, info
    assert loaded.dtype == torch.float32
    with torch.no_grad():
        on = model(batch).logits
        worst = [expect_close("merged in transformers", loaded.eval()(batch).logits, on)]
        if not classifier:
            with model.disable_adapter():
                off = model(batch).logits
            worst += [expect_close("off", our_logits(program, base, None, ids), off[0]),
                      expect_close("on", our_logits(program, base, adapter, ids), on[0]),
                      expect_close("written again", our_logits(program, base, again, ids), on[0]),
                      expect_close("merged here", our_logits(program, merged, None, ids), on[0])]
    print(f"{name}: off by {max(worst):.1e} at most beyond 1e-5 of a logit; {', '.join(key for key in spec if key != 'base')}")


def check_memory(rlhf_hpc, scratch):
    """A model of several shards above 100 MB: the merge takes no more than a shard and 10 %, and computes the same."""
    config = LlamaConfig(vocab_size=24000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=8,
                         max_position_embeddings=128)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    base, adapter = scratch / "base", scratch / "adapter"
    model.save_pretrained(base, max_shard_size="120MB")
    shards = sorted(base.glob("*.safetensors"))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p *= 0.05
    model.save_pretrained(adapter)
    for dtype in ("float32", "auto"):
        merged, peak = merge(rlhf_hpc, base, adapter, scratch / dtype, f"merge.dtype={dtype}")
        largest = max(p.stat().st_size for p in merged.glob("*.safetensors"))
        print(f"merge of {len(shards)} shards in {dtype}: largest {largest / 1e6:.0f} MB, peak memory {peak / 1e6:.0f} MB")
        assert len(shards) > 2 and largest > 1e8 and peak <= 1.1 * largest
    batch = torch.arange(3, 35)[None]
    with torch.no_grad():
        on = model.eval()(batch).logits
        loaded = AutoModelForCausalLM.from_pretrained(scratch / "float32" / "model", dtype="auto").eval()
        with model.disable_adapter():
            moved = (on - model(batch).logits).abs().max().item()
        worst = expect_close("merged", loaded(batch).logits, on, absolute=1e-3)
        print(f"logits of the merged model off by {worst:.1e} at most; the adapter moves them by up to {moved:.2f}")
        assert moved > 0.1


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    rlhf_hpc = str(pathlib.Path(sys.argv[2]).resolve())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name, spec in record_adapters.CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            check_case(program, rlhf_hpc, name, spec, pathlib.Path(scratch))
    with tempfile.TemporaryDirectory() as scratch:
        check_memory(rlhf_hpc, pathlib.Path(scratch))
    for name, config in dict(neox=NEOX, linear=LINEAR, llama=LLAMA, llama3=LLAMA3).items():
        regex = r".*\.layers\.1\..*(dense|[ov]_proj)"
        for targets in ("", "all-linear", regex):
            with tempfile.TemporaryDirectory() as scratch:
                folder = pathlib.Path(scratch)
                (folder / "config.json").write_text(json.dumps(config))
                subprocess.run([program, "write", folder, targets], check=True)
                model = check_model(folder, config)
                n = check_adapter(folder, model)
                check_reading(program, folder, targets)
                print(f"{name} {targets or 'default targets'}: {n} adapter tensors, both ways")


if __name__ == "__main__":
    main()
