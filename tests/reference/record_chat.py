#!/usr/bin/env python3
"""Records what transformers renders from conversations with the chat templates of templates/*.jinja.

    python tests/reference/record_chat.py [--seed N] [--templates FOLDER] [OUT]     (default OUT: chat/ beside this script)

Writes OUT/conversations.jsonl, what is rendered: messages, tools, add_generation_prompt and other variables; and for each
template OUT/<name>.jsonl, a line for each conversation: {"text": ..} or, where rendering raises, {"error": ..}: the message
of raise_exception, null for what else is raised. Two runs with one seed write the same bytes.
"""
import argparse
import datetime
import glob
import json
import os
import random
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jinja2
from transformers.utils import chat_template_utils

N = 50
TOKENS = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")

WORDS = ("film movie plot the a of was great terrible I think that acting scene music why not really never "
         "<br /> \"quoted\" it's caf\u00e9 \u4f60\u597d \U0001f600 \u00df x < y & z > 0 {brace} {{tag}} {% if %} back\\slash "
         "<|im_end|> [INST] </s> 3.14 e.g.").split(" ")
SPACES = [" ", " ", " ", " ", "\n", "\n\n", "  ", "\t", "\u00a0", "\u2028"]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a \"city\" <now>",
     "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Name"},
                    "days": {"type": "integer", "default": 3}, "exact": {"type": "boolean", "default": False}},
                    "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "Sum of two numbers",
     "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                    "required": ["a", "b"]}}},
]


def text(rng, n=14):
    words = rng.choices(WORDS, k=rng.randint(1, n))
    out = "".join(w + rng.choice(SPACES) for w in words)
    return out if rng.random() < 0.2 else out.strip()


def call(rng, n):
    tool = rng.choice(TOOLS)["function"]
    arguments = {k: rng.choice([1, 2.5, 1e-7, 1e16, True, None, text(rng, 3)]) for k in tool["parameters"]["properties"]}
    return {"type": "function", "id": "call%05d" % n, "function": {"name": tool["name"], "arguments": arguments}}


def conversation(rng):
    """A conversation of a kind that users have: system or none, odd turns, tools or none."""
    kind = rng.random()
    messages = []
    if rng.random() < 0.45:
        messages.append({"role": "system", "content": text(rng)})
    tools = TOOLS[:rng.randint(1, 2)] if 0.55 < kind < 0.8 else None
    for turn in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text(rng)})
        if tools and rng.random() < 0.7:
            calls = [call(rng, 10 * turn + i) for i in range(rng.randint(1, 2))]
            messages.append({"role": "assistant", "content": rng.choice(["", text(rng, 4)]), "tool_calls": calls})
            for c in calls if rng.random() < 0.9 else []:
                messages.append({"role": "tool", "name": c["function"]["name"], "tool_call_id": c["id"],
                                 "content": rng.choice([text(rng, 4), json.dumps({"result": rng.randint(0, 9)})])})
        answer = {"role": "assistant", "content": text(rng)}
        if rng.random() < 0.2:
            answer["content"] = "<think>\n" + text(rng, 4) + "\n</think>\n\n" + answer["content"]
        elif rng.random() < 0.1:
            answer["reasoning_content"] = text(rng, 4)
        messages.append(answer)
    if rng.random() < 0.6:
        messages.pop()
    if kind < 0.12:  # turns that many templates refuse
        odd = rng.choice(["double", "assistant", "late system", "role", "part", "absent", "empty"])
        at = rng.randrange(len(messages) + 1)
        if odd == "double":
            messages.insert(at, {"role": "user", "content": text(rng)})
        elif odd == "assistant":
            messages.insert(0, {"role": "assistant", "content": text(rng)})
        elif odd == "late system":
            messages.append({"role": "system", "content": text(rng)})
        elif odd == "role":
            messages.insert(at, {"role": "critic", "content": text(rng)})
        elif odd == "part":
            messages.append({"role": "user", "content": [{"type": "text", "text": text(rng)}, {"type": "text", "text": "b"}]})
        elif odd == "absent":
            messages.append({"role": "user"})
        else:
            messages = messages[:1]
            messages[0] = dict(messages[0], content="")
    variables = {}
    if rng.random() < 0.15:
        variables["enable_thinking"] = rng.random() < 0.5
    return dict(messages=messages, tools=tools, add_generation_prompt=rng.random() < 0.5, **variables)


def render(template, c):
    class Noon(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 7, 26, 12, 0, 0)
    chat_template_utils.datetime = Noon
    variables = {k: v for k, v in c.items() if k not in ("messages", "tools", "add_generation_prompt")}
    try:
        messages = chat_template_utils._normalize_chat_messages(c["messages"])
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], tools=c["tools"], chat_template=template, add_generation_prompt=c["add_generation_prompt"],
            **TOKENS, **variables)
        return {"text": rendered[0]}
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e) if type(e) is jinja2.exceptions.TemplateError else None}
    except Exception:
        return {"error": None}


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=5)
    p.add_argument("--templates", default=os.path.join(here, "templates"))
    p.add_argument("out", nargs="?", default=os.path.join(here, "chat"))
    o = p.parse_args()
    rng = random.Random(o.seed)
    conversations = [conversation(rng) for _ in range(N)]
    os.makedirs(o.out, exist_ok=True)
    for old in glob.glob(os.path.join(o.out, "*.jsonl")):
        os.remove(old)
    write(os.path.join(o.out, "conversations.jsonl"), conversations)
    for path in sorted(glob.glob(os.path.join(o.templates, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            template = f.read()
        name = os.path.splitext(os.path.basename(path))[0]
        write(os.path.join(o.out, name + ".jsonl"), [render(template, c) for c in conversations])
        if os.path.abspath(os.path.join(here, "templates")) != os.path.abspath(o.templates):
            shutil.copy(path, o.out)


main()
