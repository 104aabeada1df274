"""Random Unicode strings through `rlhf-hpc` (task = "tokenize") and through Hugging Face's tokenizers: ids and decoded
texts must be equal, with the post-processor's special tokens and without.

    python tokenizers_random.py RLHF-HPC COUNT FOLDER... [--stages FOLDER]

FOLDER holds a tokenizer.json; that after --stages is byte-level, and is tried with each normalizer and pre-tokenizer in the
place of its own: byte-level tokens lose nothing, so that the decoded text shows what the stage made of every character. The
strings depend on the folder's name and on COUNT alone: the characters of the planes in use (each of them from 10,000
strings on), mixtures of scripts, marks, controls, emoji, white space, private use and the tokenizer's added tokens, words,
characters drawn from all of Unicode, long runs. Ends with 1 and shows the first differences where there are any. Checked
with tokenizers 0.23.3, whose character tables src/categories.h describes.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from tokenizers import Tokenizer

SURROGATES = range(0xD800, 0xE000)
IN_USE = [c for c in [*range(0x323B0), *range(0xE0000, 0xE01F0), *range(0xF0000, 0xF0010), 0x10FFFD] if c not in SURROGATES]
POOLS = [  # ranges of characters that a mixture draws from, one pool as likely as the next
    [(0x20, 0x7E)], [(0x41, 0x5A), (0x61, 0x7A)], [(0x30, 0x39)], [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    [(0x20, 0x20)], [(9, 13), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200B), (0x2028, 0x202F), (0x3000, 0x3000)],
    [(0, 0x1F), (0x7F, 0x9F)], [(0xA1, 0x24F)], [(0x1E00, 0x1EFF)], [(0x300, 0x36F)], [(0x591, 0x5C7), (0x610, 0x65F), (0x1DC0, 0x1DFF)],
    [(0x370, 0x3FF), (0x1F00, 0x1FFF)], [(0x400, 0x52F)], [(0x5D0, 0x5EA), (0x620, 0x64A)], [(0x900, 0x97F), (0x980, 0xDFF)],
    [(0xE00, 0xEFF)], [(0x1100, 0x11FF), (0xAC00, 0xD7A3)], [(0x3040, 0x30FF)], [(0x4E00, 0x9FFF)], [(0x20000, 0x2EBE0)],
    [(0x2010, 0x206F)], [(0x2070, 0x2BFF)], [(0xFB00, 0xFDFF), (0xFE70, 0xFEFF), (0xFF00, 0xFFEF)], [(0xE000, 0xF8FF)],
    [(0x1F300, 0x1FAFF)], [(0x1F3FB, 0x1F3FF), (0x200D, 0x200D), (0xFE0E, 0xFE0F), (0x1F1E6, 0x1F1FF)], [(0x10000, 0x16FFF)],
    [(0x1D400, 0x1D7FF), (0x1E000, 0x1E95F)], [(0xFFF0, 0xFFFD), (0xFEFF, 0xFEFF), (0xAD, 0xAD), (0x2581, 0x2581)],
]
WORDS = ("the", "film", "Movie", "unaffable", "I'm", "don't", "it'S", "we'LL", "3.14159", "1,000,000", "café", "naïve", "ﬁne", "Σίσυφος",
         "İstanbul", "ß", "日本語", "한국어", "русский", "नमस्ते", "ไทย", "##ing", "▁a", "<0x41>", "...", "--", "\r\n", "\n\n", "\t", "  ", "e\u0301\u0323")


def character(r, pool):
    first, last = r.choice(pool)
    return chr(r.randint(first, last))


def mixture(r, added):
    pools = r.sample(POOLS, r.randint(1, 5))
    parts = []
    for _ in range(r.randint(1, 40)):
        if added and r.random() < 0.06:
            parts.append(r.choice(added))
        elif r.random() < 0.1:
            parts.append(" ")
        else:
            parts.append(character(r, r.choice(pools)))
    return "".join(parts)


def words(r, added):
    between = r.choice([" ", " ", "  ", "\n", "", " , "])
    return between.join(r.choice(WORDS) if r.random() < 0.9 or not added else r.choice(added) for _ in range(r.randint(1, 25)))


def anything(r, added):
    return "".join(chr(c) for c in (r.randrange(0x110000) for _ in range(r.randint(1, 60))) if c not in SURROGATES) or "\0"


def runs(r, added):
    return "".join(character(r, r.choice(POOLS)) * r.choice([1, 2, 3, 20, 101, 300]) for _ in range(r.randint(1, 4)))


def strings(name, count, added):
    """count strings; a third of them go through the characters in use, with something between them: 10,000 reach each."""
    r = random.Random(f"{name} {count}")
    sweeps = count // 3
    result = []
    for i in range(sweeps):
        first, end = i * len(IN_USE) // sweeps, (i + 1) * len(IN_USE) // sweeps
        part = IN_USE[first:min(end, first + 64)]
        result.append("a" + "".join(chr(c) + r.choice(["", " ", "a", "e ", ". "]) for c in part))
    while len(result) < count:
        result.append(r.choice([mixture, mixture, mixture, words, words, anything, runs])(r, added))
    return result


def tokenize(program, folder, texts, special, work):
    """What the program makes of the texts: a list of {"ids", "decoded"}."""
    with open(f"{work}/texts.jsonl", "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with open(f"{work}/input.cfg", "w") as file:
        file.write(f'task = "tokenize";\nmodel: {{ path = "{folder}"; }};\ndata: {{ path = "{work}/texts.jsonl"; '
                   f'add_special_tokens = {"true" if special else "false"}; }};\nrun: {{ output_dir = "{work}/out"; }};\n')
    subprocess.run(["rm", "-rf", f"{work}/out"], check=True)
    subprocess.run([program, f"{work}/input.cfg"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": work})
    with open(f"{work}/out/tokenize.jsonl", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def compare(program, folder, count, work):
    """Prints a line on the folder's tokenizer, and the first texts on which the two differ. Returns how many do."""
    begin = time.monotonic()
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = strings(os.path.basename(folder), count, added)
    differ = {}
    for special in (True, False):
        encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=special)]
        kept = [i for i, ids in enumerate(encoded) if ids]  # the program refuses texts without tokens
        got = tokenize(program, folder, [texts[i] for i in kept], special, work)
        assert len(got) == len(kept), f"{len(got)} lines for {len(kept)} texts"
        for i, line in zip(kept, got):
            want = {"ids": encoded[i], "decoded": tokenizer.decode(encoded[i], skip_special_tokens=False)}
            if line != want:
                differ.setdefault(i, (line, want))
    print(f"{os.path.basename(folder)}: {count - len(differ)} of {count} equal, {time.monotonic() - begin:.0f} s", flush=True)
    for i, (line, want) in list(differ.items())[:5]:
        print(f"  text    {ascii(texts[i])}")
        for key in ("ids", "decoded"):
            if line[key] != want[key]:
                first = next((k for k, (a, b) in enumerate(zip(line[key], want[key])) if a != b), min(len(line[key]), len(want[key])))
                print(f"  {key} from {first}: {ascii(line[key][first:first + 12])}, wanted {ascii(want[key][first:first + 12])}")
    return len(differ)


BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
NORMALIZERS = {
    "bert": BERT, "bert-cased": {**BERT, "lowercase": False}, "bert-accents": {**BERT, "strip_accents": False},
    "bert-strips": {**BERT, "clean_text": False, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False},
    **{name: {"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase")},
    "Strip": {"type": "Strip", "strip_left": True, "strip_right": True},
}
PRE_TOKENIZERS = {
    "BertPreTokenizer": {"type": "BertPreTokenizer"}, "Whitespace": {"type": "Whitespace"}, "WhitespaceSplit": {"type": "WhitespaceSplit"},
    "Digits": {"type": "Digits", "individual_digits": True}, "Punctuation": {"type": "Punctuation", "behavior": "Isolated"},
}


def stages(folder, work):
    """Writes the tokenizers of --stages; yields their folders."""
    with open(f"{folder}/tokenizer.json", encoding="utf-8") as file:
        plain = json.load(file)
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    edits = {name: {"normalizer": stage} for name, stage in NORMALIZERS.items()}
    for name, stage in PRE_TOKENIZERS.items():
        edits[name] = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [stage, bytes_only]}}
    for name, edit in edits.items():
        os.mkdir(f"{work}/{name}")
        with open(f"{work}/{name}/tokenizer.json", "w", encoding="utf-8") as file:
            json.dump({**plain, **edit}, file)
        yield f"{work}/{name}"


def main():
    program, count, folders = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory() as work:
        if "--stages" in folders:
            folders[-2:] = stages(folders[-1], work)
        sys.exit(1 if sum([compare(program, folder, count, work) for folder in folders]) else 0)


main()
