#!/usr/bin/env python3
"""Records what task = "reward" is held to: one batch of preference pairs and one of labelled texts, through the adapters of the
reference models with a score head beside them; losses, scores, all gradients, and the trainables after two clipped AdamW updates.

    python tests/reference/record_scores.py [FOLDER]        (after record.py and record_families.py; default: the folder of this script)

Computed in float64, each sequence alone, and held against float32 on padded batches: TRL's RewardTrainer.compute_loss for the pairs,
the loss of transformers' own classification models for the texts. The adapter folders are written by peft.
"""
import collections
import os
import sys
import types
import warnings

import record
import peft
import torch
import transformers
import trl.trainer.reward_trainer
from record_train import worst_errors
from safetensors.torch import load_file

# the large epsilon keeps the rounding of tiny gradients out of their quotients
UPDATES = dict(learning_rate=0.01, adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-4, weight_decay=0.1, max_grad_norm=0.25,
               updates=2)
CENTER = 0.01
LENGTHS = dict(pairs=((7, 12), (9, 3), (20, 21)), classes=((11,), (4,), (25,), (1,)))
ENCODER_TARGETS = ["q_lin", "v_lin", "lin2"]
MARGINS, LABELS, CLASSES = (0.5, 0.0, -1.25), (2, 0, 1, 2), 3


def build(folder, kind):
    """The base with the LoRA weights that the language model's adapter has, and a score head drawn here. An encoder has the head
    of its folder, and LoRA weights drawn here; what stands before the head is not trained, though peft saves it too."""
    n = 1 if kind == "pairs" else CLASSES
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=n, pad_token_id=0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(77 + n)
    if hasattr(model, "score"):
        lora = peft.PeftConfig.from_pretrained(os.path.join(folder, "adapter"))
        lora.task_type, lora.inference_mode, lora.modules_to_save = peft.TaskType.SEQ_CLS, False, None
        weights = load_file(os.path.join(folder, "adapter", "adapter_model.safetensors"))
        weights["base_model.model.score.weight"] = 0.3 * torch.randn((n, config.hidden_size), generator=generator)
    else:
        lora = peft.LoraConfig(r=2, lora_alpha=4, target_modules=ENCODER_TARGETS, task_type="SEQ_CLS")
    model = peft.get_peft_model(model, lora)
    if not hasattr(model.base_model.model, "score"):
        weights = {name: torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5 if "lora_" in name else p
                   for name, p in peft.get_peft_model_state_dict(model).items()}
    result = peft.set_peft_model_state_dict(model, weights)
    assert not result.unexpected_keys, result.unexpected_keys
    model.peft_config["default"].target_modules = sorted(model.peft_config["default"].target_modules)
    return model.eval()


def scores(model, ids):
    """[K], of the last token; the pad token may stand in the ids, so the head is applied here."""
    base = model.base_model.model
    if not hasattr(base, "score"):
        return model(input_ids=torch.tensor([ids])).logits[0]
    hidden = getattr(base, base.base_model_prefix)(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    return base.score(hidden)


def loss_of(kind, score):
    if kind == "classes":
        return torch.nn.functional.cross_entropy(score, torch.tensor(LABELS))
    chosen, rejected = score[0::2, 0], score[1::2, 0]
    margin = torch.tensor(MARGINS, dtype=score.dtype)
    return (-torch.nn.functional.logsigmoid(chosen - rejected - margin).mean()
            + CENTER * ((chosen + rejected) ** 2).mean())


def padded(sequences):
    width = max(map(len, sequences))
    ids = torch.tensor([s + [0] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return dict(input_ids=ids, attention_mask=mask)


def theirs(kind, model, sequences):
    """The loss as TRL and transformers have it."""
    if kind == "classes":
        return model(**padded(sequences), labels=torch.tensor(LABELS)).loss
    same = types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = types.SimpleNamespace(model=model, args=types.SimpleNamespace(center_rewards_coefficient=CENTER), accelerator=same,
                                    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
                                    _total_train_tokens=0, _tp_size=1)
    batch = padded(sequences[0::2] + sequences[1::2])
    forward = lambda margin, **inputs: model(**inputs)
    return trl.trainer.reward_trainer.RewardTrainer.compute_loss(trainer, forward, dict(batch, margin=torch.tensor(MARGINS)))


def values(kind, model, sequences):
    named = {n.replace(".default", "").replace(".modules_to_save", ""): p
             for n, p in model.named_parameters() if p.requires_grad and "pre_classifier" not in n}
    optimizer = torch.optim.AdamW(named.values(), lr=UPDATES["learning_rate"],
                                  betas=(UPDATES["adam_beta1"], UPDATES["adam_beta2"]), eps=UPDATES["adam_epsilon"],
                                  weight_decay=UPDATES["weight_decay"])
    tensors, numbers = {}, {}
    for update in range(UPDATES["updates"]):
        optimizer.zero_grad()
        score = torch.stack([scores(model, ids) for ids in sequences])
        loss = loss_of(kind, score)
        loss.backward()
        if update == 0:
            tensors["score"] = score.detach()
            tensors.update({f"grad.{n}": p.grad.clone() for n, p in named.items()})
            numbers["loss"] = loss.item()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), UPDATES["max_grad_norm"])
        numbers[f"grad_norm_{update}"] = norm.item()
        assert norm > UPDATES["max_grad_norm"], "the norm is not clipped: lower max_grad_norm"
        optimizer.step()
    tensors.update({f"updated.{n}": p.detach().clone() for n, p in named.items()})
    return tensors, numbers


def record_kind(folder, kind):
    out = os.path.join(folder, kind)
    os.makedirs(out, exist_ok=True)
    model = build(folder, kind)
    generator = torch.Generator().manual_seed(99)
    vocab = model.config.vocab_size  # 0 pads, so it is not drawn
    sequences = [[1 + i for i in record.draw_ids(generator, n, vocab - 1)] for pair in LENGTHS[kind] for n in pair]
    model.peft_config["default"].base_model_name_or_path = os.path.basename(folder)
    model.save_pretrained(out)
    os.remove(os.path.join(out, "README.md"))
    with torch.no_grad():
        by_them = theirs(kind, model, sequences).item()
    tensors, numbers = values(kind, record.in_float64(build(folder, kind)), sequences)
    assert abs(by_them - numbers["loss"]) < 1e-5 * numbers["loss"], "the loss of TRL or transformers is another one"
    record.check_float32(f"{os.path.basename(folder)} {kind}", tensors, values(kind, build(folder, kind), sequences)[0])
    extra = dict(margins=MARGINS, center=CENTER) if kind == "pairs" else dict(labels=LABELS)
    rounded = values(kind, build(folder, kind).bfloat16(), sequences)[0]
    before = {name: t for name, t in tensors.items() if not name.startswith("updated.")}
    record.write(out, "expected", tensors, dict(ids=sequences, settings=UPDATES, expected=numbers,
                                                bfloat16_error=worst_errors(before, rounded), **extra))


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name, kinds in (("neox-parallel", LENGTHS), ("llama-gqa", LENGTHS), (os.path.join("families", "distilbert"), ["classes"])):
        for kind in kinds:
            record_kind(os.path.join(root, name), kind)
            for folder, _, files in os.walk(os.path.join(root, name, kind)):
                for file in files:  # safetensors writes 0600
                    os.chmod(os.path.join(folder, file), 0o644)


if __name__ == "__main__":
    main()
