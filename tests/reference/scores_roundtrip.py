#!/usr/bin/env python3
"""What task = "reward" writes, in transformers and peft; and what task = "merge" makes of it.

    scores_roundtrip.py FOLDERS PROGRAM     FOLDERS: tests/reference/folders of the build; PROGRAM: rlhf-hpc

Of each family a tiny random folder, and one of an encoder without its classifier, is trained for a few steps: by pairs and by classes, with
adapters and the head alone. The adapter folder is loaded as src/classifier_folder.h says, on the base that lies there: every tensor of
the file must be in the model with its values, and the scores of single texts and of a padded batch be ours (1e-4 + 1e-5 relative).
The merged folder loads without its adapter, has all weights, the classes and the same scores within 1e-3.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors.torch import load_file

from family_models import FIRST_ID, LLAMA, MODELS, write_folder

NEOX = dict(type="gpt_neox", dtype="float32", config=dict(
    vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
    max_position_embeddings=64, bos_token_id=0, eos_token_id=0))
# float32 files: what is compared is not how 16-bit weights round
FAMILIES = {"gpt_neox": NEOX, "gpt2": MODELS["gpt2"], "llama": dict(type="llama", config=LLAMA),
            "bert": MODELS["bert"], "distilbert": MODELS["distilbert"], "roberta": MODELS["roberta"]}
BARE = dict(distilbert=transformers.DistilBertModel, bert=transformers.BertForMaskedLM, roberta=transformers.RobertaForMaskedLM)
CLASSES = ["bad", "fair", "good"]
SETTINGS = ["-s", "task=reward", "-s", "model.quantization=none", "-s", "lora.r=2", "-s", 'lora.target_modules=["all-linear"]',
            "-s", "optim.learning_rate=1e-2", "-s", "run.max_steps=3", "-s", "run.save_steps=0", "-s", "run.device=cpu",
            "-s", "reward_model.batch_size=4"]


def word(i):
    return f"w{i}"


def write_tokenizer(folder, vocab):
    """Words to ids; nothing around them."""
    words = {word(i): i for i in range(vocab)}
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None,
                       pre_tokenizer=dict(type="BertPreTokenizer"), post_processor=None, decoder=None,
                       model=dict(type="WordPiece", unk_token=word(3), continuing_subword_prefix="##",
                                  max_input_chars_per_word=100, vocab=words)), f)


def write_base(root, name, bare):
    """bare: the class of the folder instead, which has no head."""
    spec = dict(FAMILIES[name], dtype="float32")
    folder = os.path.join(root, name + (f"-{bare.__name__}" if bare else ""))
    os.makedirs(folder)
    write_folder(folder, dict(spec, old=spec.get("old") and not bare), 7)
    if bare:
        bare.from_pretrained(folder, dtype=torch.float32).save_pretrained(folder)
    write_tokenizer(folder, spec["config"]["vocab_size"])
    return folder


def draw_text(r, vocab, n):
    return [r.randrange(FIRST_ID, vocab) for _ in range(n)]


def write_data(path, kind, vocab):
    r = random.Random(5)
    text = lambda: " ".join(map(word, draw_text(r, vocab, r.randint(2, 20))))
    with open(path, "w") as f:
        for i in range(12):
            row = dict(prompt=text(), chosen=" " + text(), rejected=" " + text()) if kind == "pairs" else dict(
                text=text(), label=CLASSES[i % 3])
            f.write(json.dumps(row) + "\n")


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def settings_file(out):
    """An empty one: all settings are on the command line."""
    path = out + ".cfg"
    open(path, "w").close()
    return path


def train(program, base, kind, head_only, out, vocab):
    data = out + ".jsonl"
    write_data(data, kind, vocab)
    loss = ["-s", f"reward_model.loss={'pairwise' if kind == 'pairs' else 'cross_entropy'}"]
    run(program, *SETTINGS, *loss, "-s", f"model.path={base}", "-s", f"data.path={data}", "-s", f"run.output_dir={out}",
        "-s", f"reward_model.head_only={str(head_only).lower()}", settings_file(out))
    return os.path.join(out, "adapter")


def load_adapter(base, adapter, kind):
    """As src/classifier_folder.h says; all that is trained, and that the classes are there."""
    config = transformers.AutoConfig.from_pretrained(adapter)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, config=config, dtype=torch.float32, ignore_mismatched_sizes=True)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    stored, state = load_file(os.path.join(adapter, "adapter_model.safetensors")), peft.get_peft_model_state_dict(model)
    assert set(stored) == set(state), sorted(set(stored) ^ set(state))
    assert all(torch.equal(stored[name], state[name]) for name in stored)
    assert model.peft_type == "LORA" and model.peft_config["default"].task_type == "SEQ_CLS"
    check_classes(model.config, kind)
    return model


def check_classes(config, kind):
    want = {0: "LABEL_0"} if kind == "pairs" else dict(enumerate(CLASSES))
    assert config.id2label == want and config.num_labels == len(want), config.id2label
    assert config.label2id == {name: i for i, name in want.items()}


def scores(model, texts):
    """Of each text alone, and of all in a padded batch."""
    pad = model.config.pad_token_id
    longest = max(map(len, texts))
    batch = torch.tensor([t + [pad] * (longest - len(t)) for t in texts])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts])
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([t])).logits for t in texts])
        together = model(input_ids=batch, attention_mask=mask).logits
    return alone, together


def ours(folders, base, adapter, texts):
    lines = [run(folders, "scores", base, adapter, *t) for t in texts]
    return torch.tensor([[float(x) for x in line.split()] for line in lines])


def expect(what, got, want, absolute=1e-4, relative=1e-5):
    assert got.shape == want.shape, (what, got.shape, want.shape)
    assert ((got - want).abs() <= absolute + relative * want.abs()).all(), (what, (got - want).abs().max().item())


def check(folders, program, root, base, kind, head_only):
    with open(os.path.join(base, "config.json")) as f:
        vocab = json.load(f)["vocab_size"]
    out = os.path.join(root, f"{os.path.basename(base)}-{kind}-{'head' if head_only else 'lora'}")
    adapter = train(program, base, kind, head_only, out, vocab)
    r = random.Random(9)
    texts = [draw_text(r, vocab, n) for n in (17, 5, 1)]
    alone, together = scores(load_adapter(base, adapter, kind), texts)
    mine = ours(folders, base, adapter, texts)
    assert (mine.max(0).values - mine.min(0).values).max() > 1e-3, ("these scores tell no texts apart", mine)
    expect("alone", mine, alone)
    expect("padded", mine, together)

    run(program, "-s", "task=merge", "-s", f"model.path={base}", "-s", f"model.adapter={adapter}",
        "-s", f"run.output_dir={out}-merged", settings_file(out))
    merged = os.path.join(out + "-merged", "model")
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        merged, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert model.config.architectures == [type(model).__name__], model.config.architectures
    check_classes(model.config, kind)
    for got in scores(model.eval(), texts):
        expect("merged", got, mine, 1e-3)
    expect("merged, here", ours(folders, merged, "-", texts), mine, 1e-3)
    return (mine - alone).abs().max().item()


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folders, program = (os.path.abspath(p) for p in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as root:
        for name, bare in [(name, None) for name in FAMILIES] + list(BARE.items()):
            base = write_base(root, name, bare)
            kinds = [("classes", False)] if bare else [(kind, head) for kind in ("pairs", "classes") for head in (False, True)]
            worst = max(check(folders, program, root, base, *kind) for kind in kinds)
            print(f"{os.path.basename(base)}: {len(kinds)} folders and merged models; largest difference {worst:.1e}", flush=True)


if __name__ == "__main__":
    main()
